"""A session with people who label: what to ask them, what they said, and a file that keeps both.

A host shell over the state and the pure functions of `pool.py`, which the loop uses too. What
happened is a list of events; the state follows from them, so they are all that is saved.
"""

import warnings
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax import pool as pools
from bbald_jax.acquisition.functions import find
from bbald_jax.acquisition.inputs import Acquisition, Inputs
from bbald_jax.acquisition.warnings import arbitrary_batch
from bbald_jax.files import read_document, write_document
from bbald_jax.labelling.validation import check_ids, check_integers, check_labels, check_points
from bbald_jax.validation import assert_positive, check_log_probs

_KIND, _VERSION = "bbald_jax session", 1
# Pending points come in arrays of this length, or of a power of two: a new one is a compilation.
_LEAST_CAPACITY = 16


class Event(NamedTuple):
    """One thing that happened in a session.

    Attributes:
      action: "ask", "tell" or "skip".
      indices: the points, in the order in which they were chosen or told.
      labels: theirs; empty unless the action is "tell".
      acquisition: the name of the function that chose them; None unless the action is "ask".
    """

    action: Literal["ask", "tell", "skip"]
    indices: tuple[int, ...]
    labels: tuple[int, ...] = ()
    acquisition: str | None = None


class Labels(NamedTuple):
    """Points and their labels.

    Attributes:
      indices: `[L]`, rising.
      labels: `[L]`, 0 to C - 1.
    """

    indices: np.ndarray
    labels: np.ndarray


