"""Data sets of the user's own: every good form of a file, and one line for every bad one."""

import logging
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import scipy.sparse
from PIL import Image

from bbald_jax.experiment import datasets, image_folders
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import DatasetFileError
from bbald_jax.experiment.learners import make_network, with_features
from bbald_jax.experiment.splits import split
from bbald_jax.learning.networks import MLP, PaperCNN

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (9, 4, 5), dtype=np.uint8)
ARRAYS: dict[str, Any] = {
    "x_train": RNG.normal(size=(6, 3)),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": RNG.normal(size=(3, 3)),
    "y_test": np.array([2, 2, 0]),
}


def save(path: Path, **changes: Any) -> Path:
    """A file of the arrays above, some of them changed, or left out where they are None."""
    arrays = {name: x for name, x in (ARRAYS | changes).items() if x is not None}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        safetensors.numpy.save_file(arrays, path)
    return path


def points(x: np.ndarray) -> dict[str, np.ndarray]:
    """Nine points as the changes to a file."""
    return {"x_train": x[:6], "x_test": x[6:]}


def load(path: Path) -> Dataset:
    return datasets.load_dataset(str(path))


def assert_refused(path: Path, *words: str) -> None:
    """One line that names the path, and these words."""
    with pytest.raises(DatasetFileError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


# --- good files ---


@pytest.mark.parametrize("suffix", [".npz", ".NPZ", ".safetensors"])
def test_vectors_are_taken_as_they_are(tmp_path: Path, suffix: str):
    path = save(tmp_path / f"data{suffix.lower()}").rename(tmp_path / f"mine{suffix}")
    dataset = load(path)
    assert (dataset.name, dataset.num_classes, dataset.num_repeats) == (str(path), 3, 1)
    assert dataset.class_names == ("0", "1", "2")
    for x, there in ((dataset.x_train, "x_train"), (dataset.x_test, "x_test")):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, ARRAYS[there].astype(np.float32))
    for y, there in ((dataset.y_train, "y_train"), (dataset.y_test, "y_test")):
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, ARRAYS[there])
    assert not dataset.has_images
    assert not dataset.has_texts


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (BYTES, BYTES[..., None] / np.float32(255)),
        (BYTES[..., None].repeat(3, axis=-1), BYTES[..., None].repeat(3, axis=-1) / 255),
        (BYTES.astype(np.int64), BYTES[..., None]),
        (BYTES.astype(np.float64), BYTES[..., None]),
        (BYTES.reshape(9, 20), BYTES.reshape(9, 20)),  # what uint8 vectors mean, nobody knows
        (BYTES > 99, (BYTES > 99)[..., None]),
        (BYTES.astype(np.float16), BYTES[..., None]),
    ],
)
def test_images_of_bytes_are_divided_by_255_and_other_numbers_are_not(
    tmp_path: Path, x: np.ndarray, expected: np.ndarray
):
    dataset = load(save(tmp_path / "data.npz", **points(x)))
    assert dataset.x_train.dtype == np.float32
    np.testing.assert_array_equal(dataset.x_train, expected[:6].astype(np.float32))
    np.testing.assert_array_equal(dataset.x_test, expected[6:].astype(np.float32))
    assert dataset.has_images == (x.ndim > 2)


def test_bfloat16_is_read(tmp_path: Path):
    x = RNG.normal(size=(9, 3)).astype(ml_dtypes.bfloat16)
    dataset = load(save(tmp_path / "data.safetensors", **points(x)))
    np.testing.assert_array_equal(dataset.x_train, x[:6].astype(np.float32))


def test_texts_stay_strings_and_wait_for_features(tmp_path: Path):
    texts = np.array([f"text {i}" * (i + 1) for i in range(9)])
    dataset = load(save(tmp_path / "data.npz", **points(texts)))
    assert dataset.x_train.tolist() == texts[:6].tolist()
    assert dataset.x_test.tolist() == texts[6:].tolist()
    assert dataset.has_texts
    with pytest.raises(ConfigError, match=r"its points are texts, .* take --features text"):
        with_features(Config(), dataset, tmp_path)


