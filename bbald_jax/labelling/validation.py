"""Checks of what people hand in: points, labels and names; on the host, before anything changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbald_jax import pool as pools
from bbald_jax.validation import assert_positive

#: In the order of the statuses in pool.py.
STATUS = ("unlabelled", "pending", "labelled already", "skipped")
# SQLite has no larger ones.
_LARGEST = 2**63 - 1
# Longer names are mistakes, such as a whole text instead of its id.
_LONGEST_NAME = 1_000


def check_integers(name: str, values: Any) -> list[int]:
    """A flat list of Python integers; a mask, or numbers with a fraction, are refused."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape} is no list of integers; pass one, "
            "such as [3, 1]"
        )
    return array.tolist()


def check_points(name: str, points: list[int], num_points: int) -> None:
    """Refuse points that are unknown, or named twice."""
    seen = set()
    for position, point in enumerate(points):
        where = f"{name}[{position}]"
        if not 0 <= point < num_points:
            raise ValueError(f"{where}: {point} is no point here; pass 0 to {num_points - 1}")
        if point in seen:
            raise ValueError(f"{where}: point {point} is named twice; leave one out")
        seen.add(point)


def check_labels(
    labels: Any, points: list[int], num_classes: int, classes: Sequence[str] | None
) -> list[int]:
    """Labels as numbers of classes: one for each point; numbers, or names where classes have some.

    Args:
      labels: `[L]`, integers from 0 to C - 1, or names.
      points: `[L]`, whose they are.
      num_classes: C.
      classes: their names; None where they have none.
    """
    array = np.asarray(labels)
    if array.ndim == 1 and array.size and all(isinstance(label, str) for label in labels):
        if classes is None:
            raise ValueError(
                f"labels[0]: {labels[0]!r}, but the classes of this session have no names; pass "
                f"0 to {num_classes - 1}"
            )
        numbers = {name: number for number, name in enumerate(classes)}
        for position, label in enumerate(labels):
            if label not in numbers:
                raise ValueError(
                    f"labels[{position}]: {str(label)!r} is no class; pass one of "
                    f"{', '.join(classes)}, or add_classes([{str(label)!r}]) first"
                )
        values = [numbers[str(label)] for label in labels]
    else:
        values = check_integers("labels", labels)
    if len(values) != len(points):
        raise ValueError(f"labels: {len(values)} for {len(points)} indices; pass one for each")
    for position, (label, point) in enumerate(zip(values, points, strict=True)):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"labels[{position}]: {label}, of point {point}, is no class; pass 0 to "
                f"{num_classes - 1}, or skip the point"
            )
    return values


def not_in_hand(position: int, point: int, status: int, annotators: Sequence[str | None]) -> str:
    """Why an answer to a point is refused.

    Args:
      position: in what was handed in.
      point: its index.
      status: as in `Pool`.
      annotators: those who have it in hand.
    """
    where = f"indices[{position}]: point {point} is"
    if annotators:
        whose = ", ".join("nobody in particular" if x is None else repr(x) for x in annotators)
        return (
            f"{where} in hand with {whose}, not with who answers; pass that annotator, or take in "
            "labels that nobody asked for with import_labels"
        )
    if status == pools.LABELLED:
        fix = "correct changes a label, import_labels adds another annotator's"
    else:
        fix = "session.pending lists the points that were asked for and have no answer yet"
    return f"{where} {STATUS[status]}, not pending; {fix}"


def check_annotator(annotator: Any) -> str | None:
    """A person's name, or None for nobody in particular."""
    return None if annotator is None else _check_name("annotator", annotator)


def check_classes(classes: Any, known: Sequence[str] = ()) -> list[str]:
    """Names of classes: strings, unique, and not among those that are known."""
    if isinstance(classes, str):
        raise ValueError(
            f"classes: {classes!r} is no list of names; pass one, such as [{classes!r}]"
        )
    names, seen = list(classes), set(known)
    for position, name in enumerate(names):
        _check_name(f"classes[{position}]", name)
        if name in seen:
            raise ValueError(f"classes[{position}]: {name!r} is there twice; make them unique")
        seen.add(name)
    return [str(name) for name in names]


def check_ids(ids: Any, num_points: int | None) -> list[str] | list[int]:
    """The names of N points as Python strings or integers: all of one kind, and unique."""
    array = np.asarray(ids)
    if array.ndim != 1 or (num_points is not None and len(array) != num_points):
        wanted = "some" if num_points is None else num_points
        raise ValueError(f"ids: shape {array.shape} for {wanted} points; pass one for each")
    # Of a mixed list NumPy makes strings, of which two may have been different.
    kinds = {str if isinstance(name, str) else array.dtype.kind for name in ids}
    if kinds not in ({str}, {"i"}, {"u"}):
        raise ValueError("ids: neither all strings nor all integers; pass one or the other")
    names = array.tolist()
    seen = set()
    for index, name in enumerate(names):
        if name in seen:
            raise ValueError(f"ids[{index}]: {name!r} is there twice; make them unique")
        if not isinstance(name, str) and name > _LARGEST:
            raise ValueError(f"ids[{index}]: {name} is above 2^63 - 1; pass strings")
        seen.add(name)
    return names


def check_sizes(
    num_points: Any, num_classes: Any, classes: list[str] | None, seed: Any
) -> tuple[int, int, int]:
    """N, C and the seed of a session, refused where it cannot be."""
    assert_positive(num_points=num_points, num_classes=num_classes)
    if classes is not None and len(classes) != num_classes:
        raise ValueError(
            f"classes: {len(classes)} names for num_classes = {num_classes}; leave out num_classes"
        )
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not an integer from 0 to 2^32 - 1")
    return int(num_points), int(num_classes), int(seed)


def _check_name(where: str, name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or "\0" in name:
        raise ValueError(
            f"{where}: {name!r:.60} is no name; pass a string of 1 to {_LONGEST_NAME:,} characters"
        )
    return str(name)
