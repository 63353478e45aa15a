"""What DATA may be, and what is refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbald_jax.labelling.page import pictures
from bbald_jax.labelling.page.items import ImageArray, ImageFolder, open_items

image = pytest.importorskip("PIL.Image")


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    for number, name in enumerate(("b.png", "a.png", "sub/c.JPG", ".hidden.png", ".git/d.png")):
        save(place / name, np.full((4, 5), 40 * number))
    (place / "notes.txt").write_text("no image")
    (place / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return place


def test_a_folder_has_its_images_in_the_order_of_their_paths(folder: Path):
    items = open_items(folder)
    assert isinstance(items, ImageFolder)
    assert items.names == ["a.png", "b.png", "damaged.png", "sub/c.JPG"]
    assert items.left_out == ["notes.txt"]
    assert items.picture(0) == ((folder / "a.png").read_bytes(), "image/png")
    assert items.picture(3)[1] == "image/jpeg"
    pixels = items.raw()
    assert pixels.shape == (4, 4, 5, 1)
    assert pixels[2].max() == 0  # the damaged one
    assert pixels[1].max() == 0
    np.testing.assert_allclose(pixels[0], 40 / 255, atol=1e-6)


def test_new_images_come_behind_and_one_that_is_gone_stays(folder: Path):
    (folder / "damaged.png").unlink()
    (folder / "a.png").unlink()
    save(folder / "0.png", np.zeros((4, 5)))
    names = ["a.png", "b.png", "sub/c.JPG"]
    items = open_items(folder, names=names)
    assert items.names == [*names, "0.png"]
    assert np.shape(items.raw()) == (4, 4, 5, 1)
    with pytest.raises(OSError):
        items.picture(0)


def test_an_image_that_browsers_do_not_show_becomes_a_png(tmp_path: Path):
    save(tmp_path / "a.tiff", np.arange(20).reshape(4, 5))
    content, media_type = open_items(tmp_path).picture(0)
    assert media_type == "image/png"
    assert content.startswith(b"\x89PNG")


def test_a_large_file_is_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "_LARGE_BYTES", 10)
    monkeypatch.setattr(pictures, "_LONGEST_SIDE", 8)
    save(tmp_path / "a.png", np.zeros((16, 32, 3)))
    content, media_type = open_items(tmp_path).picture(0)
    assert media_type == "image/jpeg"
    (tmp_path / "b.jpg").write_bytes(content)
    assert image.open(tmp_path / "b.jpg").size == (8, 4)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_texts_of_a_table(tmp_path: Path, suffix: str):
    texts, path = ["one, two", "<b>", 'say "ä"\nagain'], tmp_path / f"data{suffix}"
    if suffix == ".csv":
        path.write_text(
            'id,text\n1,"one, two"\n2,<b>\n3,"say ""ä""\nagain"\n', encoding="utf-8-sig"
        )
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n\n" for text in texts))
    else:
        arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"id": [1, 2, 3], "text": texts}), path)
    items = open_items(path)
    assert [items.text(index) for index in range(len(items))] == texts
    assert len(open_items(path, column="id")) == 3
    with pytest.raises(ValueError, match=r"no column 'body'; give --column, one of id, text"):
        open_items(path, column="body")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 23),
        (np.linspace(0, 1, 24).reshape(2, 3, 4), 255),
        (np.linspace(-5, 5, 72).reshape(2, 3, 4, 3), 255),
        (np.zeros((2, 3, 4, 1), np.int64), 0),
    ],
)
def test_an_array_of_images(tmp_path: Path, images: np.ndarray, expected: int):
    np.savez(tmp_path / "data.npz", x=images, y=np.zeros(2))
    items = open_items(tmp_path / "data.npz")
    assert isinstance(items, ImageArray)
    (tmp_path / "a.png").write_bytes(items.picture(1)[0])
    pixels = np.asarray(image.open(tmp_path / "a.png"))
    assert pixels.shape[:2] == (3, 4)
    assert pixels.max() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text\n", "no rows"),
        ("a.csv", b"text\n\xff\n", "no CSV in UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n[]\n', "line 2: .* is no JSON object"),
        ("a.jsonl", b"{\n", "line 1: no JSON"),
        ("a.zip", b"", "suffix '.zip' is none of"),
        ("empty", None, "no images"),
        ("there_is_none.csv", ..., "no such file"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, name: str, content: Any, message: str):
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content is not ...:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_items(path)


def test_an_array_of_rows_is_no_array_of_images(tmp_path: Path):
    np.savez(tmp_path / "a.npz", one=np.zeros((3, 4)), two=np.zeros(2))
    with pytest.raises(ValueError, match="no array 'images'; give --array, one of one, two"):
        open_items(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"float64 \(3, 4\), expected numbers \[N, H, W\]"):
        open_items(tmp_path / "a.npz", array="one")
