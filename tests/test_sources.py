"""Arrays that are read piece by piece are the arrays in the files."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bbald_jax as bb
from bbald_jax.sources import FileArray, as_source

ARRAY = np.random.default_rng(0).random((7, 3, 4)).astype(np.float32)


def assert_is(source: Any, array: np.ndarray) -> None:
    assert tuple(source.shape) == array.shape
    for start, stop in ((0, 1), (2, 5), (0, len(array)), (len(array) - 1, len(array))):
        np.testing.assert_array_equal(source[start:stop], array[start:stop])


@pytest.mark.parametrize("axes", ["NKC", "KNC", "CKN", "NCK"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy_in_any_order(tmp_path: Path, axes: str, fortran: bool):
    stored = np.transpose(ARRAY, ["NKC".index(letter) for letter in axes])
    np.save(tmp_path / "a.npy", np.array(stored, order="F" if fortran else "C"))
    assert_is(bb.open_source(tmp_path / "a.npy", axes=axes), ARRAY)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    view = as_source(np.transpose(mapped, [axes.index(letter) for letter in "NKC"]))
    assert isinstance(view, FileArray)
    assert_is(view, ARRAY)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64, np.int8])
def test_safetensors_of_one_or_several_arrays(tmp_path: Path, dtype: Any):
    array = (4 * ARRAY).astype(dtype)
    save_file({"a": array, "b": array[::-1].copy()}, tmp_path / "two.safetensors")
    assert_is(bb.open_source(tmp_path / "two.safetensors", array="b"), array[::-1])
    with pytest.raises(ValueError, match=r"choose one .*: a, b"):
        bb.open_source(tmp_path / "two.safetensors")


def test_several_files_are_one_pool(tmp_path: Path):
    paths = []
    for i, part in enumerate(np.array_split(ARRAY, 3)):
        paths.append(tmp_path / f"{i}.safetensors")
        save_file({"p": np.ascontiguousarray(part)}, paths[-1])
    assert_is(bb.open_source(paths), ARRAY)
    np.save(tmp_path / "other.npy", ARRAY[:, :2])
    with pytest.raises(ValueError, match=r"parts\[1\]: float32 of shape \(7, 2, 4\)"):
        bb.open_source([paths[0], tmp_path / "other.npy"])


def test_views_that_are_no_part_of_a_file_stay_what_they_are(tmp_path: Path):
    np.save(tmp_path / "a.npy", ARRAY)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert_is(as_source(mapped[2:6]), ARRAY[2:6])
    assert isinstance(as_source(mapped[2:6]), FileArray)
    for view in (mapped[::2], mapped[::-1], mapped[:, 1:], ARRAY, np.load(tmp_path / "a.npy")):
        assert as_source(view) is view


def test_a_file_that_changes_or_ends_is_refused(tmp_path: Path):
    path = tmp_path / "a.npy"
    np.save(path, ARRAY)
    source = bb.open_source(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)
    with pytest.raises(ValueError, match="ends too early"):
        source[0:7]
    with pytest.raises(ValueError, match=r"a\.npy: "):
        bb.open_source(path)
    np.save(path, ARRAY)
    source = bb.open_source(path)
    source[0:2]
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match="changed while it was read"):
        source[0:2]


@pytest.mark.parametrize("name", ["no.npy", "a.txt", "b.npy", "c.safetensors", "d.safetensors"])
def test_no_file_of_numbers_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b.npy").write_bytes(b"no array")
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "d.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(ValueError, match=name) as error:
        bb.open_source(tmp_path / name)
    assert len(str(error.value).splitlines()) == 1