class Session:
    """Points that people label: ask for some, tell their labels as they come, save, go on.

    ```
    session = bb.Session(num_points=1000, num_classes=3)
    indices = session.ask(log_probs, batch_size=10)
    session.save("labels.json")            # a crash from here on loses nothing
    session.tell(indices[:4], [2, 0, 0, 1])  # the others are still out
    session = bb.Session.load("labels.json")
    ```

    Indices are always positions in the N points whose predictions are passed to `ask`. `ids` are
    names for them, saved with the session: `session.ids[indices]` gives them, `session.indices_of`
    leads back. Leave out of a session what is labelled before it begins: pass predictions for the
    rest, and the rest's positions in the whole as `ids`.

    Every method refuses what is wrong before it changes anything.

    Attributes:
      num_points: N.
      num_classes: C.
      seed: ask number i draws from `fold_in(key(seed), i)`, whether or not the session was saved
        and loaded in between.
    """

    def __init__(self, num_points: int, num_classes: int, ids: Any = None, seed: int = 0) -> None:
        """A session in which nothing is labelled.

        Args:
          num_points: N, at least 1.
          num_classes: C, at least 1.
          ids: `[N]`, unique strings, or unique integers; by default the indices themselves.
          seed: everything random comes from it; 0 to 2^32 - 1.

        Raises:
          ValueError: a size or the seed out of range; `ids` that are not unique, of another
            length, or of another kind.
        """
        assert_positive(num_points=num_points, num_classes=num_classes)
        if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ValueError(f"seed: {seed!r} is not an integer from 0 to 2^32 - 1")
        self.num_points, self.num_classes, self.seed = int(num_points), int(num_classes), int(seed)
        self._ids = None if ids is None else check_ids(ids, self.num_points)
        self._pool = pools.init_pool(self.num_points)
        self._history: list[Event] = []

    def ask(
        self, log_probs: Any, batch_size: int, acquisition: str | Acquisition = "batchbald"
    ) -> np.ndarray:
        """Choose the points to be labelled next, given what is pending; then they are pending too.

        Args:
          log_probs: `[N, K, C]`, log p(y=c | x_n, w_k) for all N points, labelled ones too, of any
            framework (`bb.from_probs` and `bb.from_logits` convert). None for an acquisition
            function that requires no predictions (`random`, before there is a model).
          batch_size: B, at least 1.
          acquisition: a name in `bb.catalogue()`, or an `Acquisition`.

        Returns:
          `[B]` indices in order of acquisition, fewer when fewer points are left; none, and nothing
          has happened, when none is. Joint functions (`batchbald`) condition them on the points
          that are pending already. A `UserWarning` says why they are arbitrary, where they are:
          samples that do not differ, predictions that are the same for every point, samples that
          are spent, ties. Where warnings are errors, `pending` has the points.

        Raises:
          ValueError: `log_probs` as `check_log_probs` says, or of another N or C than the session;
            `batch_size` below 1; an unknown acquisition function, or one that requires more than
            `log_probs`, or that chose points it was not offered.
        """
        assert_positive(batch_size=batch_size)
        function = find(acquisition)
        inputs = self._check_inputs(function, log_probs)
        if not self._with(pools.UNLABELLED).size:
            return np.zeros(0, np.int64)
        num_asked = sum(event.action == "ask" for event in self._history)
        available = pools.available(self._pool)
        batch = function.select(
            jax.random.fold_in(jax.random.key(self.seed), num_asked),
            inputs,
            batch_size=min(int(batch_size), self.num_points),
            available=available,
            # None where nothing is: the configurations then need no room for pending points.
            pending=pools.pending_indices(self._pool, capacity=_capacity(self.pending.size))
            if self.pending.size
            else None,
        )
        indices = np.asarray(batch.indices)
        indices = indices[indices != -1].astype(np.int64)
        self._mark_asked(indices.tolist(), function.name)
        for line in arbitrary_batch(function, inputs.log_probs, np.asarray(available), batch):
            warnings.warn(line, stacklevel=2)
        return indices

    def tell(self, indices: Any, labels: Any) -> None:
        """Take in labels of pending points: of some or of all, in any order.

        Args:
          indices: `[L]` integers, points that were asked for.
          labels: `[L]` integers, their classes, 0 to C - 1.

        Raises:
          ValueError: an index that is unknown, named twice, or not pending; a label out of range;
            lengths that differ. Then nothing was taken in.
        """
        points, classes = check_integers("indices", indices), check_integers("labels", labels)
        self._check("indices", points, pools.PENDING)
        check_labels(classes, points, self.num_classes)
        self._pool = pools.tell(self._pool, _padded(points), _padded(classes))
        self._history.append(Event("tell", tuple(points), tuple(classes)))

    def skip(self, indices: Any) -> None:
        """Give up pending points that nobody can label: they are not asked for again.

        Args:
          indices: `[L]` integers, points that were asked for.

        Raises:
          ValueError: an index that is unknown, named twice, or not pending. Then nothing was
            skipped.
        """
        points = check_integers("indices", indices)
        self._check("indices", points, pools.PENDING)
        self._pool = pools.skip(self._pool, _padded(points))
        self._history.append(Event("skip", tuple(points)))

    @property
    def labelled(self) -> Labels:
        """The labelled points, in the order of their indices, and their labels."""
        indices = self._with(pools.LABELLED)
        return Labels(indices, np.asarray(self._pool.labels)[indices].astype(np.int64))

    @property
    def pending(self) -> np.ndarray:
        """Indices of the points that were asked for and have no answer yet, rising."""
        return self._with(pools.PENDING)

    @property
    def skipped(self) -> np.ndarray:
        """Indices of the points that were given up, rising."""
        return self._with(pools.SKIPPED)

    @property
    def history(self) -> tuple[Event, ...]:
        """All that happened, in order."""
        return tuple(self._history)

    @property
    def ids(self) -> np.ndarray:
        """`[N]`, the points' names; their indices where none were given."""
        return np.arange(self.num_points) if self._ids is None else np.asarray(self._ids)

    def indices_of(self, ids: Any) -> np.ndarray:
        """The indices of points given by name.

        Args:
          ids: `[L]`, names as they were given to the session, in any order.

        Raises:
          ValueError: a name that no point bears; one name that is not in a list.
        """
        array = np.asarray(ids)
        if array.ndim != 1:
            raise ValueError(f"ids: {ids!r} is no flat list of names; pass one, such as [{ids!r}]")
        names = array.tolist()
        for name in names:
            if name not in self._index_of:
                raise ValueError(f"ids: no point is called {name!r}; session.ids lists all names")
        return np.asarray([self._index_of[name] for name in names], np.int64)

    def save(self, path: str | Path) -> None:
        """Write the session to a file (JSON), at once: a crash leaves the old file or the new.

        Save after `ask`, before anyone starts to label.

        Raises:
          ValueError: the file there is not an earlier state of this session (somebody else's
            answers would be lost), or no session at all.
          OSError: it cannot be written; what was there before still is.
        """
        path, content = Path(path), self._content()
        if path.exists():
            there = read_document(path, kind=_KIND, version=_VERSION)
            num_events = len(there["history"])
            if content | {"history": content["history"][:num_events]} != there:
                raise ValueError(
                    f"{path}: holds another session, or this one with other answers than were "
                    "known here; load it and tell it yours, or save to another file"
                )
        write_document(path, content, kind=_KIND, version=_VERSION)

    @classmethod
    def load(cls, path: str | Path) -> "Session":
        """The session that was saved to a file; it goes on as the one that was saved would have.

        Raises:
          ValueError: the file is no session, or damaged, or of a newer version of this library.
          OSError: it cannot be read.
        """
        content = read_document(Path(path), kind=_KIND, version=_VERSION)
        session = cls(**content["settings"])
        for action, indices, labels, acquisition in content["history"]:
            if action == "ask":
                session._mark_asked(indices, acquisition)
            elif action == "tell":
                session.tell(indices, labels)
            else:
                session.skip(indices)
        return session

    def _content(self) -> dict[str, Any]:
        """What a file holds, as JSON gives it back."""
        settings = {"num_points": self.num_points, "num_classes": self.num_classes}
        settings |= {"ids": self._ids, "seed": self.seed}
        history = [
            [event.action, list(event.indices), list(event.labels), event.acquisition]
            for event in self._history
        ]
        return {"settings": settings, "history": history}

    @cached_property
    def _index_of(self) -> dict[str | int, int]:
        return {name: index for index, name in enumerate(self.ids.tolist())}

    def _with(self, status: int) -> np.ndarray:
        return np.flatnonzero(np.asarray(self._pool.status) == status)

    def _mark_asked(self, points: list[int], acquisition: str) -> None:
        self._check(f"acquisition function {acquisition!r}", points, pools.UNLABELLED)
        self._pool = pools.ask(self._pool, _padded(points))
        self._history.append(Event("ask", tuple(points), acquisition=acquisition))

    def _check(self, name: str, points: list[int], status: int) -> None:
        check_points(name, points, np.asarray(self._pool.status), status)

    def _check_inputs(self, function: Acquisition, log_probs: Any) -> Inputs:
        """What the function looks at; a session has nothing but `log_probs` to give."""
        if more := [name for name in function.requires if name != "log_probs"]:
            raise ValueError(
                f"acquisition: {function.name!r} requires {more[0]}, which a session does not "
                "take; choose another one, or call its select function"
            )
        if log_probs is None:
            if function.requires:
                raise ValueError(f"log_probs: {function.name!r} requires predictions; pass them")
            return Inputs(None)
        log_probs = check_log_probs(log_probs)
        num_points, _, num_classes = log_probs.shape
        if (num_points, num_classes) != (self.num_points, self.num_classes):
            raise ValueError(
                f"log_probs: shape {log_probs.shape} [N, K, C] does not fit the session's N = "
                f"{self.num_points}, C = {self.num_classes}; pass predictions for all of its points"
            )
        return Inputs(log_probs)


def _capacity(num_points: int) -> int:
    """The next power of two: each new length of an array is compiled anew."""
    return max(_LEAST_CAPACITY, 1 << (num_points - 1).bit_length())


def _padded(values: list[int]) -> jax.Array:
    padding = [-1] * (_capacity(len(values)) - len(values))
    return jnp.asarray([*values, *padding], jnp.int32)
