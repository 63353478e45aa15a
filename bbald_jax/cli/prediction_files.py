"""Reading what people bring: predictions, names of points, and lists of points.

No file is trusted: nothing is unpickled, and whatever is wrong with one ends in a `ValueError` of
one line that names the file and the fix.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open

from bbald_jax.labelling.spreadsheet import from_cell

#: Suffixes of files with arrays, and how to make such a file.
ARRAYS = {
    ".npy": "numpy.save(path, array)",
    ".npz": "numpy.savez(path, array)",
    ".safetensors": 'safetensors.numpy.save_file({"predictions": array}, path)',
}
#: Suffixes of files with one name or index a line; `.npy` serves for these too.
LISTS = (".txt", ".csv", ".npy")


def read_predictions(path: Path, array: str | None = None) -> np.ndarray:
    """The array in a file; mapped into memory, not read, but for `.npz`.

    Args:
      path: `.npy`, `.npz` or `.safetensors`.
      array: which of several arrays, by name; needed where there are several.

    Raises:
      ValueError: there is no such file, it is of another kind, damaged or pickled, or there is
        no such array.
    """
    _check_path(path, tuple(ARRAYS))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        if array is not None:
            raise ValueError(f"{path}: a .npy file holds one array without a name, not {array!r}")
        return _read_npy(path)
    return _careful(
        path, lambda: (_read_npz if suffix == ".npz" else _read_safetensors)(path, array)
    )


def read_ids(path: Path) -> list[str]:
    """The names of all points, in order: one a line, or a `.npy` of strings.

    In a `.csv` whose first line has a column `id`, that column is read.

    Raises:
      ValueError: as for `read_predictions`; also a name that is empty or stands there twice.
    """
    _check_path(path, LISTS)
    if path.suffix.lower() == ".npy":
        ids = _as_strings(path, _read_npy(path))
    else:
        ids = [name.strip() for name in _read_column(path, "id")]
    seen: dict[str, int] = {}
    for place, name in enumerate(ids):
        if not name:
            raise ValueError(f"{path}: entry {place} is empty; each point needs a name")
        if name in seen:
            raise ValueError(
                f"{path}: {name!r} is entry {seen[name]} and entry {place}; names must be unique"
            )
        seen[name] = place
    return ids


def read_points(path: Path, ids: Sequence[str] | None = None) -> np.ndarray:
    """A list of points: indices (or a mask, in a `.npy` of bools), in the order of the file.

    One index a line, or a `.npy`; where the points have names (`ids`), names instead of indices.
    Empty lines mean nothing. In a `.csv` whose first line has a column `index` (`id`, where points
    have names), that column is read: what `bbald select --output` wrote can be read back, and so
    the apostrophe that `spreadsheet.to_cell` puts before a name is no part of it.

    Raises:
      ValueError: as for `read_predictions`; also a line that is no index, or an unknown name.
    """
    _check_path(path, LISTS)
    if path.suffix.lower() == ".npy":
        array = _read_npy(path)
        if array.dtype == bool or (ids is None and array.dtype.kind not in "US"):
            return array
        entries = _as_strings(path, array)
    else:
        entries = _read_column(path, "index" if ids is None else "id", skip_empty=True)
    if ids is None:
        return np.array([_index(path, place, text) for place, text in enumerate(entries)], int)
    places = {name: place for place, name in enumerate(ids)}
    return np.array(
        [_place_of(path, place, name, places) for place, name in enumerate(entries)], int
    )


def _place_of(path: Path, place: int, entry: str, places: dict[str, int]) -> int:
    readings = [entry, entry.strip()]
    if path.suffix.lower() == ".csv":
        readings = [from_cell(entry), *readings, from_cell(entry.strip())]
    for name in readings:
        if name in places:
            return places[name]
    raise ValueError(
        f"{path}: {entry.strip()!r} (entry {place}) is none of the names; with --ids, lists of "
        "points hold names"
    )


def _check_path(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path}: suffix {path.suffix!r} is none of {', '.join(suffixes)}; save it as one of "
            "these (pickled files are never read)"
        )
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: not a file; name a file in it")


def _careful(path: Path, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` returns; what it raises, as a ValueError of one line."""
    suffix = path.suffix.lower()
    try:
        return read()
    except _FileError:
        raise
    except Exception as error:  # damaged bytes: what they make readers raise has no common class
        reason = " ".join(str(error).split())[:200]
        # NumPy's words for an array of objects; a bare pickle begins with a protocol number.
        if "Python objects in dtype" in reason or "Object arrays" in reason or _is_pickle(path):
            raise ValueError(
                f"{path}: holds pickled Python objects, which can run any program when read; save "
                f"an array of numbers or strings with {ARRAYS[suffix]}"
            ) from error
        raise ValueError(
            f"{path}: no {suffix} file, or a damaged one ({reason}); save it again with "
            f"{ARRAYS[suffix]}"
        ) from error


