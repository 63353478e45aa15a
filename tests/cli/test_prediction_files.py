"""Files of predictions and of points: read without unpickling, or refused in one line."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import fuzz
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bbald_jax.cli.prediction_files import read_ids, read_points, read_predictions

VALUES = np.random.default_rng(0).random((4, 3, 2)).astype(np.float32)
IDS = ["cat", "dog, big", "3", "émile"]


def save(path: Path, array: Any) -> Path:
    """Write an array in the way of the suffix."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, predictions=array)
    else:
        save_file({"predictions": np.ascontiguousarray(array)}, path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


SUFFIXES = pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])


@SUFFIXES
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_what_was_saved_is_read(tmp_path: Path, suffix: str, dtype: type):
    array = (10 * VALUES).astype(dtype)
    read = read_predictions(save(tmp_path / f"x{suffix}", array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == dtype


def test_bfloat16_is_read_from_safetensors_and_refused_where_it_was_lost(tmp_path: Path):
    array = VALUES.astype(jnp.bfloat16)
    read = read_predictions(save(tmp_path / "x.safetensors", array))
    assert read.dtype == jnp.bfloat16
    np.testing.assert_array_equal(read, array)
    with pytest.raises(ValueError, match=r"x\.npy: dtype \|V2 .* keeps no bfloat16"):
        read_predictions(save(tmp_path / "x.npy", array))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_file_is_mapped_not_read(tmp_path: Path, suffix: str):
    assert isinstance(read_predictions(save(tmp_path / f"x{suffix}", VALUES)), np.memmap)


@pytest.mark.parametrize("shape", [(), (0, 3, 2)])
def test_what_cannot_be_mapped_is_read(tmp_path: Path, shape: tuple[int, ...]):
    path = tmp_path / "x.safetensors"
    save_file({"predictions": np.ones(shape), "other": VALUES}, path)
    np.testing.assert_array_equal(read_predictions(path, "predictions"), np.ones(shape))


def test_a_suffix_in_capitals_is_read(tmp_path: Path):
    save(tmp_path / "x.npy", VALUES).rename(tmp_path / "x.NPY")
    np.testing.assert_array_equal(read_predictions(tmp_path / "x.NPY"), VALUES)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_one_of_several_arrays_is_chosen_by_name(tmp_path: Path, suffix: str):
    path = tmp_path / f"x{suffix}"
    arrays: dict[str, Any] = {"train": VALUES, "pool": 2 * VALUES}
    np.savez(path, **arrays) if suffix == ".npz" else save_file(arrays, path)
    np.testing.assert_array_equal(read_predictions(path, "pool"), 2 * VALUES)
    with pytest.raises(ValueError, match=r"holds 2 arrays \(.*pool.*\); choose one with --array"):
        read_predictions(path)
    with pytest.raises(ValueError, match=r"no array 'test' in it, only .*pool"):
        read_predictions(path, "test")


def test_a_npy_file_has_no_names(tmp_path: Path):
    with pytest.raises(ValueError, match="holds one array without a name, not 'pool'"):
        read_predictions(save(tmp_path / "x.npy", VALUES), "pool")


class Bomb:
    """What unpickles it, has been taken over."""

    def __reduce__(self):
        return pytest.fail, ("a file was unpickled",)


@pytest.mark.parametrize("how", ["npy of objects", "npz of objects", "bare"])
@pytest.mark.parametrize("read", [read_predictions, read_points, read_ids])
def test_pickled_content_is_refused(tmp_path: Path, how: str, read: Any):
    path = tmp_path / ("x.npz" if how.startswith("npz") else "x.npy")
    if how == "bare":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        save(path, np.array([Bomb()], object))
    wanted = "pickled" if read is read_predictions or path.suffix == ".npy" else "is none of"
    with pytest.raises(ValueError, match=wanted):
        read(path)


@pytest.mark.parametrize("read", [read_predictions, read_points, read_ids])
def test_what_is_no_file_of_the_right_kind_is_refused(tmp_path: Path, read: Any):
    with pytest.raises(ValueError, match=r"x\.npy: no such file"):
        read(tmp_path / "x.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match=r"folder\.npy: not a file"):
        read(tmp_path / "folder.npy")
    for name in ("x.pkl", "x.pt", "x", ".npy"):
        with pytest.raises(ValueError, match=r"suffix '.*' is none of .*\.npy"):
            read(text(tmp_path / name, "1"))


@SUFFIXES
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"0.5,0.5\n", b"\x93NUMPY", b"PK\x05\x06" + 18 * b"\0"]
)
def test_a_file_that_only_bears_the_suffix_is_refused(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\{suffix}: (no|holds 0)"):
        read_predictions(path)


@SUFFIXES
def test_a_file_of_another_kind_is_refused(tmp_path: Path, suffix: str):
    other = ".npz" if suffix != ".npz" else ".npy"
    path = save(tmp_path / f"x{other}", VALUES).rename(tmp_path / f"y{suffix}")
    with pytest.raises(ValueError, match=rf"y\{suffix}: no \{suffix} file, or a damaged one"):
        read_predictions(path)


def test_an_archive_of_something_else_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"x\.npz: no \.npz file, or a damaged one"):
        read_predictions(tmp_path / "x.npz")


@SUFFIXES
@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, suffix: str, data: st.DataObject):
    path = save(tmp_path / f"x{suffix}", VALUES)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="truncated"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, min(len(content), 200) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read = fuzz.result_or_refusal(f"{suffix} files", lambda: read_predictions(path))
    if isinstance(read, ValueError):
        assert str(path) in str(read)


