"""Data sets as NumPy arrays, by name or path.

Nothing numerical imports this module. scikit-learn (the `experiments` extra) is imported where it
is needed.
"""

import math
import os
from pathlib import Path

import numpy as np

from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import (
    IDX_FILES,
    DatasetFileError,
    Source,
    locate,
    read_idx,
)
from bbald_jax.experiment.user_data import content_sha256, load_user_dataset
from bbald_jax.extras import import_extra

DATASETS = ("digits", "mnist", "repeated-mnist", "fashion-mnist")


MNIST = Source(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://systemds.apache.org/assets/datasets/mnist/",
    ),
    checksums=(
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    contents=(  # computed from the files that have the checksums above
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mean=0.1307,
    std=0.3081,
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    checksums=(  # MD5 is what its authors publish.
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
        "md5:bef4ecab320f06d8554ea6380940ec79",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
    # Computed from Debian's dataset-fashion-mnist. Its files were compressed anew, to the same
    # deflate streams: with the original names and times (1504176606 s for training, 1504176627 s
    # for test) in their headers, they have the checksums above.
    contents=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mean=0.2860,
    std=0.3530,
)


def load_dataset(name: str, *, num_repeats: int = 3, noise: float = 0.1, seed: int = 0) -> Dataset:
    """A data set by its name, one of `DATASETS`, or one of your own by its path.

    Args:
      name: `"digits"`, `"mnist"`, `"repeated-mnist"` or `"fashion-mnist"`; else a file, `.npz` or
        `.safetensors`, with the arrays `x_train`, `y_train`, `x_test` and `y_test`, or a folder
        with a sub-folder of images for each class. Where a path is called like a data set, `./`
        before it makes it a path.
      num_repeats: copies of each training image; `repeated-*` only.
      noise: standard deviation of the copies' noise; `repeated-*` only.
      seed: of the noise; `repeated-*` only.

    Returns:
      The `Dataset`.

    Raises:
      ValueError: neither a name nor a path that is there, a bad argument, a corrupt file in
        `$BBALD_DATA_DIR`, or a file or folder of yours that cannot be used.
      DatasetUnavailableError: a file is not there and no mirror delivers it.
    """
    loaders = {"digits": load_digits, "mnist": load_mnist, "fashion-mnist": load_fashion_mnist}
    if name not in DATASETS:
        return load_user_dataset(_user_path(name))
    base = name.removeprefix("repeated-")
    dataset = loaders[base]()
    if name == base:
        return dataset
    return repeat(dataset, num_repeats=num_repeats, noise=noise, seed=seed)


def dataset_sha256(name: str) -> str | None:
    """What tells whether a data set of your own has changed (`content_sha256`); None for a name.

    Raises:
      ValueError: see `load_dataset`.
    """
    return None if name in DATASETS else content_sha256(_user_path(name))


def _user_path(name: str) -> Path:
    if not os.path.exists(name):
        raise DatasetFileError(
            f"unknown data set {name!r}: no such file or folder; give one that is there, or choose "
            f"one of: {', '.join(DATASETS)}"
        )
    return Path(name)


def load_digits() -> Dataset:
    """The 1,797 digits of 8x8 pixels that ship with scikit-learn: no download.

    Pixels are divided by 16, into [0, 1]. The split is a fixed random one.

    Returns:
      `Dataset` with 1,200 training and 597 test images, `[n, 8, 8, 1]`, 10 classes.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), test part.
    """
    sklearn = import_extra("sklearn.datasets", extra="experiments", user="this data set")
    digits = sklearn.load_digits()
    # The file is not in random order: a writer's digits follow one another.
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images[order, ..., None] / 16).astype(np.float32)
    y = digits.target[order].astype(np.int32)
    return Dataset("digits", x[:1200], y[:1200], x[1200:], y[1200:], num_classes=10)


def load_mnist() -> Dataset:
    """MNIST, normalised as in the BatchBALD paper: `(pixel / 255 - 0.1307) / 0.3081`.

    Returns:
      `Dataset` with 60,000 training and 10,000 test images, `[n, 28, 28, 1]`, 10 classes.

    Raises:
      ValueError, DatasetUnavailableError: see `load_idx`.

    Source: LeCun, Cortes, Burges, The MNIST Database of Handwritten Digits (1998).
    """
    return load_idx(MNIST)


def load_fashion_mnist() -> Dataset:
    """Fashion-MNIST, normalised: `(pixel / 255 - 0.2860) / 0.3530`.

    Returns:
      `Dataset` with 60,000 training and 10,000 test images, `[n, 28, 28, 1]`, 10 classes.

    Raises:
      ValueError, DatasetUnavailableError: see `load_idx`.

    Source: Xiao, Rasul, Vollgraf, Fashion-MNIST (2017), arXiv 1708.07747.
    """
    return load_idx(FASHION_MNIST)


def repeat(dataset: Dataset, *, num_repeats: int, noise: float, seed: int) -> Dataset:
    """A pool full of near-copies: every training image several times, each with its own noise.

    Copy r of image i is at index `r * N + i`, with Gaussian noise on the normalised pixels. It
    is the test of redundant data: the paper's RepeatedMNIST is `num_repeats=3, noise=0.1`.

    Args:
      dataset: with N training images.
      num_repeats: copies of each training image, at least 1.
      noise: standard deviation of the noise; 0 gives exact copies.
      seed: of the noise.

    Returns:
      `Dataset` named `repeated-<name>`, `num_repeats * N` training images, the same test set.

    Raises:
      ValueError: `num_repeats` below 1; `noise` negative or not finite.

    Source: Kirsch, van Amersfoort, Gal (2019), the RepeatedMNIST experiment.
    """
    if num_repeats < 1:
        raise ValueError(f"num_repeats is {num_repeats}; pass an integer of at least 1")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is {noise}; pass a finite standard deviation of at least 0")
    x = np.random.default_rng(seed).standard_normal(
        (num_repeats, *dataset.x_train.shape), dtype=np.float32
    )
    # In place: 3 copies of MNIST are 560 MB, and plain arithmetic would hold them twice.
    x *= noise
    x += dataset.x_train
    return dataset._replace(
        name=f"repeated-{dataset.name}",
        x_train=x.reshape(-1, *dataset.x_train.shape[1:]),
        y_train=np.tile(dataset.y_train, num_repeats),
        num_repeats=num_repeats * dataset.num_repeats,
    )


def load_idx(source: Source) -> Dataset:
    """A data set of ten classes in four IDX files, downloaded if need be.

    Each file is taken from `$BBALD_DATA_DIR/<source.name>/` if it is there, gzipped or not, else
    from the cache (`pooch.os_cache("bbald_jax")/<source.name>/`), else from the first mirror that
    delivers it. Its content must be the original's wherever it comes from.

    Args:
      source: mirrors, checksums and the normalisation, `(pixel / 255 - mean) / std`.

    Returns:
      `Dataset` with images `[n, H, W, 1]`.

    Raises:
      ValueError: a file in `$BBALD_DATA_DIR` has another content, a file is not valid IDX, or
        there are not as many labels as images.
      DatasetUnavailableError: a file is not there and no mirror delivers it.
      ModuleNotFoundError: pooch is needed and not installed.
    """
    paths = [locate(source, *each) for each in zip(IDX_FILES, source.checksums, strict=True)]
    # 256 grey levels, normalised once in float64: no float copy of the images but the result.
    levels = ((np.arange(256) / 255 - source.mean) / source.std).astype(np.float32)
    arrays = []
    files = list(zip(paths, source.contents, strict=True))
    for (images_path, images_sha256), (labels_path, labels_sha256) in (files[:2], files[2:]):
        images = read_idx(images_path, ndim=3, sha256=images_sha256)
        labels = read_idx(labels_path, ndim=1, sha256=labels_sha256)
        if len(images) != len(labels):
            raise DatasetFileError(
                f"{images_path} holds {len(images)} images but {labels_path} holds "
                f"{len(labels)} labels; replace both with the original files"
            )
        arrays += [levels[images][..., None], labels.astype(np.int32)]
    return Dataset(source.name, *arrays, num_classes=10)
