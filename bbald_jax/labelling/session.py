"""A session with people who label: what to ask them, what they said, in a file that keeps both.

A thin shell over `store`: each method checks what it is given and appends events, in one
transaction; the state follows from them (`state`).
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bbald_jax import pool as pools
from bbald_jax.acquisition.functions import find
from bbald_jax.acquisition.inputs import Acquisition, Inputs
from bbald_jax.acquisition.warnings import arbitrary_batch
from bbald_jax.labelling import version_1
from bbald_jax.labelling.asking import choose, snapshot
from bbald_jax.labelling.editing import SessionEditor, labels_as_numbers
from bbald_jax.labelling.state import Summary
from bbald_jax.labelling.store import Store
from bbald_jax.labelling.transaction import Transaction
from bbald_jax.labelling.validation import (
    check_annotator,
    check_classes,
    check_ids,
    check_integers,
    check_points,
    check_sizes,
    not_in_hand,
)
from bbald_jax.validation import assert_positive, check_log_probs

# So often `ask` chooses again, where somebody else asked meanwhile, before it makes them wait.
_RACES = 3


class Session(SessionEditor):
    """Points that people label: ask for some, tell their labels as they come, go on.

    ```
    session = bb.Session.create("labels.db", num_points=1000, num_classes=3)
    indices = session.ask(log_probs, batch_size=10)  # from here on a crash loses nothing
    session.tell(indices[:4], [2, 0, 0, 1])  # the others are still out
    session = bb.Session.open("labels.db")  # the next day
    ```

    The file is an SQLite database. What a method did is on the disk when it returns. Several
    processes may have the same file open, and several threads the same session; no point is handed
    out twice. (Not on network file systems, where SQLite's locks do not hold.) `bb.Session(...)`
    is one in memory.

    Indices are always positions in the N points whose predictions are passed to `ask`. `ids` are
    names for them: `session.ids[indices]` gives them, `session.indices_of` leads back. What is
    labelled before the session begins goes in by `import_labels`.

    People are told apart by `annotator`, any name; None, the default, is nobody in particular.

    Every method refuses what is wrong before it changes anything.
    """

    def __init__(
        self,
        num_points: int | None = None,
        num_classes: int | None = None,
        ids: Any = None,
        seed: int = 0,
        classes: Any = None,
    ) -> None:
        """A session in memory in which nothing is labelled; see `create`."""
        self._store = _create(None, num_points, num_classes, ids, seed, classes)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        num_points: int | None = None,
        num_classes: int | None = None,
        ids: Any = None,
        classes: Any = None,
        seed: int = 0,
    ) -> "Session":
        """A session in a new file, in which nothing is labelled.

        Args:
          path: not there yet.
          num_points: N, at least 1; not needed where there are `ids`.
          num_classes: C, at least 1; not needed where there are `classes`.
          ids: `[N]`, unique strings, or unique integers; by default the indices themselves.
          classes: `[C]`, the names of the classes; labels can then be told by name.
          seed: everything random comes from it; 0 to 2^32 - 1.

        Raises:
          ValueError: a size or the seed out of range; names that are not unique, of another
            number, or of another kind.
          FileExistsError: there is a file of this name.
          OSError: it cannot be written.
        """
        session = cls.__new__(cls)
        session._store = _create(Path(path), num_points, num_classes, ids, seed, classes)
        return session

    @classmethod
    def open(cls, path: str | Path) -> "Session":
        """The session in a file; it goes on as if it had never been closed.

        Raises:
          ValueError: the file is no session, or damaged, or of a newer version of this library.
          OSError: it cannot be read and written.
        """
        session = cls.__new__(cls)
        session._store = Store.open(Path(path))
        return session

    @classmethod
    def from_version_1(cls, old: str | Path, path: str | Path | None = None) -> "Session":
        """The session in a JSON file of the first version of the format, which stays as it is.

        Args:
          old: that file.
          path: a new file; None for a session in memory.

        Raises:
          ValueError: the old file is no session, or damaged.
          OSError: it cannot be read, or the new one not be written, or is there already.
        """
        given, history = version_1.read(Path(old))
        session = cls.__new__(cls)
        session._store = _create(
            None if path is None else Path(path),
            **{"classes": None, **given},
            then=lambda transaction: version_1.replay(transaction, history),
        )
        return session

    def ask(
        self,
        log_probs: Any,
        batch_size: int,
        acquisition: str | Acquisition = "batchbald",
        *,
        annotator: str | None = None,
    ) -> np.ndarray:
        """Choose the points to be labelled next, given what is pending; then they are pending too.

        Args:
          log_probs: `[N, K, C]`, log p(y=c | x_n, w_k) for all N points, labelled ones too, of any
            framework (`bb.from_probs` and `bb.from_logits` convert). None for an acquisition
            function that requires no predictions (`random`, before there is a model). Or
            `bb.Inputs`, for one that requires more, such as `gaussian`; `labelled` is known here,
            and `target_log_probs` are, by default, those of `session.targets()`.
          batch_size: B, at least 1.
          acquisition: a name in `bb.catalogue()`, or an `Acquisition`.
          annotator: who gets them.

        Returns:
          `[B]` indices in order of acquisition, fewer when fewer points are left; none, and nothing
          has happened, when none is. Joint functions (`batchbald`) condition them on the points
          that are pending already. Where another process, or thread, asked meanwhile, they are
          chosen again, after three times while nobody else can write. A `UserWarning` says why
          they are arbitrary, where they are: samples that do not differ, predictions that are the
          same for every point, samples that are spent, ties. Where warnings are errors, `pending`
          has the points.

        Raises:
          ValueError: `log_probs` as `check_log_probs` says, or of another N or C than the session;
            `batch_size` below 1; an unknown acquisition function, or one that requires what is not
            given, or that chose points it was not offered.
        """
        assert_positive(batch_size=batch_size)
        function, annotator = find(acquisition), check_annotator(annotator)
        given = log_probs if isinstance(log_probs, Inputs) else Inputs(log_probs)
        if given.log_probs is not None:
            given = given._replace(log_probs=check_log_probs(given.log_probs))
        for _ in range(_RACES):
            with self._store.reading() as transaction:
                now = snapshot(transaction)
            points, batch = choose(function, given, int(batch_size), now)
            with self._store.writing() as transaction:
                is_current = transaction.summary.num_asks == now.num_asks
                if is_current and not any(map(transaction.status, points)):
                    _hand_out(transaction, points, function.name, annotator)
                    break
        else:
            with self._store.writing() as transaction:
                now = snapshot(transaction)
                points, batch = choose(function, given, int(batch_size), now)
                _hand_out(transaction, points, function.name, annotator)
        if batch is None:
            return np.zeros(0, np.int64)
        for line in arbitrary_batch(function, given.log_probs, now.available, batch):
            warnings.warn(line, stacklevel=2)
        return np.asarray(points, np.int64)

    def assign(
        self,
        indices: Any,
        *,
        annotator: str | None = None,
        overlap: bool = False,
        acquisition: str | None = None,
    ) -> np.ndarray:
        """Hand out points that were chosen elsewhere, as far as they can be had.

        Args:
          indices: `[L]` integers.
          annotator: who gets them.
          overlap: also points that others have in hand or have labelled, for a second opinion.
          acquisition: what chose them, for the history.

        Returns:
          Those that were unlabelled and are pending now, in the order of `indices`; with `overlap`
          those that this annotator neither has nor has answered, and nobody has skipped.

        Raises:
          ValueError: an index that is unknown or named twice.
        """
        points, annotator = check_integers("indices", indices), check_annotator(annotator)
        extra = {} if acquisition is None else {"acquisition": str(acquisition)}
        got = []
        with self._store.writing() as transaction:
            check_points("indices", points, transaction.summary.num_points)
            for point in points:
                status = transaction.status(point)
                is_free = status == pools.UNLABELLED
                if overlap and status in (pools.PENDING, pools.LABELLED):
                    is_free = transaction.answer(point, annotator) is None
                if is_free:
                    transaction.append("ask", point, annotator=annotator, extra=extra)
                    got.append(point)
        return np.asarray(got, np.int64)

    def tell(self, indices: Any, labels: Any, *, annotator: str | None = None) -> None:
        """Take in labels of points that were asked for: of some or of all, in any order.

        Args:
          indices: `[L]` integers, points that this annotator has in hand, or nobody in particular.
          labels: `[L]` integers, their classes, 0 to C - 1; or the classes' names.
          annotator: who says so.

        Raises:
          ValueError: an index that is unknown, named twice, or not in hand; a label that is no
            class; lengths that differ. Then nothing was taken in.
        """
        points, annotator = check_integers("indices", indices), check_annotator(annotator)
        with self._store.writing() as transaction:
            _check_in_hand(transaction, points, annotator)
            numbers = labels_as_numbers(transaction, labels, points)
            for point, label in zip(points, numbers, strict=True):
                transaction.append("tell", point, label, annotator)

    def skip(self, indices: Any, *, annotator: str | None = None) -> None:
        """Give up points that nobody can label: they are not asked for again.

        Args:
          indices: `[L]` integers, as for `tell`.
          annotator: who says so.

        Raises:
          ValueError: an index that is unknown, named twice, or not in hand. Then nothing was
            skipped.
        """
        points, annotator = check_integers("indices", indices), check_annotator(annotator)
        with self._store.writing() as transaction:
            _check_in_hand(transaction, points, annotator)
            for point in points:
                transaction.append("skip", point, annotator=annotator)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _create(
    path: Path | None,
    num_points: Any,
    num_classes: Any,
    ids: Any,
    seed: Any,
    classes: Any,
    then: Callable[[Transaction], None] | None = None,
) -> Store:
    """A new database, with the event that says what it is about, and what else is to be there."""
    names = None if ids is None else check_ids(ids, num_points)
    class_names = None if classes is None else check_classes(classes)
    if num_points is None and names is not None:
        num_points = len(names)
    if num_classes is None and class_names is not None:
        num_classes = len(class_names)
    sizes = check_sizes(num_points, num_classes, class_names, seed)
    start = Summary(*sizes[:2], class_names, sizes[2], names is not None)

    def fill(transaction: Transaction) -> None:
        transaction.append("create", extra=start.as_created())
        if names is not None:
            transaction.name(enumerate(names))
        if then is not None:
            then(transaction)

    return Store.create(path, fill, start)


def _hand_out(
    transaction: Transaction, points: list[int], acquisition: str, annotator: str | None
) -> None:
    """Append the events of an ask."""
    extra = {"ask": transaction.summary.num_asks, "acquisition": acquisition}
    for point in points:
        transaction.append("ask", point, annotator=annotator, extra=extra)


def _check_in_hand(transaction: Transaction, points: list[int], annotator: str | None) -> None:
    """Refuse points that neither this annotator nor nobody in particular has in hand."""
    check_points("indices", points, transaction.summary.num_points)
    for position, point in enumerate(points):
        holders = transaction.holders(point)
        if annotator not in holders and None not in holders:
            raise ValueError(not_in_hand(position, point, transaction.status(point), holders))