@pytest.mark.parametrize(
    ("y_train", "y_test", "names", "expected"),
    [
        ([7, -3, 7, 40], [40, -3], ("-3", "7", "40"), ([1, 0, 1, 2], [2, 0])),
        (["dog", "cat", "elk", "cat"], ["elk"], ("cat", "dog", "elk"), ([1, 0, 2, 0], [2])),
        ([b"no", "tür".encode(), b"no"], ["no"], ("no", "tür"), ([0, 1, 0], [0])),
        ([True, False, False], [True], ("False", "True"), ([1, 0, 0], [1])),
        # As floats they would be one.
        (
            np.array([2**60, 2**60 + 1]),
            np.array([2**60 + 1], np.uint64),
            (str(2**60), str(2**60 + 1)),
            ([0, 1], [1]),
        ),
        (np.array([200, 3], np.uint8), np.array([3], np.int64), ("3", "200"), ([1, 0], [0])),
    ],
)
def test_labels_of_any_kind_become_classes_in_sorted_order(
    tmp_path: Path, y_train: Any, y_test: Any, names: tuple[str, ...], expected: tuple
):
    x = np.ones((4, 2))
    arrays = {"x_train": x[: len(y_train)], "x_test": x[: len(y_test)]}
    dataset = load(save(tmp_path / "data.npz", y_train=y_train, y_test=y_test, **arrays))
    assert dataset.class_names == names
    assert dataset.num_classes == len(names)
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == expected
    assert dataset.class_name(0) == names[0]


def test_other_arrays_in_the_file_do_no_harm(tmp_path: Path):
    assert load(save(tmp_path / "data.npz", x_val=np.zeros(3))).num_classes == 3


def test_a_name_is_a_name_and_a_path_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save(Path("digits.npz")).rename("digits")
    assert len(datasets.load_dataset("digits").x_train) == 1200
    with pytest.raises(DatasetFileError, match="digits: suffix ''"):
        datasets.load_dataset("./digits")


# --- bad files ---

NAN = np.where(np.arange(18).reshape(6, 3) == 13, np.nan, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "has no y_test, only x_train, y_train, x_test; name the four arrays"),
        (dict.fromkeys(ARRAYS), "y_test, only nothing at all; name"),
        ({"y_train": np.arange(5)}, "x_train has 6 points, but y_train has 5 labels; give each"),
        ({"x_test": np.ones((4, 3))}, "x_test has 4 points, but y_test has 3 labels"),
        ({"x_train": NAN}, "x_train has NaN, infinity or numbers beyond float32 in 1 points, "),
        ({"x_train": NAN}, "first in row 4; leave these points out"),
        ({"x_test": np.full((3, 3), 1e300)}, "beyond float32 in 3 points, first in row 0"),
        ({"y_test": [2, 3, 9]}, "y_test has labels that y_train has not: 3, 9; add training"),
        ({"x_test": np.ones((3, 4))}, "x_train is float64 [6, 3] and x_test float64 [3, 4]; make"),
        (points(BYTES) | {"x_test": BYTES[6:] / 255}, "x_train is uint8 [6, 4, 5] and x_test f"),
        ({"x_test": np.array(["a", "b", "c"])}, "make both of one kind"),
        ({"y_train": np.ones(6, int)}, "y_train has one class only, 1; points of two or more"),
        ({"y_train": np.arange(6) / 2}, "y_train is float64, expected integers or strings; where"),
        ({"y_train": np.array(list("abcabc"))}, "y_train is str32 and y_test int64; save both as"),
        ({"y_train": np.eye(3)[[0, 1, 2] * 2]}, "y_train has the shape (6, 3), expected [N], on"),
        ({"y_train": np.eye(3)[[0, 1, 2] * 2]}, "take .argmax(axis=1) of it"),
        ({"y_train": np.ones((6, 1), int)}, "one label a point; flatten it with .ravel()"),
        ({"x_train": np.ones(6)}, "x_train has the shape (6,), expected images [N, H, W]"),
        ({"x_train": np.ones((6, 0))}, "x_train has the shape (6, 0), expected images"),
        ({"x_train": np.ones((6, 1, 1, 1, 1))}, "vectors [N, D], or strings [N]; reshape it"),
        ({"x_train": np.ones((6, 3, 8, 8))}, "put them last with numpy.moveaxis(x_train, 1, -1)"),
        ({"x_train": np.array([["a"]] * 6)}, "x_train has strings in the shape (6, 1), expected"),
        ({"x_train": np.ones((6, 3), complex)}, "x_train is complex128, expected numbers or str"),
        ({"x_train": np.ones((0, 3))}, "x_train holds no points, its shape is (0, 3); give it"),
        ({"y_test": np.array([b"\xff"] * 3)}, "y_test holds bytes that are no UTF-8"),
        ({"x_train": np.array([[1, 2], [3]] * 3, object)}, "holds pickled Python objects, which"),
        ({"x_train": scipy.sparse.csr_array(np.eye(6))}, "if it was a sparse matrix, make an arr"),
    ],
)
def test_a_bad_array_is_named_with_the_fix(tmp_path: Path, changes: dict, words: str):
    assert_refused(save(tmp_path / "data.npz", **changes), words)


