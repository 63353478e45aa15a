"""What can be read of a session; `session` adds what changes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bbald_jax.acquisition.inputs import NUM_TARGETS
from bbald_jax.labelling.asking import Snapshot, snapshot, target_indices
from bbald_jax.labelling.events import Answer, Disagreement, Event, Labels, Opinion
from bbald_jax.labelling.export import write_answers, write_labels
from bbald_jax.labelling.store import Store
from bbald_jax.pool import LABELLED, PENDING, SKIPPED
from bbald_jax.validation import assert_positive


class SessionReader:
    """The part of a `Session` that changes nothing."""

    _store: Store

    @property
    def path(self) -> Path | None:
        """The session's file; None for one in memory."""
        return self._store.path

    @property
    def num_points(self) -> int:
        """N, with those that were added."""
        return self._store.summary.num_points

    @property
    def num_classes(self) -> int:
        """C, with those that were added."""
        return self._store.summary.num_classes

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the C classes; None where they were given none."""
        classes = self._store.summary.classes
        return None if classes is None else tuple(classes)

    @property
    def seed(self) -> int:
        """Everything random comes from it: ask number i draws from `fold_in(key(seed), i)`."""
        return self._store.summary.seed

    @property
    def labelled(self) -> Labels:
        """The labelled points, in the order of their indices, and the labels that hold.

        Where several annotators labelled a point, the label that most of them give holds, and among
        equally many the latest; `correct` can decide otherwise.
        """
        rows = self._store.query(
            "SELECT point, label FROM points WHERE status = ? ORDER BY point", LABELLED
        )
        indices, labels = np.asarray(rows, np.int64).reshape(-1, 2).T.copy()
        return Labels(indices, labels)

    @property
    def pending(self) -> np.ndarray:
        """Indices of the points that were asked for and have no answer yet, rising."""
        return self._with(PENDING)

    @property
    def skipped(self) -> np.ndarray:
        """Indices of the points that were given up, rising."""
        return self._with(SKIPPED)

    @property
    def in_hand(self) -> tuple[Answer, ...]:
        """What is out with whom, in the order in which it was handed out; `label` is None.

        A point may be out with an annotator after another one has labelled it (`assign` with
        `overlap`); then it is here, and not in `pending`.
        """
        return self._answers("status = ?", PENDING)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The label that each annotator gives to each point now, by point, then by time."""
        return self._answers("status = ?", LABELLED, order="point, event")

    def label_by(self, index: int, *, annotator: str | None = None) -> int | None:
        """The label that one annotator gives to one point now; None where they have given none."""
        with self._store.reading() as transaction:
            row = transaction.answer(int(index), annotator)
        return None if row is None else row.label

    def opinions(self, index: int) -> dict[str | None, Opinion]:
        """How each annotator who had anything to do with a point stands to it now.

        Args:
          index: the point; of one that is unlabelled, and of an unknown one, there are none.
        """
        rows = self._store.query(
            "SELECT answers.annotator, status, answers.label, kind FROM answers JOIN events ON "
            "events.id = event WHERE answers.point = ? ORDER BY event",
            int(index),
        )
        return {who or None: Opinion(*values) for who, *values in rows}

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """The points that annotators label differently and that nobody has decided, by index."""
        differing = (
            "point IN (SELECT point FROM answers WHERE status = ? GROUP BY point "
            "HAVING count(DISTINCT label) > 1 AND max(decides) = 0) AND status = ?"
        )
        labels: dict[int, dict[str | None, int]] = {}
        for answer in self._answers(differing, LABELLED, LABELLED, order="point, event"):
            assert answer.label is not None
            labels.setdefault(answer.point, {})[answer.annotator] = answer.label
        return tuple(Disagreement(*item) for item in labels.items())

    @property
    def history(self) -> tuple[Event, ...]:
        """All that happened, in order."""
        return tuple(self.events())

    def events(
        self, kind: str | None = None, *, after: int = 0, index: int | None = None
    ) -> Iterator[Event]:
        """What happened, in order, read piece by piece.

        Args:
          kind: only such events; see `Event`.
          after: only events with a larger id.
          index: only those of this point.

        Raises:
          ValueError: an event is damaged; the message says how to recover the others.
        """
        point = None if index is None else int(index)  # SQLite knows no integers of NumPy
        return self._store.events(
            "id > ? AND (? IS NULL OR kind = ?) AND (? IS NULL OR point = ?)",
            *(int(after), kind, kind, point, point),
        )

    def snapshot(self) -> Snapshot:
        """The sizes, and the status of every point, at one moment: what a choice can rest on."""
        with self._store.reading() as transaction:
            return snapshot(transaction)

    @property
    def ids(self) -> np.ndarray:
        """`[N]`, the points' names; their indices where none were given."""
        with self._store.reading() as transaction:
            if not transaction.summary.has_names:
                return np.arange(transaction.summary.num_points)
            rows = transaction.query("SELECT name FROM names ORDER BY point")
        return np.asarray([name for (name,) in rows])

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
        indices = []
        with self._store.reading() as transaction:
            summary = transaction.summary
            for name in array.tolist():
                if summary.has_names:
                    rows = transaction.query("SELECT point FROM names WHERE name = ?", name)
                else:
                    is_point = isinstance(name, int) and 0 <= name < summary.num_points
                    rows = [(name,)] if is_point else []
                if not rows:
                    raise ValueError(
                        f"ids: no point is called {name!r}; session.ids lists all names"
                    )
                indices.append(rows[0][0])
        return np.asarray(indices, np.int64)

    def targets(self, num_targets: int = NUM_TARGETS) -> np.ndarray:
        """A random part of the pool that stands for it, for functions that require targets (EPIG).

        The same points every time, by the seed, as long as no points are added. `ask` takes them
        where it is given none; whoever gives it a Gaussian posterior takes them for its targets.

        Args:
          num_targets: T, or N if that is less.

        Returns:
          `[T]` indices, rising.

        Raises:
          ValueError: `num_targets` below 1.
        """
        assert_positive(num_targets=num_targets)
        summary = self._store.summary
        return target_indices(summary.seed, summary.num_points, num_targets)

    def export(self, path: str | Path, *, every_answer: bool = False) -> int:
        """Write the labels to a file, for others to read.

        One row a labelled point: `id` (its name, or its index), `index`, `label` (the class's name,
        or its number), `annotator` (whose answer that label is, the latest that gives it) and
        `time` (of that answer, ISO 8601, UTC).

        Args:
          path: ends in .csv or .jsonl; a file that is there is replaced.
          every_answer: one row for each annotator's label of each point instead.

        Returns:
          How many rows were written.

        Raises:
          ValueError: another ending.
          OSError: it cannot be written; what was there before still is.
        """
        path = Path(path)
        return (write_answers if every_answer else write_labels)(self._store, path)

    def close(self) -> None:
        """Let go of the file; nothing is lost without it, but the file then is one file again.

        Until the last process has closed it, SQLite keeps what is newest in two files beside it,
        whose names end in `-wal` and `-shm`: whoever copies it then must copy all three.
        """
        self._store.close()

    def __repr__(self) -> str:
        return f"<Session {self.path or 'in memory'}>"

    def _with(self, status: int) -> np.ndarray:
        rows = self._store.query("SELECT point FROM points WHERE status = ? ORDER BY point", status)
        return np.asarray([point for (point,) in rows], np.int64)

    def _answers(self, condition: str, *values: Any, order: str = "event") -> tuple[Answer, ...]:
        rows = self._store.query(
            "SELECT answers.point, answers.annotator, answers.label, time FROM answers JOIN events "
            f"ON events.id = event WHERE {condition.replace('point', 'answers.point', 1)} "
            f"ORDER BY {order.replace('point', 'answers.point')}",
            *values,
        )
        return tuple(Answer(point, who or None, label, when) for point, who, label, when in rows)
