"""A data set from arrays in a file: `.npz` or `.safetensors`.

No file is trusted: nothing is unpickled, and whatever is wrong with one ends in a
`DatasetFileError` of one line that names the array and the fix.

safetensors (the `experiments` extra) is imported where such a file is read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import DatasetFileError
from bbald_jax.extras import import_extra

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
#: Suffixes of such files, and how to make one.
SUFFIXES = {
    ".npz": "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
    ".safetensors": 'safetensors.numpy.save_file({"x_train": ..., "y_train": ...}, path)',
}
_DENSE = (
    "make an array of it with .toarray(), or with scikit-learn's TruncatedSVD where it is too "
    "large, or save the texts that it came from, as an array of strings"
)


def load_arrays(path: Path) -> Dataset:
    """The data set in a file of four arrays, `x_train`, `y_train`, `x_test` and `y_test`.

    Args:
      path: `.npz` or `.safetensors`. The points are images `[N, H, W]` or `[N, H, W, c]`, vectors
        `[N, D]`, or, in `.npz`, texts: `[N]` strings. Images of uint8 are divided by 255; other
        numbers are taken as they are. The labels `[N]` are integers or strings; their sorted
        values become the classes 0 to C-1.

    Returns:
      The `Dataset`, named as the path was given, its classes called by the labels in the file.

    Raises:
      DatasetFileError: the file is of another kind, damaged or pickled, an array is missing, or
        does not fit the others, or its numbers are not finite.
    """
    arrays = _read(path)
    y_train, y_test, class_names = _labels(path, arrays)
    x_train, x_test = (_points(path, name, arrays[name]) for name in ("x_train", "x_test"))
    for x, y in (("x_train", y_train), ("x_test", y_test)):
        if len(arrays[x]) != len(y):
            raise DatasetFileError(
                f"{path}: {x} has {len(arrays[x])} points, but y{x[1:]} has {len(y)} labels; give "
                "each point one label"
            )
    _check_alike(path, arrays["x_train"], arrays["x_test"])
    num_classes = len(class_names)
    return Dataset(
        str(path), x_train, y_train, x_test, y_test, num_classes, class_names=class_names
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The four arrays as they are in the file."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        raise DatasetFileError(
            f"{path}: a .npy file holds one array, and {', '.join(ARRAYS)} are needed; write all "
            f"four with {SUFFIXES['.npz']}"
        )
    if suffix not in SUFFIXES:
        raise DatasetFileError(
            f"{path}: suffix {path.suffix!r} is none of {', '.join(SUFFIXES)}; write one with "
            f"{SUFFIXES['.npz']}, or give a folder with a sub-folder of images for each class"
        )
    if path.stat().st_size == 0:
        raise DatasetFileError(f"{path}: an empty file; write it again with {SUFFIXES[suffix]}")
    try:
        return (_read_npz if suffix == ".npz" else _read_safetensors)(path)
    except (DatasetFileError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # damaged bytes: what they make readers raise has no common class
        reason = " ".join(str(error).split())[:200]
        if "Object arrays" in reason or "Python objects in dtype" in reason:
            raise DatasetFileError(
                f"{path}: holds pickled Python objects, which can run any program when read; save "
                "arrays of numbers, or of strings with .astype(str); if it was a sparse matrix, "
                f"{_DENSE}"
            ) from error
        raise DatasetFileError(
            f"{path}: no {suffix} file, or a damaged one ({reason}); write it again with "
            f"{SUFFIXES[suffix]}"
        ) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # Not np.load, which takes any file that NumPy can read, whatever its suffix.
    with path.open("rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as file:
        return _take(path, file.files, lambda name: file[name])


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with import_extra("safetensors", extra="experiments", user="this data set").safe_open(
        path, framework="np"
    ) as file:
        return _take(path, list(file.keys()), file.get_tensor)


def _take(
    path: Path, names: Sequence[str], read: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """The four arrays, of a file with arrays of these names."""
    # What `scipy.sparse.save_npz` writes, whatever the format, or somebody instead of it.
    if "data" in names and {"shape", "indptr"} & set(names):
        raise DatasetFileError(f"{path}: holds a sparse matrix of SciPy; {_DENSE}")
    if missing := [name for name in ARRAYS if name not in names]:
        there = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise DatasetFileError(
            f"{path}: has no {', '.join(missing)}, only {there or 'nothing at all'}; name the four "
            f"arrays {', '.join(ARRAYS)}"
        )
    arrays = {name: read(name) for name in ARRAYS}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DatasetFileError(f"{path}: {name} is no array; save it as one")
        if array.ndim == 0 or len(array) == 0:
            raise DatasetFileError(
                f"{path}: {name} holds no points, its shape is {array.shape}; give it some"
            )
        if array.dtype.kind == "S":
            try:
                arrays[name] = np.char.decode(array, "utf-8")
            except UnicodeDecodeError as error:
                raise DatasetFileError(
                    f"{path}: {name} holds bytes that are no UTF-8 ({error.reason}); decode them "
                    "and save strings"
                ) from error
    return arrays


def _points(path: Path, name: str, x: np.ndarray) -> np.ndarray:
    """Points as the networks take them: finite float32, or texts."""
    where = f"{path}: {name}"
    if x.dtype.kind == "U":
        if x.ndim != 1:
            raise DatasetFileError(
                f"{where} has strings in the shape {x.shape}, expected [N], one text a point; join "
                "those of a point, or flatten it with .ravel()"
            )
        return x
    if x.dtype.kind not in "fiub" and x.dtype.name != "bfloat16":
        raise DatasetFileError(
            f"{where} is {x.dtype}, expected numbers or strings; convert it with .astype"
        )
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise DatasetFileError(
            f"{where} has the shape {x.shape}, expected images [N, H, W] or [N, H, W, c], vectors "
            "[N, D], or strings [N]; reshape it"
        )
    if x.ndim == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) > 4:
        raise DatasetFileError(
            f"{where} has the shape {x.shape}, which looks like channels before height and width; "
            f"put them last with numpy.moveaxis({name}, 1, -1)"
        )
    if x.dtype == np.uint8 and x.ndim > 2:
        result = np.divide(x, 255, dtype=np.float32)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold is found below
            result = x.astype(np.float32, copy=False)
    is_finite = np.isfinite(result).all(axis=tuple(range(1, x.ndim)))
    if not is_finite.all():
        raise DatasetFileError(
            f"{where} has NaN, infinity or numbers beyond float32 in {np.sum(~is_finite)} points, "
            f"first in row {np.argmin(is_finite)}; leave these points out, or fill the numbers in"
        )
    return result[..., None] if x.ndim == 3 else result


def _check_alike(path: Path, x_train: np.ndarray, x_test: np.ndarray) -> None:
    """Refuse points that would be made into numbers in two ways, or into two shapes."""
    both = x_train, x_test
    kinds = {"U" if x.dtype.kind == "U" else x.ndim > 2 and x.dtype == np.uint8 for x in both}
    if x_train.shape[1:] != x_test.shape[1:] or len(kinds) > 1:
        shapes = [f"{x.dtype.name} {list(x.shape)}" for x in both]
        raise DatasetFileError(
            f"{path}: x_train is {shapes[0]} and x_test {shapes[1]}; make both of one kind and, "
            "but for the number of points, of one shape"
        )


def _labels(
    path: Path, arrays: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Labels as classes 0 to C-1, and what the classes are called."""
    for name in ("y_train", "y_test"):
        y = arrays[name]
        if y.ndim != 1:
            fix = "flatten it with .ravel()" if y.size == len(y) else "take .argmax(axis=1) of it"
            raise DatasetFileError(
                f"{path}: {name} has the shape {y.shape}, expected [N], one label a point; {fix}"
            )
        if y.dtype.kind not in "iubU":
            raise DatasetFileError(
                f"{path}: {name} is {y.dtype.name}, expected integers or strings; where each "
                "number is a class, convert it with .astype(int)"
            )
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    if (y_train.dtype.kind == "U") != (y_test.dtype.kind == "U"):
        raise DatasetFileError(
            f"{path}: y_train is {y_train.dtype.name} and y_test {y_test.dtype.name}; save both as "
            "integers, or both as strings"
        )
    classes, numbers = np.unique(y_train, return_inverse=True)
    if len(classes) < 2:
        raise DatasetFileError(
            f"{path}: y_train has one class only, {classes.tolist()[0]!r}; points of two or more "
            "are needed"
        )
    unknown = set(y_test.tolist()) - set(classes.tolist())
    if unknown:
        shown = ", ".join(map(repr, sorted(unknown)[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DatasetFileError(
            f"{path}: y_test has labels that y_train has not: {shown}; add training points of "
            "these classes, or leave these test points out"
        )
    tested = np.searchsorted(classes, y_test.astype(classes.dtype))
    names = tuple(map(str, classes.tolist()))
    return numbers.astype(np.int32), tested.astype(np.int32), names
