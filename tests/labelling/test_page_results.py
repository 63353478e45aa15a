"""What the export writes, read back."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.items import ImageArray, ImageFolder, Texts
from bbald_jax.labelling.page.learning import Learning, Model
from bbald_jax.labelling.page.results import rows_of, write_folders, write_table

image = pytest.importorskip("PIL.Image")


@pytest.fixture
def session() -> bb.Session:
    """Three of four labelled, one by two people who differ; the model knew nothing of the first."""
    session = bb.Session(4, classes=["cat", "a/b"])
    learning = Learning(session, lambda: np.zeros((0, 0)))
    desk = Desk(session, learning)
    session.assign([2, 0, 3], annotator="anna")
    desk.answer("anna", 2, 0)
    learning.model = Model(1, np.array([[0.2, 0.8]] * 4))
    desk.answer("anna", 0, 1)
    desk.answer("anna", 3, 0)
    desk.answer("ben", 3, 1)
    return session


def test_rows_say_who_when_and_how_sure_the_model_was(session: bb.Session):
    rows = rows_of(session, Texts(["=1+1", "b", "c", "d"]))
    assert [(row["item"], row["label"], row["annotator"], row["probability"]) for row in rows] == [
        (0, "a/b", "anna", 0.8),
        (2, "cat", "anna", None),
        (3, "a/b", "ben", 0.8),
    ]
    assert rows[0]["time"].endswith("+00:00")
    assert rows[0]["text"] == "=1+1"
    every = rows_of(session, None, every_answer=True)
    assert [(row["item"], row["annotator"]) for row in every] == [
        (0, "anna"),
        (2, "anna"),
        (3, "anna"),
        (3, "ben"),
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_is_read_back(session: bb.Session, tmp_path: Path, suffix: str):
    path = tmp_path / f"labels{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    rows = rows_of(session, Texts(["=1+1", "ä", "c", "d\r\n"]))
    write_table(path, rows)
    if suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        assert header[0] == "item"
        assert lines[0][-1] == "'=1+1"  # no formula
        assert lines[2][-1] == "d\r\n"
        assert lines[1][4] == ""
    elif suffix == ".jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(path).to_pylist() == rows


def test_a_table_of_nothing_has_its_columns(tmp_path: Path):
    write_table(tmp_path / "a.csv", rows_of(bb.Session(2, 2), None))
    assert (tmp_path / "a.csv").read_bytes() == b"item,label,annotator,time,probability\r\n"
    with pytest.raises(ValueError, match=r"suffix '.xlsx' is none of .csv"):
        write_table(tmp_path / "a.xlsx", [])


def test_a_folder_for_each_class(session: bb.Session, tmp_path: Path):
    items = ImageArray(np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3))
    write_folders(tmp_path / "out", session, items, rows_of(session, items))
    there = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert there == ["out/a_b/0.png", "out/a_b/3.png", "out/cat/2.png", "out/labels.csv"]
    assert np.asarray(image.open(tmp_path / "out/cat/2.png")).max() == 17
    with pytest.raises(ValueError, match="is there already"):
        write_folders(tmp_path / "out", session, items, [])
    with pytest.raises(ValueError, match="texts go into a table"):
        write_folders(tmp_path / "other", session, Texts(["a"]), [])


def test_images_of_sub_folders_do_not_overwrite_each_other(tmp_path: Path):
    for name in ("a/b.png", "a_b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    items = ImageFolder(tmp_path / "in")
    session = bb.Session(ids=items.names, classes=["..", "cat"])
    session.import_labels([0, 1], [0, 0])
    write_folders(tmp_path / "out", session, items, rows_of(session, items))
    copied = [path.read_bytes() for path in (tmp_path / "out" / "_.").iterdir()]
    assert sorted(copied) == [b"a/b.png", b"a_b.png"]


def test_what_cannot_be_written_leaves_nothing_behind(session: bb.Session, tmp_path: Path):
    items = ImageFolder(tmp_path, names=["gone.png"])
    with pytest.raises(OSError):
        write_folders(
            tmp_path / "out", session, items, [{"item": "gone.png", "label": "cat", "time": ""}]
        )
    assert list(tmp_path.iterdir()) == []
