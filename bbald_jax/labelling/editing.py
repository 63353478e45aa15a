"""What changes a session beside asking and answering: corrections, and what comes from outside."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from bbald_jax import pool as pools
from bbald_jax.labelling.events import OWN_KINDS
from bbald_jax.labelling.reading import SessionReader
from bbald_jax.labelling.transaction import Transaction
from bbald_jax.labelling.validation import (
    STATUS,
    check_annotator,
    check_classes,
    check_ids,
    check_integers,
    check_labels,
    check_points,
)
from bbald_jax.validation import assert_positive


class SessionEditor(SessionReader):
    """The part of a `Session` that corrects, takes back, and adds."""

    def correct(self, index: int, label: int | str, *, annotator: str | None = None) -> None:
        """Change the label of a labelled point.

        Who has labelled the point changes their own label. Anyone else decides: their label holds,
        whatever the others say, until they, too, change it, or a later decision.

        Args:
          index: a labelled point.
          label: its class, 0 to C - 1, or the class's name.
          annotator: who says so.

        Raises:
          ValueError: a point that is unknown or not labelled; a label that is no class.
        """
        points, annotator = check_integers("index", [index]), check_annotator(annotator)
        with self._store.writing() as transaction:
            check_points("index", points, transaction.summary.num_points)
            status = transaction.status(points[0])
            if status != pools.LABELLED:
                raise ValueError(
                    f"index: point {index} is {STATUS[status]}, and has no label to correct; tell "
                    "it, or import_labels"
                )
            (number,) = labels_as_numbers(transaction, [label], points)
            own = transaction.answer(points[0], annotator)
            extra: dict[str, Any] = {"decides": True, "back_to": "nothing"}
            if own is not None and own.status == pools.PENDING:
                extra["back_to"] = "in hand"
            elif own is not None and own.status == pools.LABELLED:
                extra = {"decides": bool(own.decides), "back_to": own.event, "was": own.label}
            transaction.append("correct", points[0], number, annotator, extra)

    def undo(self, *, annotator: str | None = None, index: int | None = None) -> int:
        """Take back an annotator's last answer: `tell`, `skip` or `correct`.

        The point is in hand with them again; a correction goes back to what it corrected. Once
        more takes back the answer before.

        Args:
          annotator: whose.
          index: their last answer to this point, instead of their last one of all.

        Returns:
          The point's index.

        Raises:
          ValueError: there is none; what came by `import_labels` cannot be taken back.
        """
        annotator = check_annotator(annotator)
        index = None if index is None else int(index)  # SQLite knows no integers of NumPy
        with self._store.writing() as transaction:
            rows = transaction.query(
                "SELECT point, event FROM answers WHERE annotator = ? AND (? IS NULL OR point = ?) "
                "AND status IN (?, ?) AND (SELECT kind FROM events WHERE id = event) != 'import' "
                "ORDER BY event DESC LIMIT 1",
                *(annotator or "", index, index, pools.LABELLED, pools.SKIPPED),
            )
            if not rows:
                whose = "nobody in particular" if annotator is None else repr(annotator)
                where = "" if index is None else f" to point {index}"
                raise ValueError(f"annotator: no answer of {whose}{where} is there to be undone")
            ((point, number),) = rows
            event = transaction.event(number)
            label, extra = None, {"undone": number, "back_to": "in hand"}
            if event.kind == "correct":
                label = event.extra.get("was")
                extra |= {k: event.extra[k] for k in ("back_to", "decides")}
            transaction.append("undo", point, label, annotator, extra)
        return point

    def release(
        self,
        indices: Any = None,
        *,
        annotator: str | None = None,
        older_than: float | int | None = None,
    ) -> np.ndarray:
        """Take back what was handed out and will not be answered: it can be asked for again.

        Args:
          indices: `[L]` integers, only these points; what is not out with anyone stays as it is.
          annotator: only what is out with this annotator; by default, with whomever.
          older_than: only what has been out for more than so many seconds.

        Returns:
          The points that were released, rising.

        Raises:
          ValueError: an index that is unknown or named twice.
        """
        annotator = check_annotator(annotator)
        points = None if indices is None else check_integers("indices", indices)
        latest = time.time() - older_than if older_than else float("inf")
        with self._store.writing() as transaction:
            if points is not None:
                check_points("indices", points, transaction.summary.num_points)
            rows = transaction.query(
                "SELECT answers.point, answers.annotator FROM answers JOIN events ON events.id = "
                "event WHERE status = ? AND (? IS NULL OR answers.annotator = ?) AND time < ? "
                "ORDER BY answers.point",
                *(pools.PENDING, annotator, annotator, latest),
            )
            wanted = None if points is None else set(points)
            rows = [row for row in rows if wanted is None or row[0] in wanted]
            for point, whose in rows:
                transaction.append("release", point, annotator=whose or None)
        return np.unique(np.asarray([point for point, _ in rows], np.int64))

    def forget(self, annotator: str | None) -> None:
        """Take away all that an annotator gave: labels, skips, and what they have in hand.

        The points are as if they had never had them. The history still tells what happened.

        Args:
          annotator: None for nobody in particular.
        """
        with self._store.writing() as transaction:
            transaction.append("forget", annotator=check_annotator(annotator))

    def import_labels(self, indices: Any, labels: Any, *, annotator: str | None = None) -> None:
        """Take in labels of any points, whether asked for or not.

        Labels that exist before the session begins, that come after a point was released, or a
        second annotator's. A label that this annotator has given already is passed over.

        Args:
          indices: `[L]` integers.
          labels: `[L]` integers, their classes, 0 to C - 1; or the classes' names.
          annotator: who says so.

        Raises:
          ValueError: an index that is unknown or named twice; a label that is no class, or not the
            one that this annotator has given; lengths that differ. Then nothing was taken in.
        """
        points, annotator = check_integers("indices", indices), check_annotator(annotator)
        with self._store.writing() as transaction:
            check_points("indices", points, transaction.summary.num_points)
            numbers = labels_as_numbers(transaction, labels, points)
            for position, (point, label) in enumerate(zip(points, numbers, strict=True)):
                own = transaction.answer(point, annotator)
                if own is None or own.status != pools.LABELLED:
                    transaction.append("import", point, label, annotator)
                elif own.label != label:
                    raise ValueError(
                        f"labels[{position}]: {label}, but point {point} has the label {own.label} "
                        "by the same annotator; change it with correct"
                    )

    def add_classes(self, classes: Any) -> None:
        """Add classes behind those that are there: the labels told so far stay what they are.

        Args:
          classes: their names; or how many, where the classes of the session have no names.

        Raises:
          ValueError: names that are there already; a number where names are needed, or the other
            way round.
        """
        with self._store.writing() as transaction:
            known = transaction.summary.classes
            if known is None:
                if not isinstance(classes, int | np.integer):
                    raise ValueError(
                        f"classes: {classes!r}, but those of this session have no names; pass how "
                        "many to add"
                    )
                assert_positive(classes=classes)
                names, number = None, int(classes)
            else:
                if isinstance(classes, int | np.integer):
                    raise ValueError(f"classes: {classes!r} is no list of names; pass their names")
                names = check_classes(classes, known)
                number = len(names)
            if number:
                first = transaction.summary.num_classes
                extra = {"first": first, "num_classes": number, "classes": names}
                transaction.append("add_classes", extra=extra)

    def add_points(self, num_points: int | None = None, *, ids: Any = None) -> np.ndarray:
        """Add points behind those that are there, unlabelled.

        Args:
          num_points: how many, at least 1; not needed where there are `ids`.
          ids: their names, where the points of the session have names.

        Returns:
          Their indices; from now on `ask` wants predictions for these, too.

        Raises:
          ValueError: no names, or names where the others have none; names that are there already.
        """
        names = None if ids is None else check_ids(ids, num_points)
        number = num_points if names is None else len(names)
        assert_positive(num_points=number)
        assert number is not None
        with self._store.writing() as transaction:
            summary = transaction.summary
            if summary.has_names != (names is not None):
                fix = "give ids" if summary.has_names else "leave out ids"
                raise ValueError(f"ids: either all points have names or none; {fix}")
            indices = range(summary.num_points, summary.num_points + number)
            if names is not None:
                check_new_names(transaction, names)
                transaction.name(zip(indices, names, strict=True))
            extra = {"first": summary.num_points, "num_points": int(number)}
            transaction.append("add_points", extra=extra)
        return np.asarray(indices, np.int64)

    def record(
        self,
        kind: str,
        index: int | None = None,
        extra: Mapping[str, Any] | None = None,
        *,
        label: int | str | None = None,
        annotator: str | None = None,
    ) -> int:
        """Append an event of a kind of your own: it is kept, and changes nothing else.

        Args:
          kind: small letters, digits and `_`; none of the session's own kinds.
          index: a point, if it is about one.
          extra: what JSON can hold.
          label: a class, or its name: kept with the event, it is not among the labels.
          annotator: who did it.

        Returns:
          The event's id.

        Raises:
          ValueError: one of the session's own kinds; an unknown point or class; an `extra` that is
            no JSON.
        """
        if not re.fullmatch("[a-z][a-z0-9_]*", kind) or kind in OWN_KINDS:
            raise ValueError(
                f"kind: {kind!r} is one of the session's own ({', '.join(OWN_KINDS)}), or not made "
                "of small letters, digits and _; take another name"
            )
        try:
            content = json.loads(json.dumps(dict(extra or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra: {error}; pass what JSON can hold") from None
        annotator = check_annotator(annotator)
        points = [] if index is None else check_integers("index", [index])
        with self._store.writing() as transaction:
            check_points("index", points, transaction.summary.num_points)
            number = None
            if label is not None:
                (number,) = labels_as_numbers(transaction, [label], points or [-1])
            point = points[0] if points else None
            return transaction.append(kind, point, number, annotator, content)


def labels_as_numbers(transaction: Transaction, labels: Any, points: list[int]) -> list[int]:
    """Labels, one for each point, as numbers of the session's classes."""
    summary = transaction.summary
    return check_labels(labels, points, summary.num_classes, summary.classes)


def check_new_names(transaction: Transaction, names: list[str] | list[int]) -> None:
    """Refuse names of the other kind than those that are there, and such as are there already."""
    ((first,),) = transaction.query("SELECT name FROM names LIMIT 1")
    if isinstance(first, str) != isinstance(names[0], str):
        raise ValueError(f"ids: the others are {type(first).__name__}, such as {first!r}")
    for position, name in enumerate(names):
        if transaction.query("SELECT 1 FROM names WHERE name = ?", name):
            raise ValueError(f"ids[{position}]: {name!r} is there already; make them unique")