class _FileError(ValueError):
    """Already says what is wrong."""


def _is_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def _read_npy(path: Path) -> np.ndarray:
    array = _careful(path, lambda: np.lib.format.open_memmap(path, mode="r"))
    if array.dtype.kind == "V":
        raise ValueError(
            f"{path}: dtype {array.dtype} holds no plain numbers; .npy keeps no bfloat16: save "
            "float32, or .safetensors"
        )
    return array


def _read_npz(path: Path, array: str | None) -> np.ndarray:
    # Not np.load, which takes any file that NumPy can read, whatever its suffix.
    with path.open("rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as file:
        value = file[_choose(path, file.files, array)]
    if not isinstance(value, np.ndarray):
        raise TypeError("its content is not a .npy array")
    return value


def _read_safetensors(path: Path, array: str | None) -> np.ndarray:
    """Mapped into memory, as safetensors itself reads all of it."""
    # bfloat16 arrives as the type of ml_dtypes, which JAX has registered with NumPy.
    with safe_open(path, framework="np") as file:
        name = _choose(path, list(file.keys()), array)
        tensor = file.get_slice(name)
        shape = tensor.get_shape()
        if not shape or 0 in shape:  # nothing that could be sliced, or mapped
            return file.get_tensor(name)
        dtype = tensor[:1].dtype
    # The length of the header, the header, the data; opening it has checked that they fit.
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        start = json.loads(raw.read(length))[name]["data_offsets"][0]
    return np.memmap(path, dtype, mode="r", offset=8 + length + start, shape=tuple(shape))


def _choose(path: Path, names: list[str], array: str | None) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if array is None and len(names) == 1:
        return names[0]
    if array is None:
        raise _FileError(
            f"{path}: holds {len(names)} arrays ({shown}); choose one with --array NAME"
        )
    if array not in names:
        raise _FileError(f"{path}: no array {array!r} in it, only {shown}")
    return array


def _as_strings(path: Path, array: np.ndarray) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ValueError(
            f"{path}: {array.dtype} of shape {array.shape}, expected a flat array of strings"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return [str(value) for value in array]


def _read_column(path: Path, column: str, *, skip_empty: bool = False) -> list[str]:
    """The entries as they stand there, without empty lines at the end, or without any."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        # Line ends as they are: in quotes they belong to a name.
        text = path.read_bytes().decode("utf-8-sig")
        if is_csv:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        else:
            rows = [[line] for line in text.split("\n")]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path}: not readable as UTF-8 text ({error}); write one entry a line"
        ) from error
    is_full = [any(cell.strip() for cell in row) for row in rows]
    if skip_empty:
        rows = [row for row, there in zip(rows, is_full, strict=True) if there]
    else:
        rows = rows[: len(rows) - is_full[::-1].index(True)] if any(is_full) else []
    header = [cell.strip() for cell in rows[0]] if rows else []
    place = 0
    if column in header and is_csv:
        place = header.index(column)
        rows = rows[1:]
    elif len(header) > 1:
        raise ValueError(
            f"{path}: {len(header)} columns, and none of them is named {column!r}; keep one column"
        )
    entries = [row[place] if place < len(row) else "" for row in rows]
    for number, entry in enumerate(entries):
        if not entry.strip():
            raise ValueError(f"{path}: entry {number} is empty; write one entry a line")
    return entries


def _index(path: Path, place: int, text: str) -> int:
    text = text.strip()
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(
            f"{path}: {text[:50]!r} (entry {place}) is no index; write one integer a line, or give "
            "the names of all points with --ids"
        )
    return int(text)
