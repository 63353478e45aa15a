"""IDX files, gzipped or not: from a local folder, or a public mirror with a checked cache.

What must be right is the content: whoever compresses it anew has another `.gz` of the same data.

pooch (the `experiments` extra) is imported where something has to be downloaded, so files in
`$BBALD_DATA_DIR` are read without it.
"""

import gzip
import hashlib
import math
import os
import re
import textwrap
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bbald_jax.extras import import_extra

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


class Source(NamedTuple):
    """Where the four `IDX_FILES` of a data set come from, and how its pixels are normalised.

    Attributes:
      name: the data set's name, and its folder in `$BBALD_DATA_DIR` and in the cache.
      mirrors: URLs ending in `/`, tried in this order.
      checksums: of each of `IDX_FILES` as the mirrors have them, `algorithm:hexdigest`.
      contents: of each, the SHA-256 of what is compressed there.
      mean: of the training pixels, scaled to [0, 1].
      std: of the same.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: tuple[str, ...]
    contents: tuple[str, ...]
    mean: float
    std: float


class DatasetFileError(ValueError):
    """A file of a data set is there, but is not what it should be."""


class DatasetUnavailableError(OSError):
    """A file of a data set is neither in `$BBALD_DATA_DIR` nor on any mirror that answers."""


def read_idx(path: str | os.PathLike[str], *, ndim: int, sha256: str | None = None) -> np.ndarray:
    """The array in one IDX file of unsigned bytes, gzipped where its name ends in `.gz`.

    IDX: the bytes `0 0 8 ndim`, `ndim` sizes as big-endian uint32, the array in C order.

    Args:
      path: the file.
      ndim: the number of axes it must have: 3 for images, 1 for labels.
      sha256: the checksum of its content, uncompressed, in hexadecimal; None for any content.

    Returns:
      uint8 array with `ndim` axes, read-only.

    Raises:
      ValueError: not gzip, another content, not IDX, another number of axes, too short or too long.

    Source: LeCun, Cortes, Burges (1998), "File formats for the MNIST database".
    """
    fix = "replace it with the original file"
    magic, start = bytes((0, 0, 8, ndim)), 4 + 4 * ndim
    content = Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if Path(path).suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetFileError(f"{path} is not a complete gzip file ({error}); {fix}") from error
    if sha256 not in (None, actual := hashlib.sha256(content).hexdigest()):
        raise DatasetFileError(
            f"{path} is not the original file: the sha256 of its content is {actual}, expected "
            f"{sha256}; replace it, or delete it to have it downloaded"
        )
    if content[:4] != magic or len(content) < start:
        raise DatasetFileError(
            f"{path} is not an IDX file of {ndim}-dimensional unsigned bytes: it must begin "
            f"with {magic.hex()} and {ndim} sizes, but begins with "
            f"{content[:4].hex() or 'nothing'} and holds {len(content)} bytes; {fix}"
        )
    shape = tuple(np.frombuffer(content, ">u4", ndim, offset=4).tolist())
    if len(content) - start != math.prod(shape):
        raise DatasetFileError(
            f"{path} has the shape {shape} in its header, {math.prod(shape)} bytes, but holds "
            f"{len(content) - start}; {fix}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def locate(source: Source, file: str, checksum: str) -> Path:
    """The path of one file of a data set, with or without `.gz`; downloads it if need be.

    A download has the checksum; what a file in `$BBALD_DATA_DIR` holds is for `read_idx` to check.
    """
    if root := os.environ.get("BBALD_DATA_DIR"):
        folder = Path(root, source.name).expanduser()
        for name in (file, file.removesuffix(".gz")):
            if (folder / name).exists():
                return folder / name
    return _download(source, file, checksum)


def _download(source: Source, file: str, checksum: str) -> Path:
    """The path of one file in the cache, fetched from the first mirror that delivers it."""
    pooch = import_extra("pooch", extra="experiments", user="this data set")
    folder = pooch.os_cache("bbald_jax") / source.name
    failures = []
    for mirror in source.mirrors:
        # pooch writes a temporary file, checks it, then renames it: neither a killed download
        # nor a second process leaves half a file under the real name.
        try:
            return Path(pooch.retrieve(mirror + file, checksum, file, folder, progressbar=True))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            failures.append(f"{mirror} ({_reason(error)})")
    root = os.environ.get("BBALD_DATA_DIR") or "not set"
    raise DatasetUnavailableError(
        f"cannot get {file} of {source.name}: {'; '.join(failures)}; check the connection, or put "
        f"{', '.join(IDX_FILES)} in $BBALD_DATA_DIR/{source.name}/ (BBALD_DATA_DIR is {root})"
    )


def _reason(error: BaseException) -> str:
    """One short line: requests wraps 'Connection refused' in three exceptions and two reprs."""
    inner = error
    while isinstance(inner, BaseException):
        error, inner = inner, getattr(inner, "reason", next(iter(inner.args), None))
    text = re.sub(r"^HTTPS?Connection\(.*?\): | for url: .*", "", str(error))
    return textwrap.shorten(text, 120)
