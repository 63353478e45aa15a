"""Anybody's data: a file of arrays or a folder of images, and whether it has changed since."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bbald_jax.experiment.array_files import load_arrays
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import DatasetFileError
from bbald_jax.experiment.image_folders import list_images, load_image_folder


def load_user_dataset(path: Path) -> Dataset:
    """The data set in a file of arrays (`load_arrays`) or a folder of images (`load_image_folder`).

    Raises:
      DatasetFileError: it cannot be read, or not be used; the message names what is wrong in it,
        and the fix.
      ModuleNotFoundError: the package that reads it is not installed.
    """
    with _one_line(path):
        return load_image_folder(path) if path.is_dir() else load_arrays(path)


def content_sha256(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of the names, sizes and contents of its images.

    It is equal only where `load_user_dataset` gives the same data set.

    Raises:
      DatasetFileError: see `load_user_dataset`; of images, only that they cannot be read.
    """
    with _one_line(path):
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for image in list_images(path).images():
            content = image.read_bytes()
            name = image.relative_to(path).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape"))
            digest.update(content)
        return digest.hexdigest()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise DatasetFileError(
            f"{where}: {error.strerror or error}; mend that, or give another file or folder"
        ) from error
