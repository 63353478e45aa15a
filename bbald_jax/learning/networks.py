"""Two networks: a multilayer perceptron, and the convolutional one of the BatchBALD paper."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.learning.convolution import Conv, max_pool, max_pool_forward
from bbald_jax.learning.linen import FactoredModule


class MLP(nn.Module):
    """A multilayer perceptron with dropout after each hidden layer.

    Attributes:
      num_classes: C.
      hidden: widths of the hidden layers.
      dropout_rate: probability that a unit is dropped.
    """

    num_classes: int
    hidden: tuple[int, ...] = (128, 128)
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], *, deterministic: bool) -> Float[Array, "n C"]:
        """Logits of flattened inputs."""
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
            x = nn.Dropout(self.dropout_rate)(x, deterministic=deterministic)
        return nn.Dense(self.num_classes)(x)


class PaperCNN(FactoredModule):
    """The network of the BatchBALD paper's MNIST experiments.

    conv 5x5x32, MC channel dropout, max-pool 2, relu, conv 5x5x64, MC channel dropout, max-pool
    2, relu, dense 128, MC dropout, relu, dense C.

    Attributes:
      num_classes: C.
      dropout_rate: probability that a channel, or a unit, is dropped.

    Source: Kirsch, van Amersfoort, Gal (2019), section 4.2 and their published code.
    """

    num_classes: int
    dropout_rate: float = 0.5

    def setup(self) -> None:
        """The layers."""
        self.conv_1, self.conv_2 = Conv(32), Conv(64)
        self.dense_1, self.dense_2 = nn.Dense(128), nn.Dense(self.num_classes)
        self.dropout_1 = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))
        self.dropout_2 = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))
        self.dropout_3 = nn.Dropout(self.dropout_rate)

    def __call__(self, x: Float[Array, "n h w c"], *, deterministic: bool) -> Float[Array, "n C"]:
        """Logits of images."""
        x = self.dropout_1(self.conv_1(x), deterministic=deterministic)
        x = self.conv_2(nn.relu(max_pool(x)))
        x = self.dropout_2(x, deterministic=deterministic)
        x = nn.relu(max_pool(x))
        x = self.dense_1(x.reshape(x.shape[0], -1))
        x = nn.relu(self.dropout_3(x, deterministic=deterministic))
        return self.dense_2(x)

    def masks(self) -> tuple[Float[Array, "32"], Float[Array, "64"], Float[Array, "128"]]:
        """The masks of the three dropout layers."""

        def mask(dropout: nn.Dropout, shape: tuple[int, ...]) -> Array:
            return dropout(jnp.ones(shape), deterministic=False).ravel()

        return (
            mask(self.dropout_1, (1, 1, 1, 32)),
            mask(self.dropout_2, (1, 1, 1, 64)),
            mask(self.dropout_3, (1, 128)),
        )

    def apply_masks(self, x: Float[Array, "n h w c"], masks: Any) -> Float[Array, "K n C"]:
        """Logits of images under each of K masks."""
        mask_1, mask_2, mask_3 = masks
        x = self.conv_2(nn.relu(max_pool_forward(self.conv_1(x))), mask_1)  # [K, n, h, w, 64]
        x = nn.relu(max_pool_forward(x)) * mask_2[:, None, None, None]
        x = nn.relu(self.dense_1(x.reshape(*x.shape[:2], -1)))
        return self.dense_2(x * mask_3[:, None])
