"""Labels as a table for others."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bbald_jax.labelling.session import Session
from bbald_jax.labelling.spreadsheet import from_cell

IDS = ["a.png", "=1+1", "b, c.png", "d\r\n.png"]


@pytest.fixture
def session() -> Session:
    session = Session(ids=IDS, classes=["cat", "+dog"])
    session.import_labels([3, 1], ["+dog", "cat"], annotator="ann")
    session.import_labels([1], ["+dog"], annotator="@bob")
    session.import_labels([1], ["cat"])
    return session


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_point(session: Session, tmp_path: Path):
    assert session.export(tmp_path / "labels.csv") == 2
    first, second = read(tmp_path / "labels.csv")
    assert list(first) == ["id", "index", "label", "annotator", "time"]
    assert [from_cell(row["id"]) for row in (first, second)] == [IDS[1], IDS[3]]
    assert (first["index"], first["label"], first["annotator"]) == ("1", "cat", "")
    assert (from_cell(second["label"]), second["annotator"]) == ("+dog", "ann")
    # No cell is a formula.
    assert not any(cell[0] in "=+@" for row in (first, second) for cell in row.values() if cell)
    written = datetime.fromisoformat(first["time"])
    assert (written.tzinfo, abs((datetime.now(UTC) - written).total_seconds()) < 3600) == (
        UTC,
        True,
    )


def test_one_row_an_answer(session: Session, tmp_path: Path):
    path = tmp_path / "labels.jsonl"
    assert session.export(path, every_answer=True) == 4
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["index"], row["label"], row["annotator"]) for row in rows] == [
        (IDS[1], 1, "cat", "ann"),
        (IDS[1], 1, "+dog", "@bob"),
        (IDS[1], 1, "cat", None),
        (IDS[3], 3, "+dog", "ann"),
    ]


def test_without_names_there_are_numbers(tmp_path: Path):
    session = Session(5, 3)
    assert session.export(tmp_path / "none.csv") == 0
    session.import_labels([4], [2])
    assert session.export(tmp_path / "some.jsonl") == 1
    row = json.loads((tmp_path / "some.jsonl").read_text())
    assert (row["id"], row["index"], row["label"], row["annotator"]) == (4, 4, 2, None)


def test_other_endings_are_refused(session: Session, tmp_path: Path):
    with pytest.raises(ValueError, match=r"suffix '.xlsx' is none of .csv, .jsonl"):
        session.export(tmp_path / "labels.xlsx")
    assert list(tmp_path.iterdir()) == []
