"""What is labelled: a folder of images, a table with a column of texts, an array of images."""

import csv
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bbald_jax.experiment.image_folders import SUFFIXES, read_images
from bbald_jax.extras import import_extra
from bbald_jax.labelling.page import pictures

_TABLES = (".csv", ".jsonl", ".ndjson", ".parquet")
_ARRAYS = (".npy", ".npz")
# Names that the array of images is looked for under, where a .npz has several.
_IMAGE_NAMES = ("images", "x", "x_train")
#: A text is cut off on the page behind so many characters.
LONGEST_TEXT = 20_000


class ImageFolder:
    """The images in a folder and its sub-folders; their names are paths from there."""

    kind = "image"
    digest = ""

    def __init__(self, folder: Path, names: list[str] | None = None) -> None:
        self.folder = folder
        self.left_out: list[str] = []
        found: list[str] = []
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                path = (Path(place) / name).relative_to(folder).as_posix()
                if not name.startswith("."):
                    is_image = Path(name).suffix.lower() in SUFFIXES
                    (found if is_image else self.left_out).append(path)
        there = sorted(found)
        if names is not None:  # the session's, then what is new
            known = set(names)
            there = [*names, *(name for name in there if name not in known)]
        if not there:
            raise ValueError(f"{folder}: no images ({', '.join(SUFFIXES)}) in it")
        self.names: list[str] = there

    def __len__(self) -> int:
        return len(self.names)

    def text(self, index: int) -> str:
        """The image's name."""
        return self.names[index]

    def path(self, index: int) -> Path:
        """Where the image is."""
        return self.folder / self.names[index]

    def picture(self, index: int) -> pictures.Picture:
        """The file, or a JPEG or PNG of it."""
        return pictures.of_file(self.path(index))

    def raw(self) -> np.ndarray:
        """`[N, H, W, c]`, small; images that are damaged, or gone, are black."""
        return read_images([self.path(index) for index in range(len(self))], damaged=[])


class Texts:
    """One column of a table; the names are the positions of the rows, counted from 0."""

    kind = "text"
    names = None

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self.left_out: list[str] = []
        digest = hashlib.sha256()
        for text in texts:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d " % len(encoded) + encoded)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, index: int) -> str:
        """The text itself."""
        return self._texts[index]

    def picture(self, index: int) -> pictures.Picture:
        """There is none."""
        raise ValueError(f"item {index} is a text")

    def raw(self) -> list[str]:
        """The texts."""
        return self._texts


class ImageArray:
    """Images `[N, H, W]` or `[N, H, W, c]`; the names are their positions."""

    kind = "image"
    names = None

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.left_out: list[str] = []
        self.digest = hashlib.sha256(np.ascontiguousarray(images[:1000]).tobytes()).hexdigest()
        self.digest += f" {images.shape} {images.dtype}"
        self._low, self._high = 0.0, 255.0
        if images.dtype != np.uint8:
            low, high = float(images.min()), float(images.max())
            is_unit = images.dtype.kind == "f" and low >= 0 and high <= 1
            self._low, self._high = (0.0, 1.0) if is_unit else (low, high)

    def __len__(self) -> int:
        return len(self._images)

    def text(self, index: int) -> str:
        """Which it is."""
        return f"image {index}"

    def picture(self, index: int) -> pictures.Picture:
        """A PNG, black at the smallest number and white at the largest (or at 0 and 1)."""
        pixels = self._images[index]
        if pixels.dtype != np.uint8:
            span = max(self._high - self._low, np.finfo(np.float32).tiny)
            scaled = (pixels.astype(np.float64) - self._low) / span
            pixels = np.round(scaled * 255).clip(0, 255).astype(np.uint8)
        return pictures.of_array(pixels)

    def raw(self) -> np.ndarray:
        """The images."""
        return self._images


#: N things that people look at. `names` are their names, or None where they are called by their
#: positions; `digest` says what they are, where names do not; `left_out` is what DATA holds beside.
Items = ImageFolder | Texts | ImageArray


def open_items(
    data: Path,
    *,
    column: str | None = None,
    array: str | None = None,
    names: list[str] | None = None,
) -> Items:
    """What DATA holds.

    Args:
      data: a folder of images; a .csv, .jsonl or .parquet with a column of texts; a .npy or .npz
        with an array of images.
      column: of texts; not needed where there is one only, or one called "text".
      array: which array of a .npz; not needed where there is one only, or one called images, x or
        x_train.
      names: of the items that are known already, in their order; new ones come behind.

    Raises:
      ValueError: nothing that can be labelled; it says what would be.
      OSError: it cannot be read.
      ModuleNotFoundError: the package that reads it is not installed.
    """
    if not data.exists():
        raise ValueError(f"{data}: there is no such file or folder")
    if data.is_dir():
        return ImageFolder(data, names)
    suffix = data.suffix.lower()
    if suffix in _TABLES:
        return Texts(_read_texts(data, column))
    if suffix in _ARRAYS:
        return ImageArray(_read_array(data, array))
    raise ValueError(
        f"{data}: suffix {suffix!r} is none of {', '.join((*_TABLES, *_ARRAYS))}; give a folder of "
        "images, a table of texts, or an array of images"
    )


def _read_texts(path: Path, column: str | None) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        parquet = import_extra("pyarrow.parquet", extra="parquet", user=str(path))
        chosen = _column(path, column, parquet.read_schema(path).names)
        values = parquet.read_table(path, columns=[chosen]).column(chosen).to_pylist()
    else:
        rows = _read_csv(path) if suffix == ".csv" else _read_json_lines(path)
        if not rows:
            raise ValueError(f"{path}: no rows; give a file with a text in each")
        chosen = _column(path, column, list(rows[0]))
        values = [row.get(chosen) for row in rows]
    if not values:
        raise ValueError(f"{path}: no rows; give a file with a text in each")
    return ["" if value is None else str(value) for value in values]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            return list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: no CSV in UTF-8 ({error})") from error


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path} line {number}: no JSON in UTF-8 ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number}: {row!r:.40} is no JSON object")
            rows.append(row)
    return rows


def _column(path: Path, column: str | None, there: list[str]) -> str:
    if column is None:
        column = there[0] if len(there) == 1 else "text"
    if column not in there:
        raise ValueError(f"{path}: no column {column!r}; give --column, one of {', '.join(there)}")
    return column


def _read_array(path: Path, name: str | None) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        with np.load(path, allow_pickle=False) as arrays:
            there = list(arrays)
            if name is None:
                known = [each for each in _IMAGE_NAMES if each in there]
                name = there[0] if len(there) == 1 else (known or [""])[0]
            if name not in there:
                raise ValueError(
                    f"{path}: no array {name or 'images'!r}; give --array, one of "
                    f"{', '.join(there)}"
                )
            images = arrays[name]
    check_images(str(path), images)
    return images


def check_images(where: str, images: np.ndarray) -> None:
    """Refuse an array that is no images.

    Raises:
      ValueError: its shape or type; the message begins with `where`.
    """
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if not is_image or 0 in images.shape or images.dtype.kind not in "fiu":
        raise ValueError(
            f"{where}: an array {images.dtype} {images.shape}, expected numbers [N, H, W], or "
            "[N, H, W, 1 or 3] with channels last"
        )
