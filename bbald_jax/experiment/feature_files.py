"""Features by name, and files that keep them: `make_features`, `load_or_make`."""

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bbald_jax.extras import import_extra
from bbald_jax.files import write_atomically
from bbald_jax.learning.graph_embedding import graph_features
from bbald_jax.learning.image_embedding import image_features
from bbald_jax.learning.text_embedding import text_features

#: The packages that compute each kind of features: with others, they may be others.
_PACKAGES = {
    "none": (),
    "graph": ("faiss-cpu", "numpy", "scipy"),
    "image": ("numpy", "scikit-image", "scikit-learn"),
    "text": ("numpy", "scikit-learn"),
    "image+graph": ("faiss-cpu", "numpy", "scikit-image", "scikit-learn", "scipy"),
}
KINDS = tuple(_PACKAGES)
#: Raise it when the same points get other features: files that were made before are made anew.
_VERSION = 1

Features = tuple[np.ndarray, np.ndarray]


def make_features(kind: str, x_train: Any, x_test: Any, *, seed: int = 0) -> Features:
    """Features of a pool and of test points, which do not influence those of the pool.

    Args:
      kind: `"none"` (the numbers of x in a row), `"graph"` (`bb.graph_features` of these rows),
        `"image"` (`bb.image_features`), `"text"` (`bb.text_features`), or `"image+graph"` (the
        graph of the image features).
      x_train: `[N, ...]`, or N texts.
      x_test: `[N_test, ...]`, or as many texts.
      seed: see those functions.

    Returns:
      `[N, D]` and `[N_test, D]`, float32.

    Raises:
      ValueError: no such kind, or what the function of that kind raises.
    """
    match kind:
        case "none":
            return _flat(x_train), _flat(x_test)
        case "graph":
            return graph_features(x_train, x_test, seed=seed)
        case "image":
            return image_features(x_train, x_test, seed=seed)
        case "text":
            return text_features(x_train, x_test, seed=seed)
        case "image+graph":
            return graph_features(*image_features(x_train, x_test, seed=seed), seed=seed)
    raise ValueError(f"features: {kind!r} is none of {', '.join(KINDS)}")


def load_or_make(path: Path, kind: str, x_train: Any, x_test: Any, *, seed: int = 0) -> Features:
    """What `make_features` returns, from a file where it was made of the same points before.

    The file (safetensors: `train`, `test`) says what it was made of: a SHA-256 digest of all
    points, of the kind and the seed, and of the versions of the packages that computed it. Where
    it says another one, or is damaged, or not there, the features are made and the file is
    replaced, at once.

    Args:
      path: in a folder that is there.
      kind: see `make_features`, as for all below.
      x_train: `[N, ...]`, or N texts.
      x_test: `[N_test, ...]`, or as many texts.
      seed: of what is random.

    Raises:
      ValueError: see `make_features`.
      OSError: the file cannot be read, or not be replaced.
    """
    if kind not in KINDS:
        raise ValueError(f"features: {kind!r} is none of {', '.join(KINDS)}")
    safetensors = import_extra("safetensors.numpy", extra="features", user="the file of features")
    made_of = _digest(kind, x_train, x_test, seed)
    if (there := _read(path, made_of)) is not None:
        return there
    train, test = make_features(kind, x_train, x_test, seed=seed)
    tensors = {"train": np.ascontiguousarray(train), "test": np.ascontiguousarray(test)}
    write_atomically(path, safetensors.save(tensors, {"made_of": made_of}))
    return train, test


def _read(path: Path, made_of: str) -> Features | None:
    """The features in a file, if they were made of the same; None if they must be made."""
    package = import_extra("safetensors", extra="features", user="the file of features")
    try:
        with package.safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("made_of") != made_of:
                return None
            return file.get_tensor("train"), file.get_tensor("test")
    except (FileNotFoundError, package.SafetensorError):
        return None


def _digest(kind: str, x_train: Any, x_test: Any, seed: int) -> str:
    """The kind, the seed, and a SHA-256 digest of everything that decides the features."""
    digest = hashlib.sha256()
    versions = [f"{package} {_installed(package)}" for package in _PACKAGES[kind]]
    digest.update(repr((_VERSION, kind, int(seed), versions)).encode())
    for points in (x_train, x_test):
        if kind == "text":
            _add_texts(digest, points)
        else:
            array = np.ascontiguousarray(points)
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(array.data)
    return f"{kind}, seed {seed}, sha256 {digest.hexdigest()}"


def _installed(package: str) -> str:
    """The version of a package; other builds of faiss have another name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _add_texts(digest: Any, texts: Iterable[str]) -> None:
    """Texts, each after its length: two short ones are not one long one."""
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)} ".encode())
        digest.update(encoded)
    digest.update(b"end")


def _flat(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(len(x), -1)
