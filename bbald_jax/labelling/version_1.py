"""Files of the first version of the format, which were JSON: read, so that they can be imported."""

from pathlib import Path
from typing import Any

from bbald_jax.files import read_document
from bbald_jax.labelling.transaction import Transaction


def read(path: Path) -> tuple[dict[str, Any], list[list[Any]]]:
    """The settings (`num_points`, `num_classes`, `ids`, `seed`), and what happened.

    Raises:
      ValueError: the file is no session, or damaged.
      OSError: it cannot be read.
    """
    content = read_document(path, kind="bbald_jax session", version=1)
    return content["settings"], content["history"]


def replay(transaction: Transaction, history: list[list[Any]]) -> None:
    """Append what happened, as events of now; asks keep their numbers, and so their random keys."""
    num_asks = 0
    for kind, points, labels, acquisition in history:
        extra = {}
        if kind == "ask":
            extra = {"ask": num_asks, "acquisition": acquisition}
            num_asks += 1
        for position, point in enumerate(points):
            label = labels[position] if kind == "tell" else None
            transaction.append(kind, point, label, extra=extra)
