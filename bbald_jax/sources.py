"""Arrays that are read piece by piece: files, several files as one, and predictions made on demand.

A source has a `shape`, and `source[a:b]` makes a NumPy array of its rows a to b - 1. Any array of
any library that is sliced in the same way is one. Files are read into memory of our own, not
mapped: what a map has shown counts as the process's memory until somebody else needs it, and a
file that is cut short meanwhile would end the process.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

#: What safetensors calls its types.
_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# A header of more bytes is none: safetensors has the same limit.
_LONGEST_HEADER = 100_000_000


class FileArray:
    """An array in a file, of which slices of one axis are read.

    Args:
      path: the file.
      dtype: of its numbers.
      shape: as they lie in the file, the last axis without gaps.
      offset: where they begin, in bytes.
      order: for each axis of the result, which axis of the file it is; the first one is sliced.

    Raises:
      ValueError: the file is too short for that.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: np.dtype,
        shape: Sequence[int],
        offset: int,
        order: Sequence[int] | None = None,
    ) -> None:
        self.path, self.dtype = Path(path), np.dtype(dtype)
        self._stored, self._offset = tuple(map(int, shape)), offset
        self._order = tuple(range(len(self._stored)) if order is None else order)
        self.shape = tuple(self._stored[axis] for axis in self._order)
        self._state = self._look()
        if self._state[0] < offset + math.prod(self._stored) * self.dtype.itemsize:
            raise ValueError(f"{path}: shorter than its header says; copy it again")

    def _look(self) -> tuple[int, int]:
        state = os.stat(self.path)
        return state.st_size, state.st_mtime_ns

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows `a` to `b - 1`.

        Raises:
          ValueError: the file is not what it was when it was opened.
        """
        start, stop, _ = rows.indices(self.shape[0])
        axis = self._order[0]
        before, after = math.prod(self._stored[:axis]), math.prod(self._stored[axis + 1 :])
        result = np.empty((before, stop - start, after), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for i in range(before):
                first = (i * self._stored[axis] + start) * after
                file.seek(self._offset + first * self.dtype.itemsize)
                self._fill(file, result[i])
        if self._look() != self._state:
            raise ValueError(
                f"{self.path}: changed while it was read; begin again once nobody writes to it"
            )
        shape = (*self._stored[:axis], stop - start, *self._stored[axis + 1 :])
        return np.ascontiguousarray(result.reshape(shape).transpose(self._order))

    def _fill(self, file: Any, part: np.ndarray) -> None:
        view = part.reshape(-1).view(np.uint8).data
        while len(view):
            count = file.readinto(view)
            if not count:
                raise ValueError(f"{self.path}: ends too early; it was longer when it was opened")
            view = view[count:]


class Joined:
    """Several sources, one after the other, as one.

    Raises:
      ValueError: there are none, or they differ in more than their length.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        if not parts:
            raise ValueError("parts: no source at all; give at least one")
        for i, part in enumerate(parts):
            if tuple(part.shape[1:]) != tuple(parts[0].shape[1:]) or part.dtype != parts[0].dtype:
                raise ValueError(
                    f"parts[{i}]: {part.dtype} of shape {tuple(part.shape)}, but the first one is "
                    f"{parts[0].dtype} of shape {tuple(parts[0].shape)}; all must be alike but for "
                    "their length"
                )
        self._parts = tuple(parts)
        self._ends = np.cumsum([part.shape[0] for part in parts])
        self.dtype = parts[0].dtype
        self.shape = (int(self._ends[-1]), *map(int, parts[0].shape[1:]))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows `a` to `b - 1`, counted through all parts."""
        start, stop, _ = rows.indices(self.shape[0])
        pieces = []
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            begin = end - part.shape[0]
            first, last = max(start, begin), min(stop, end)
            if first < last:
                pieces.append(np.asarray(part[first - begin : last - begin]))
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]


class Lazy:
    """Predictions that are made when they are read, and never stored: `predict(x[a:b])`.

    Args:
      x: `[N, ...]`, inputs; anything with `shape` that is sliced, a mapped file for example.
      predict: `predict(x[a:b]) -> [b - a, K, C]`, predictions by the *same* K networks at every
        call, such as `lambda x: bb.sample_mc_dropout(key, model, params, x, num_samples=20)`: a
        selection reads a source at least twice, and refuses one that has changed.
      spill: a folder on disk. What was predicted once is kept there in float16, in a file that
        goes when this object does, and is read instead of being predicted again. All passes see
        the rounded values.

    The first row is predicted at once, for K and C.

    Raises:
      ValueError: `predict` returns no `[n, K, C]`.
    """

    def __init__(
        self,
        x: Any,
        predict: Callable[[Any], Any],
        *,
        spill: str | os.PathLike[str] | None = None,
    ) -> None:
        self._x, self._predict = x, predict
        first = np.asarray(predict(x[:1]))
        if first.ndim != 3 or len(first) != 1:
            raise ValueError(
                f"predict: of one row it made an array of shape {first.shape}, expected [1, K, C]"
            )
        self.shape = (int(x.shape[0]), *first.shape[1:])
        self.dtype = first.dtype if spill is None else np.dtype(np.float16)
        self._spilled = None if spill is None else _Spill(spill, self.shape, self.dtype)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Predictions for rows `a` to `b - 1`."""
        start, stop, _ = rows.indices(self.shape[0])
        if self._spilled is not None and self._spilled.has(start, stop):
            return self._spilled.read(start, stop)
        made = np.asarray(self._predict(self._x[start:stop])).astype(self.dtype, copy=False)
        if made.shape != (stop - start, *self.shape[1:]):
            raise ValueError(
                f"predict: of rows {start} to {stop - 1} it made an array of shape {made.shape}, "
                f"expected {(stop - start, *self.shape[1:])}"
            )
        if self._spilled is not None:
            self._spilled.write(start, made)
        return made