def test_a_sparse_matrix_is_refused_with_the_fix(tmp_path: Path):
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(np.eye(6)))
    words = ("a sparse matrix of SciPy", ".toarray()", "TruncatedSVD", "array of strings")
    assert_refused(tmp_path / "x.npz", *words)


def test_a_missing_array_of_many_others_is_one_short_line(tmp_path: Path):
    many = {f"a{i}": np.zeros(1) for i in range(1000)}
    assert_refused(save(tmp_path / "d.npz", **many, x_train=None), "has no x_train, only", ", ...;")


def test_a_path_that_is_not_there_says_what_would_have_served(tmp_path: Path):
    words = ("no such file or folder", *datasets.DATASETS)
    assert_refused(tmp_path / "nowhere.npz", *words)
    assert_refused(tmp_path / ("long" * 999), *words)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def damage_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 200] ^= 1
    path.write_bytes(content)


def pickle_it(path: Path) -> None:
    path.write_bytes(pickle.dumps(ARRAYS))


@pytest.mark.parametrize(
    ("suffix", "damage", "words"),
    [
        (".npz", cut_short, "no .npz file, or a damaged one (File is not a zip file); write it"),
        (".npz", damage_a_byte, "no .npz file, or a damaged one (Bad CRC-32"),
        (".npz", pickle_it, "no .npz file, or a damaged one"),
        (".npz", lambda path: path.write_bytes(b""), "an empty file; write it again with numpy.sa"),
        (".safetensors", cut_short, "no .safetensors file, or a damaged one"),
        (".safetensors", lambda path: path.write_bytes(b""), "an empty file"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, suffix: str, damage: Callable[[Path], None], words: str
):
    path = save(tmp_path / f"data{suffix}")
    damage(path)
    assert_refused(path, words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "data.npy",
            "a .npy file holds one array, and x_train, y_train, x_test, y_test are needed",
        ),
        ("data.csv", "suffix '.csv' is none of .npz, .safetensors; write one with numpy.savez("),
        ("data", "suffix '' is none of"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, words: str):
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / name)
    assert_refused(tmp_path / name, words)


# --- folders of images ---

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}


def draw(
    path: Path, colour: Any = "red", size: tuple[int, int] = (6, 4), mode: str = "RGB"
) -> Path:
    """An image of one colour, `size` as Pillow has it: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of each of two colours."""
    folder = tmp_path / "colours"
    for name in ("red", "blue"):
        for i in range(7):
            draw(folder / name / f"{i}.png", name)
    return folder


def test_a_folder_is_split_by_class_and_always_alike(folder: Path):
    draw(folder / "green" / "only.webp", COLOURS["green"])
    dataset = load(folder)
    assert dataset.class_names == ("blue", "green", "red")
    assert dataset.x_train.shape == (13, 4, 6, 3)
    assert dataset.x_test.shape == (2, 4, 6, 3)
    assert dataset.y_train.tolist() == [0] * 6 + [1] + [2] * 6
    assert dataset.y_test.tolist() == [0, 2]
    colours = np.array([COLOURS[name] for name in dataset.class_names]) / 255
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        np.testing.assert_allclose(x.mean(axis=(1, 2)), colours[y], atol=0.02)
    again = load(folder)
    np.testing.assert_array_equal(again.x_train, dataset.x_train)


