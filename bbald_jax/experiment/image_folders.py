"""A data set from a folder of images, in a sub-folder for each class.

Pillow (the `experiments` extra) is imported where images are read.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import DatasetFileError
from bbald_jax.extras import import_extra

#: Suffixes of images, and the formats that Pillow may take them for: none that starts a program.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: No image gets a longer side than so many pixels.
LONGEST_SIDE = 64
#: Of the points of each class, one in so many is for testing.
_TEST_SHARE = 6
# EXIF: which way the camera was held. These four lie on their side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)

Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
      train: for each class, by its name, the images to train on (where there is no folder `test`,
        all of them).
      test: likewise, the images to test on; empty where there is no folder `test`.
      left_out: files that are no images, and folders that are no class.
    """

    train: dict[str, list[Path]]
    test: dict[str, list[Path]]
    left_out: list[Path]

    def images(self) -> list[Path]:
        """All images, in the order of the data set."""
        return [path for part in (self.train, self.test) for x in part.values() for path in x]


def load_image_folder(folder: Path) -> Dataset:
    """The data set of a folder with a sub-folder of images for each class.

    One image in six of each class is for testing, at least one where there are two, at random by a
    fixed seed; unless the folder holds `train/` and `test/`, with the classes in each. The points
    are in the order of their paths.

    All images are brought to one size, whatever their proportions: the median height and the
    median width, both divided by one number where the longer is beyond 64 pixels. They stand
    upright as the camera was held, what is transparent is white, and 16 bits become 8. Pixels are
    divided by 255. Where all images are grey there is one channel, else there are three.

    Files that are no images, by their suffix, are left out, and a warning is logged that names
    them; hidden files are left out silently.

    Args:
      folder: as typed.

    Returns:
      The `Dataset`, named as the folder was given, its classes called by their folders.

    Raises:
      DatasetFileError: no images, fewer than two classes, a class of `test` that `train` has not,
        or an image that cannot be read.
      ModuleNotFoundError: Pillow is not installed.
    """
    listing = list_images(folder)
    if listing.left_out:
        names = [str(path.relative_to(folder)) for path in listing.left_out]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        _LOGGER.warning(
            "%s: left out %s: images (%s) in the folder of a class are read, and nothing else",
            folder,
            shown,
            ", ".join(SUFFIXES),
        )
    paths, class_names = listing.images(), tuple(listing.train)
    y = np.array([class_names.index(path.parent.name) for path in paths], np.int32)
    if listing.test:
        is_test = np.arange(len(y)) >= sum(map(len, listing.train.values()))
    else:
        is_test = _draw_test_points(y)
    if not is_test.any():
        raise DatasetFileError(
            f"{folder}: one image of each class leaves none to test on; add images, or make "
            "folders train/ and test/ with the classes in each"
        )
    x = read_images(paths)
    return Dataset(
        str(folder),
        x[~is_test],
        y[~is_test],
        x[is_test],
        y[is_test],
        num_classes=len(class_names),
        class_names=class_names,
    )


def list_images(folder: Path) -> Listing:
    """The images of each class, in the order of their paths, without opening them.

    Raises:
      DatasetFileError: see `load_image_folder`.
    """
    left_out: list[Path] = []
    train_folder, test_folder = folder / "train", folder / "test"
    if not (train_folder.is_dir() and test_folder.is_dir()):
        return Listing(_classes(folder, left_out, at_least=2), {}, left_out)
    left_out += [path for path in _visible(folder) if path not in (train_folder, test_folder)]
    train = _classes(train_folder, left_out, at_least=2)
    test = _classes(test_folder, left_out, at_least=1)
    for name in test:
        if name not in train:
            raise DatasetFileError(
                f"{test_folder / name}: no such class in {train_folder}; add images of it there, "
                "or delete it here"
            )
    return Listing(train, test, left_out)