class _Spill:
    """Rows in a file without a name, written once."""

    def __init__(
        self, folder: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as this is)
        self._shape, self._dtype = shape, dtype
        self._bytes = math.prod(shape[1:]) * dtype.itemsize
        self._written: list[tuple[int, int]] = []

    def has(self, start: int, stop: int) -> bool:
        return any(first <= start and stop <= last for first, last in self._written)

    def write(self, start: int, rows: np.ndarray) -> None:
        self._file.seek(start * self._bytes)
        self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        first, stop = start, start + len(rows)
        # One after the other is one run.
        if self._written and self._written[-1][1] == start:
            first, _ = self._written.pop()
        self._written.append((first, stop))

    def read(self, start: int, stop: int) -> np.ndarray:
        self._file.flush()
        rows = np.empty((stop - start, *self._shape[1:]), self._dtype)
        self._file.seek(start * self._bytes)
        count = self._file.readinto(rows.reshape(-1).view(np.uint8).data)
        if count != rows.nbytes:
            raise ValueError("spill: the file is shorter than what was written to it")
        return rows


def open_source(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    array: str | None = None,
    axes: str = "NKC",
) -> Any:
    """Predictions in one or several files, to be read piece by piece.

    Args:
      paths: `.npy` or `.safetensors`; several are parts of one pool, in this order.
      array: which array of a `.safetensors` file, where it holds several.
      axes: the order of the axes in the files, such as `"KNC"`; reading is fastest with N first.

    Returns:
      A source of shape `[N, K, C]`, for `select_stream`.

    Raises:
      ValueError: a file is of another kind, or damaged, or holds no such array.
    """
    if not isinstance(paths, str | os.PathLike):
        parts = [open_source(path, array=array, axes=axes) for path in paths]
        return parts[0] if len(parts) == 1 else Joined(parts)
    path = Path(paths)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix.lower() == ".npy":
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise ValueError(f"{path}: no .npy file of numbers, or a damaged one") from error
        opened = as_source(mapped)
    elif path.suffix.lower() == ".safetensors":
        opened = _open_safetensors(path, array)
    else:
        raise ValueError(
            f"{path}: suffix {path.suffix!r} is none of .npy, .safetensors, the files that can be "
            "read in pieces"
        )
    return in_axes(opened, axes)


def in_axes(source: FileArray, axes: str) -> FileArray:
    """A file's array whose axes lie in the order `axes`, as `[N, K, C]`."""
    if sorted(axes) != sorted("NKC") or len(source.shape) != 3:
        raise ValueError(
            f"{source.path}: axes {axes!r} for an array of shape {source.shape}; give each of N "
            "(points), K (posterior samples) and C (classes) once, as in KNC"
        )
    order = [source._order[axes.index(letter)] for letter in "NKC"]
    return FileArray(source.path, source.dtype, source._stored, source._offset, order)


def as_source(values: Any) -> Any:
    """`values` itself, but the file behind an array that is mapped into memory from one.

    Args:
      values: any array. A view of a mapped array that skips rows, or reads backwards, stays what
        it is.
    """
    base: Any = values
    while isinstance(base, np.ndarray) and base.base is not None:
        if not isinstance(base.base, np.ndarray):
            break
        base = base.base
    if not isinstance(base, np.memmap) or not isinstance(values, np.ndarray) or values.size == 0:
        return values
    if base.filename is None or base.mode != "r":
        return values
    # How the axes lie in the file: the one of the longest stride first.
    stored = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    shape = tuple(values.shape[axis] for axis in stored)
    steps = values.dtype.itemsize * np.cumprod([1, *shape[:0:-1]])[::-1]
    if tuple(values.strides[axis] for axis in stored) != tuple(steps):
        return values
    skipped = values.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    order = [stored.index(axis) for axis in range(values.ndim)]
    return FileArray(base.filename, values.dtype, shape, base.offset + skipped, order)


def _open_safetensors(path: Path, array: str | None) -> FileArray:
    """The header's length, the header in JSON, and the numbers."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        names = sorted(header)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: no .safetensors file, or a damaged one") from error
    if array is None and len(names) == 1:
        array = names[0]
    if array not in header:
        raise ValueError(f"{path}: choose one of its arrays with array=: {', '.join(names)}")
    entry = header[array]
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{path}: dtype {entry['dtype']} does not hold real numbers; pass floats")
    start = 8 + length + entry["data_offsets"][0]
    return FileArray(path, _DTYPES[entry["dtype"]], entry["shape"], start)
