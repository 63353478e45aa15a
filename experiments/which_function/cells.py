"""The cells of the comparison: a data set and its features, and a pool of it for every seed.

Settings that this experiment chooses (the rule for rare classes) are chosen on the cells of
`CHOOSE` and confirmed on those of `CONFIRM`; both were named before any run.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.experiment.user_data import load_user_dataset
from experiments.head.encoder import FOLDER
from experiments.head.features_table import features

CHOOSE = ("mnist-hog", "mnist-graph", "digits", "r8", "zipf", "mnist-tail")
CONFIRM = ("mnist-encoder", "fashion-hog", "fashion-graph", "newsgroups", "r52", "fashion-tail")
#: Rare classes: the largest is some hundred times the smallest.
IMBALANCED = ("r8", "zipf", "mnist-tail", "r52", "fashion-tail")

#: Data set, and features by the names of `features_table`.
_IMAGES = {
    "digits": ("digits", "none"),
    "mnist-hog": ("mnist", "image"),
    "mnist-graph": ("mnist", "image+graph"),
    "mnist-encoder": ("mnist", "encoder+graph"),
    "mnist-tail": ("mnist", "image"),
    "fashion-hog": ("fashion-mnist", "image"),
    "fashion-graph": ("fashion-mnist", "image+graph"),
    "fashion-tail": ("fashion-mnist", "image"),
}
_TEXTS = ("r8", "r52", "newsgroups")
#: In the cells with a tail class c is kept with probability TAIL^(-c/9), in pool and test points.
TAIL = 50


class Cell(NamedTuple):
    """Features and classes of all training points, and of the test points."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int

    def pool(self, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Points of a trial, in random order: the same for every acquisition function."""
        chosen = np.random.default_rng([seed, 14]).permutation(len(self.y))[:size]
        return self.x[chosen], self.y[chosen]


@lru_cache(maxsize=2)
def load(name: str) -> Cell:
    """A cell by its name."""
    if name == "zipf":
        return _zipf()
    if name in _TEXTS:
        data = load_user_dataset(FOLDER / f"{name}.npz")
        return Cell(name, data.x_train, data.y_train, data.x_test, data.y_test, data.num_classes)
    data = load_dataset(_IMAGES[name][0])
    x, x_test = features(data, _IMAGES[name][1])
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    y, y_test = data.y_train, data.y_test
    if name.endswith("tail"):
        x, y = _with_tail(x, y, 0)
        x_test, y_test = _with_tail(x_test, y_test, 1)
    return Cell(name, x, y, x_test, y_test, data.num_classes)


def _with_tail(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    is_kept = np.random.default_rng(seed).random(len(y)) < TAIL ** (-y / 9.0)
    return x[is_kept], y[is_kept]


def _zipf() -> Cell:
    """50 Gaussian classes in 32 dimensions; class c has a share proportional to 1 / (c + 1)."""
    rng = np.random.default_rng(50)
    num_classes, num_features, num_points = 50, 32, 12_000
    shares = 1 / np.arange(1, num_classes + 1)
    centres = rng.normal(size=(num_classes, num_features))
    y = rng.choice(num_classes, num_points, p=shares / shares.sum()).astype(np.int32)
    x = (centres[y] + 0.9 * rng.normal(size=(num_points, num_features))).astype(np.float32)
    return Cell("zipf", x[:8_000], y[:8_000], x[8_000:], y[8_000:], num_classes)