def _visible(folder: Path) -> list[Path]:
    """Files and folders that are not hidden, by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _classes(folder: Path, left_out: list[Path], *, at_least: int) -> dict[str, list[Path]]:
    """The images in each sub-folder, by its name; what else there is comes to `left_out`."""
    classes = {}
    for path in _visible(folder):
        images, others = [], []
        for inside in _visible(path) if path.is_dir() else []:
            is_image = inside.suffix.lower() in SUFFIXES and inside.is_file()
            (images if is_image else others).append(inside)
        if images:
            classes[path.name] = images
        left_out += others if images else [path]
    if len(classes) < at_least:
        there = f"images of one class only, {next(iter(classes))!r}" if classes else "no images"
        raise DatasetFileError(
            f"{folder}: holds {there} in sub-folders; give each class, of two or more, a "
            "sub-folder of its images"
        )
    return classes


def _draw_test_points(y: np.ndarray) -> np.ndarray:
    """Which points are for testing: of each class one in six, at least one of two."""
    rng = np.random.default_rng(0)
    is_test = np.zeros(len(y), bool)
    for label in range(y.max() + 1):
        members = rng.permutation(np.flatnonzero(y == label))
        num_test = max(round(len(members) / _TEST_SHARE), min(1, len(members) - 1))
        is_test[members[:num_test]] = True
    return is_test


def read_images(paths: list[Path], damaged: list[Path] | None = None) -> np.ndarray:
    """All images, brought to one size as `load_image_folder` says.

    Args:
      paths: at least one.
      damaged: where it is given, images that cannot be read are black, and their paths are
        appended to it.

    Returns:
      `[N, H, W, 1 or 3]` float32, in [0, 1].

    Raises:
      DatasetFileError: an image that cannot be read; none that can.
      ModuleNotFoundError: Pillow is not installed.
    """
    sizes, broken = [], set()
    for path in paths:
        try:
            sizes.append(_read(path, _size))
        except DatasetFileError:
            broken.add(path)
            if damaged is None or len(broken) == len(paths):
                raise
    height, width = np.median(sizes, axis=0)
    scale = min(1, LONGEST_SIDE / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = np.zeros((len(paths), *shape, 3), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        if path in broken:
            continue
        try:
            row[...] = _read(path, lambda image: _pixels(image, *shape))
        except DatasetFileError:
            if damaged is None:
                raise
            broken.add(path)
    if damaged is not None:
        damaged += [path for path in paths if path in broken]
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return np.divide(pixels, 255, dtype=np.float32)


def _read(path: Path, look: Callable[[Any], Result]) -> Result:
    """What `look` sees in an image, or an error that names the file."""
    try:
        with _pillow("Image").open(path, formats=FORMATS) as image:
            return look(image)
    except (MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # damaged bytes: what they make Pillow raise has no common class
        reason = " ".join(str(error).split())[:200]
        raise DatasetFileError(
            f"{path}: no image, or a damaged one ({reason}); replace it, or delete it"
        ) from error


def _pillow(module: str) -> Any:
    return import_extra(f"PIL.{module}", extra="experiments", user="a folder of images")


def _size(image: Any) -> tuple[int, int]:
    """Height and width of an image that stands upright."""
    is_on_its_side = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    if image.format == "TIFF":  # which Pillow turns by itself
        is_on_its_side = False
    return image.size if is_on_its_side else image.size[::-1]


def _pixels(image: Any, height: int, width: int) -> np.ndarray:
    """An image, upright, opaque and resized, `[height, width, 3]`, uint8."""
    pillow = _pillow("Image")
    # A JPEG of many more pixels than that is decoded to fewer at once.
    image.draft(None, (2 * max(height, width),) * 2)
    image = _pillow("ImageOps").exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats; save arrays of them in a .npz instead")
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut off what is beyond 255
        image = pillow.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, "white")
        image = pillow.alpha_composite(white, image)
    return np.asarray(image.convert("RGB").resize((width, height)))