def test_lists_of_points_are_read(tmp_path: Path):
    for name, content in {
        "a.txt": "3\n0\n",
        "b.csv": "3\r\n0\r\n\r\n",
        "c.txt": "\ufeff 3 \n0",
        "d.csv": "order,index,id\n1,3,x\n2,0,y\n",
        "e.txt": "\n3\n \n0\n",
        "f.csv": "\nindex,id\n\n3,x\n , \n0,y\n",
    }.items():
        assert read_points(text(tmp_path / name, content)).tolist() == [3, 0]
    assert read_points(save(tmp_path / "x.npy", np.array([3, 0]))).tolist() == [3, 0]
    mask = read_points(save(tmp_path / "m.npy", np.array([True, False])))
    assert mask.dtype == bool
    assert read_points(text(tmp_path / "empty.txt", "\n")).size == 0


def test_lists_of_names_are_read(tmp_path: Path):
    for name, content in {
        "a.txt": "émile\ndog, big\n3",
        "b.csv": 'émile\n"dog, big"\n3',
        "c.csv": 'order,id\n1,émile\n2,"dog, big"\n3,3',
    }.items():
        assert read_points(text(tmp_path / name, content), IDS).tolist() == [3, 1, 2]
    names = save(tmp_path / "x.npy", np.array(["émile", "3"]))
    assert read_points(names, IDS).tolist() == [3, 2]
    encoded = save(tmp_path / "b.npy", np.array([b"cat", b"3"]))
    assert read_points(encoded, IDS).tolist() == [0, 2]
    # With names, a number is a name too: there is one rule.
    assert read_points(save(tmp_path / "n.npy", np.array([3])), IDS).tolist() == [2]
    assert read_points(save(tmp_path / "m.npy", np.array([True, False])), IDS).dtype == bool


def test_ids_are_read(tmp_path: Path):
    assert read_ids(text(tmp_path / "a.txt", "\n".join(IDS))) == IDS
    assert read_ids(text(tmp_path / "b.csv", 'id,size\ncat,1\n"dog, big",2\n3,3\némile,4\n')) == IDS
    assert read_ids(save(tmp_path / "c.npy", np.array(IDS))) == IDS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "1\n2.0\n", r"'2\.0' \(entry 1\) is no index; .* --ids"),
        ("x.txt", "1_0", "is no index"),
        ("x.txt", 30 * "9", "is no index"),
        ("x.txt", "index\n1", r"'index' \(entry 0\) is no index"),
        ("x.csv", "1,2\n3,4\n", "2 columns, and none of them is named 'index'"),
        ("x.csv", "index,id\n1,a\n,b\n2,c\n", "entry 1 is empty"),
        ("x.csv", '"1\n', "not readable as UTF-8 text"),
        ("x.txt", "1\n\x00", "is no index"),
    ],
)
def test_a_list_with_something_else_in_it_is_refused(
    tmp_path: Path, name: str, content: str, message: str
):
    with pytest.raises(ValueError, match=message):
        read_points(text(tmp_path / name, content))


def test_names_in_quotes_keep_their_line_ends(tmp_path: Path):
    content = '"a\nb",1\n"c\r\nd",2\n"e\rf",3\n'
    ids = read_ids(text(tmp_path / "ids.csv", f"id,size\n{content}"))
    assert ids == ["a\nb", "c\r\nd", "e\rf"]
    assert read_points(text(tmp_path / "x.csv", 'id\n"e\rf"\n"a\nb"\n'), ids).tolist() == [2, 0]


def test_a_point_without_a_name_is_refused(tmp_path: Path):
    # Names are counted: unlike in a list of points, an empty line may be a point.
    for name in ("x.txt", "x.csv"):
        with pytest.raises(ValueError, match="entry 1 is empty"):
            read_ids(text(tmp_path / name, "a\n\nb\n"))


def test_a_name_may_be_written_as_a_spreadsheet_wants_it(tmp_path: Path):
    ids = ["-5", "'-5", "=a", "'=a", "''=a", "'b"]
    # What the file has, whether or not a spreadsheet would run it.
    for cell, expected in (("-5", 0), ("'-5", 1), ("=a", 2), ("'=a", 2), ("''=a", 3), ("'b", 5)):
        assert read_points(text(tmp_path / "x.csv", f"{cell}\n"), ids).tolist() == [expected]
    # A list that no spreadsheet reads has no such marks.
    assert read_points(text(tmp_path / "x.txt", "'=a\n''=a\n"), ids).tolist() == [3, 4]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="not readable as UTF-8 text"):
        read_ids(tmp_path / "x.txt")


def test_an_unknown_name_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'bird' \(entry 1\) is none of the names; with --ids"):
        read_points(text(tmp_path / "x.txt", "cat\nbird"), IDS)


def test_names_must_be_unique_and_there(tmp_path: Path):
    with pytest.raises(ValueError, match="'b' is entry 1 and entry 2; names must be unique"):
        read_ids(text(tmp_path / "x.txt", "a\nb\nb\n"))
    with pytest.raises(ValueError, match="entry 1 is empty"):
        read_ids(save(tmp_path / "x.npy", np.array(["a", ""])))
    with pytest.raises(ValueError, match=r"float32 of shape \(4, 3, 2\), expected a flat array"):
        read_ids(save(tmp_path / "y.npy", VALUES))
