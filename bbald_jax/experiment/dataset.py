"""What a data set is: points with their labels, to train on and to test on."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Points and labels, split into training points (the pool) and test points.

    A point is an image, a vector (an embedding, say), or a text.

    Attributes:
      name: as in `load_dataset`.
      x_train: `[N, H, W, c]` or `[N, D]`, float32; of texts `[N]`, NumPy's strings (`U`).
      y_train: `[N]`, int32, in [0, num_classes).
      x_test: `[N_test, ...]`, like `x_train`.
      y_test: `[N_test]`, int32.
      num_classes: C.
      num_repeats: training point i is a copy of image `i % (N // num_repeats)`.
      class_names: C names; without any, a class is called by its number.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    num_repeats: int = 1
    class_names: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """What a class is called."""
        return self.class_names[label] if self.class_names else str(label)

    @property
    def has_images(self) -> bool:
        """Whether the points are images."""
        return self.x_train.ndim == 4

    @property
    def has_texts(self) -> bool:
        """Whether the points are texts."""
        return self.x_train.dtype.kind == "U"
