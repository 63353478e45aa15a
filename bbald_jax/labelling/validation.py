"""Checks of what people hand in: points, labels and names; on the host, before anything changes."""

from typing import Any

import numpy as np

from bbald_jax import pool as pools

# In the order of the statuses in pool.py.
_STATUS = ("unlabelled", "pending", "labelled already", "skipped")
_FIX = {
    pools.UNLABELLED: "it must choose among the points that are available",
    pools.PENDING: "session.pending lists the points that were asked for and have no answer yet",
}


def check_integers(name: str, values: Any) -> list[int]:
    """A flat list of Python integers; a mask, or numbers with a fraction, are refused."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape} is no list of integers; pass one, "
            "such as [3, 1]"
        )
    return array.tolist()


def check_points(name: str, points: list[int], statuses: np.ndarray, status: int) -> None:
    """Refuse points that are unknown, named twice, or not of the status they should have.

    Args:
      name: what to call the list in the message.
      points: indices into `statuses`.
      statuses: `[N]`, as in `Pool`.
      status: that of all points.
    """
    seen = set()
    for position, point in enumerate(points):
        where = f"{name}[{position}]"
        if not 0 <= point < len(statuses):
            raise ValueError(f"{where}: {point} is no point here; pass 0 to {len(statuses) - 1}")
        if point in seen:
            raise ValueError(f"{where}: point {point} is named twice; leave one out")
        if statuses[point] != status:
            raise ValueError(
                f"{where}: point {point} is {_STATUS[statuses[point]]}, not {_STATUS[status]}; "
                f"{_FIX[status]}"
            )
        seen.add(point)


def check_labels(labels: list[int], points: list[int], num_classes: int) -> None:
    """Refuse labels that are not one for each point, or no classes."""
    if len(labels) != len(points):
        raise ValueError(f"labels: {len(labels)} for {len(points)} indices; pass one for each")
    for position, (label, point) in enumerate(zip(labels, points, strict=True)):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"labels[{position}]: {label}, of point {point}, is no class; pass 0 to "
                f"{num_classes - 1}, or skip the point"
            )


def check_ids(ids: Any, num_points: int) -> list[str | int]:
    """The names of N points as Python strings or integers: all of one kind, and unique."""
    array = np.asarray(ids)
    if array.shape != (num_points,):
        raise ValueError(f"ids: shape {array.shape} for {num_points} points; pass one for each")
    # Of a mixed list NumPy makes strings, of which two may have been different.
    kinds = {str if isinstance(name, str) else array.dtype.kind for name in ids}
    if kinds not in ({str}, {"i"}, {"u"}):
        raise ValueError("ids: neither all strings nor all integers; pass one or the other")
    names = array.tolist()
    seen = set()
    for index, name in enumerate(names):
        if name in seen:
            raise ValueError(f"ids[{index}]: {name!r} is there twice; make them unique")
        seen.add(name)
    return names
