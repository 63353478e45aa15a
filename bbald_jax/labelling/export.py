"""The labels of a session as a table for others: CSV, or a line of JSON each."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bbald_jax.files import write_atomically
from bbald_jax.labelling.spreadsheet import to_cell
from bbald_jax.labelling.store import Store
from bbald_jax.pool import LABELLED

_COLUMNS = ("id", "index", "label", "annotator", "time")
_SUFFIXES = (".csv", ".jsonl")

# The latest answer that gives the label that holds: SQLite takes the other columns from the row
# that has the maximum.
_LABELS = """
SELECT point, held.label AS label, annotator, max(event) AS event
FROM points AS held JOIN answers USING (point, status, label)
WHERE status = ? GROUP BY point
"""
_ANSWERS = "SELECT point, label, annotator, event FROM answers WHERE status = ?"
_NAMED = """
SELECT coalesce(name, answer.point), answer.point, answer.label, answer.annotator, time
FROM ({}) AS answer JOIN events ON id = event LEFT JOIN names ON names.point = answer.point
ORDER BY answer.point, id
"""


def write_labels(store: Store, path: Path) -> int:
    """One row a labelled point; see `Session.export`."""
    return _write(store, path, _LABELS)


def write_answers(store: Store, path: Path) -> int:
    """One row an annotator and point."""
    return _write(store, path, _ANSWERS)


def _write(store: Store, path: Path, rows: str) -> int:
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is none of {', '.join(_SUFFIXES)}")
    with store.reading() as transaction:
        classes = transaction.summary.classes
        found = transaction.query(_NAMED.format(rows), LABELLED)
    values = list(_values(found, classes))
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        # Not "\n", with which the writer would leave a carriage return in a name unquoted.
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        writer.writerows(
            [to_cell(value) if isinstance(value, str) else value for value in row] for row in values
        )
        write_atomically(path, text.getvalue())
    else:
        lines = (json.dumps(dict(zip(_COLUMNS, row, strict=True))) + "\n" for row in values)
        write_atomically(path, "".join(lines))
    return len(values)


def _values(rows: list[tuple], classes: list[str] | None) -> Iterator[tuple[Any, ...]]:
    for name, point, label, annotator, when in rows:
        written = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
        yield name, point, label if classes is None else classes[label], annotator or None, written
