"""What people said, for others: a table with the model's probability, or a folder a class."""

import csv
import io
import json
import os
import re
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bbald_jax.extras import import_extra
from bbald_jax.files import write_atomically
from bbald_jax.labelling.draws import NOBODY_KNOWS
from bbald_jax.labelling.events import Answer
from bbald_jax.labelling.page.items import ImageArray, ImageFolder, Items
from bbald_jax.labelling.page.notes import PREDICTED, Notes
from bbald_jax.labelling.session import Session
from bbald_jax.labelling.spreadsheet import to_cell

#: What a table can be written to; anything without a suffix is a folder of images for each class.
TABLES = (".csv", ".jsonl", ".parquet")
_COLUMNS = ("item", "label", "annotator", "time", "probability")

Row = dict[str, Any]


def rows_of(session: Session, items: Items | None, *, every_answer: bool = False) -> list[Row]:
    """One row a labelled item, by index; or one for each person's label of it.

    Labels that only measured the accuracy are among them.

    Args:
      session: whose labels.
      items: what they are about; None where that is not at hand.
      every_answer: not only the label that holds.

    Returns:
      `item` (its name, or its position), `label` (the class's name), `annotator` (who gave it, the
      latest of several), `time` (ISO 8601, UTC), `probability` (that the model gave to this label
      just before it was told; None where there was no model yet, or the label was imported or
      corrected) and, of texts, `text`.
    """
    ids, classes = session.ids, session.classes
    held = dict(zip(*(part.tolist() for part in session.labelled), strict=True))
    seen: dict[tuple[int | None, str | None, int], float] = {}
    for event in session.events(PREDICTED):
        seen[event.index, event.annotator, event.extra["told"]] = event.extra["probability"]
    chosen: dict[Any, Any] = {}
    for answer in session.answers:  # of one point in the order of time
        if every_answer:
            chosen[answer.point, answer.annotator] = answer
        elif held[answer.point] == answer.label:
            chosen[answer.point] = answer
    notes = Notes(session)
    notes.follow()
    for point, said in notes.audit.answers.items():
        if point not in held and said.label != NOBODY_KNOWS:
            chosen[point] = Answer(point, said.annotator, said.label, said.time)
    rows = []
    for answer in sorted(chosen.values(), key=lambda answer: answer.point):
        assert answer.label is not None
        name = ids[answer.point]
        row = {
            "item": str(name) if ids.dtype.kind == "U" else int(name),
            "label": classes[answer.label] if classes else answer.label,
            "annotator": answer.annotator,
            "time": datetime.fromtimestamp(answer.time, UTC).isoformat(timespec="milliseconds"),
            "probability": seen.get((answer.point, answer.annotator, answer.label)),
        }
        if items is not None and items.kind == "text":
            row["text"] = items.text(answer.point)
        rows.append(row)
    return rows


def write_table(path: Path, rows: list[Row]) -> None:
    """Write rows to a .csv, .jsonl or .parquet file, which is replaced if it is there.

    Raises:
      ValueError: another suffix.
      OSError: it cannot be written.
      ModuleNotFoundError: pyarrow is missing.
    """
    columns = list(rows[0]) if rows else list(_COLUMNS)
    match path.suffix.lower():
        case ".csv":
            text = io.StringIO()
            # Not "\n", with which the writer would leave a carriage return in a name unquoted.
            writer = csv.writer(text, lineterminator="\r\n")
            writer.writerow(columns)
            writer.writerows([_cell(row[name]) for name in columns] for row in rows)
            write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))
        case ".jsonl":
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            arrow = import_extra("pyarrow", extra="parquet", user=str(path))
            parquet = import_extra("pyarrow.parquet", extra="parquet", user=str(path))
            content = io.BytesIO()
            by_column = {name: [row[name] for row in rows] for name in columns}
            parquet.write_table(arrow.table(by_column), content)
            write_atomically(path, content.getvalue())
        case suffix:
            raise ValueError(f"{path}: suffix {suffix!r} is none of {', '.join(TABLES)}")


def write_folders(folder: Path, session: Session, items: Items, rows: list[Row]) -> None:
    """Write a folder with the labelled images, each in a folder of its class, and `labels.csv`.

    It is there as a whole or not at all. A name in a sub-folder, `a/b.png`, becomes `a_b.png`.

    Raises:
      ValueError: texts; a folder that is there; classes that would share a folder.
      OSError: it cannot be written, or an image not be read.
    """
    if not isinstance(items, ImageFolder | ImageArray):
        raise ValueError(f"{folder}: texts go into a table; give --output a {', '.join(TABLES)}")
    if folder.exists():
        raise ValueError(f"{folder}: is there already; give --output another name")
    names = {label: _safe(str(label)) for label in session.classes or ()}
    for label, name in names.items():
        if list(names.values()).count(name) > 1:
            raise ValueError(f"{folder}: class {label!r} and another would share the folder {name}")
    temporary = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        for row in rows:
            place = temporary / names[row["label"]]
            place.mkdir(parents=True, exist_ok=True)
            item = row["item"]
            if isinstance(items, ImageFolder):
                name = _safe(item)
                if (place / name).exists():
                    name = f"{secrets.token_hex(4)}_{name}"
                shutil.copyfile(items.folder / item, place / name)
            else:
                (place / f"{item}.png").write_bytes(items.picture(item)[0])
        temporary.mkdir(parents=True, exist_ok=True)
        write_table(temporary / "labels.csv", rows)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _cell(value: Any) -> Any:
    return to_cell(value) if isinstance(value, str) else value


def _safe(name: str) -> str:
    """A name as that of one file or folder, on any system."""
    safe = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", name).strip(" ")
    return "_" + safe[1:] if safe.startswith(".") else safe or "_"