def test_the_test_points_are_drawn_not_the_first(tmp_path: Path):
    for name in ("a", "b"):
        for i in range(24):
            draw(tmp_path / name / f"{i:02}.png", i, mode="L")
    dataset = load(tmp_path)
    assert dataset.x_train.shape == (40, 4, 6, 1)  # grey stays grey
    drawn = (255 * dataset.x_test[:, 0, 0, 0]).round().astype(int).tolist()
    assert len(drawn) == 8
    assert sorted(drawn[:4]) not in ([0, 1, 2, 3], [20, 21, 22, 23])
    left = (255 * dataset.x_train[:20, 0, 0, 0]).round().astype(int).tolist()
    assert left == sorted({*range(24)} - {*drawn[:4]})  # in the order of their paths


def test_train_and_test_may_be_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for i in range(3):
        draw(tmp_path / "train" / "a" / f"{i}.png", 10 + i, mode="L")
        draw(tmp_path / "train" / "b" / f"{i}.png", 20 + i, mode="L")
    draw(tmp_path / "test" / "b" / "0.png", 99, mode="L")
    draw(tmp_path / "val" / "b" / "0.png", 77, mode="L")
    dataset = load(tmp_path)
    assert (255 * dataset.x_train[:, 0, 0, 0]).round().tolist() == [10, 11, 12, 20, 21, 22]
    assert (255 * dataset.x_test[:, 0, 0, 0]).round().tolist() == [99]
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == ([0, 0, 0, 1, 1, 1], [1])
    assert "left out val:" in caplog.text
    draw(tmp_path / "test" / "c" / "0.png")
    assert_refused(tmp_path, f"{tmp_path / 'test' / 'c'}: no such class in {tmp_path / 'train'}")


def test_images_get_the_median_size(tmp_path: Path):
    for i, size in enumerate([(3, 40), (5, 8), (50, 9)]):
        draw(tmp_path / "a" / f"{i}.png", size=size)
        draw(tmp_path / "b" / f"{i}.png", size=size)
    assert load(tmp_path).x_train.shape[1:] == (9, 5, 3)


def test_large_images_get_64_pixels_and_keep_their_proportions(tmp_path: Path):
    for name in ("a", "b"):
        for i in range(2):
            draw(tmp_path / name / f"{i}.jpg", size=(1000, 500))
    assert load(tmp_path).x_train.shape[1:] == (32, image_folders.LONGEST_SIDE, 3)


def test_what_a_person_sees_is_what_is_read(tmp_path: Path):
    """Sixteen bits, a palette, transparency, and a camera that was held upright."""
    folder = tmp_path / "a"
    deep = np.full((4, 6), 0x8000, np.uint16)
    draw(folder / "0 palette.gif", 1, mode="P")
    Image.fromarray(deep).save(folder / "1 deep.png")
    draw(folder / "2 transparent.png", (255, 0, 0, 0), mode="RGBA")
    draw(folder / "3 green.png", (0, 255, 0))
    turned = Image.new("RGB", (4, 6))
    turned.paste("white", (0, 0, 4, 3))  # the upper half
    turned.save(folder / "4 turned.tiff", exif=_exif(6))  # a quarter clockwise
    turned.save(folder / "5 turned.png", exif=_exif(6))
    for i in range(2):
        draw(tmp_path / "b" / f"{i}.png", "black")
    x = image_folders.read_images(sorted(folder.iterdir()))
    assert x.shape == (6, 4, 6, 3)
    assert np.ptp(x[0]) == 0
    np.testing.assert_allclose(x[1], 128 / 255)
    assert (x[2] == 1).all()
    np.testing.assert_array_equal(x[3, 0, 0], [0, 1, 0])
    assert image_folders.read_images(sorted(folder.iterdir())[4:]).shape == (2, 4, 6, 1)
    for image in x[4:]:
        assert (image[:, :3] == 0).all()
        assert (image[:, 3:] == 1).all()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_what_is_no_image_is_left_out_in_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    expected = load(folder)
    assert not caplog.records
    for name in ("labels.csv", "red/notes.txt", "blue/Thumbs.db", "red/.hidden.png", ".DS_Store"):
        (folder / name).write_bytes(b"no image")
    (folder / "red" / "more.png").mkdir()
    (folder / "empty").mkdir()
    dataset = load(folder)
    np.testing.assert_array_equal(dataset.x_train, expected.x_train)
    assert dataset.class_names == ("blue", "red")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    words = "left out blue/Thumbs.db, empty, labels.csv, red/more.png, red/notes.txt: images (.png"
    assert words in record.getMessage()
    for i in range(7):
        (folder / f"{i}.txt").touch()
    load(folder)
    assert re.search(r"left out 0.txt, .*, 4.txt and 7 more: images", caplog.text)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n half of one"])
def test_an_image_that_cannot_be_read_is_named(folder: Path, content: bytes):
    (folder / "red" / "3.png").write_bytes(content)
    with pytest.raises(
        DatasetFileError, match=r"red/3\.png: no image, or a damaged one \(.*\); re"
    ):
        load(folder)


def test_an_image_cut_short_is_named(folder: Path):
    noise = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    noise.save(folder / "red" / "3.png")
    cut_short(folder / "red" / "3.png")
    with pytest.raises(DatasetFileError, match=r"red/3\.png: no image, or a damaged one"):
        load(folder)


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert_refused(tmp_path, "holds no images in sub-folders; give each class")
    draw(tmp_path / "loose.png")
    assert_refused(tmp_path, "holds no images in sub-folders; give each class")


def test_one_class_is_refused(tmp_path: Path):
    draw(tmp_path / "cats" / "0.png")
    assert_refused(tmp_path, "holds images of one class only, 'cats' in sub-folders; give each")
    draw(tmp_path / "dogs" / "0.png")
    assert_refused(tmp_path, "one image of each class leaves none to test on; add images, or make")


# --- has it changed? ---


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path):
    (tmp_path / "data.npz").write_bytes(b"abc")
    digest = datasets.dataset_sha256(str(tmp_path / "data.npz"))
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert datasets.dataset_sha256("digits") is None


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path / "data.npz")

    def refuse(self: Path, *args: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatasetFileError, match=r"data\.npz: Permission denied; mend that, or give"):
        datasets.dataset_sha256(str(path))


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        (lambda folder: draw(folder / "red" / "3.png", "pink"), True),
        (lambda folder: (folder / "red" / "3.png").unlink(), True),
        (lambda folder: (folder / "red" / "3.png").rename(folder / "red" / "9.png"), True),
        (lambda folder: (folder / "red" / "3.png").rename(folder / "blue" / "9.png"), True),
        (lambda folder: (folder / "notes.txt").touch(), False),
        (lambda folder: (folder / "red" / "3.png").touch(), False),
        (lambda folder: folder.rename(folder.with_name("moved")), False),
    ],
)
def test_the_digest_of_a_folder_is_that_of_its_images(
    folder: Path, change: Callable[[Path], Any], is_another: bool
):
    before = datasets.dataset_sha256(str(folder))
    change(folder)
    (folder,) = folder.parent.iterdir()
    assert (datasets.dataset_sha256(str(folder)) != before) == is_another


# --- what is made of the points ---


def make_dataset(*shape: int) -> Dataset:
    x, y = np.zeros((12, *shape), np.float32), np.arange(12, dtype=np.int32) % 2
    return Dataset("mine", x, y, x[:2], y[:2], num_classes=2, class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((5,), MLP),
        ((8, 8, 1), MLP),
        ((15, 40, 3), MLP),
        ((16, 16, 1), PaperCNN),
        ((28, 28, 1), PaperCNN),
        ((16, 20, 3), PaperCNN),
    ],
)
def test_the_shape_decides_on_the_network(shape: tuple[int, ...], network: type):
    made = make_network(make_dataset(*shape))
    assert type(made) is network
    assert made.num_classes == 2


def test_the_smallest_images_of_the_convolutional_network_leave_a_pixel():
    network = make_network(make_dataset(16, 16, 3))
    init = partial(network.init, deterministic=True)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert shapes["params"]["dense_1"]["kernel"].shape == (64, 128)


def test_a_class_that_is_too_small_is_called_by_its_name():
    dataset = make_dataset(5)._replace(y_train=np.zeros(12, np.int32))
    with pytest.raises(ConfigError, match="has only 0 of class dog; lower it"):
        split(Config(), dataset, trial=0)
