"""MC-dropout networks: functions drawn from an approximate posterior.

A network is an ordinary flax module whose `__call__(x, *, deterministic)` uses `nn.Dropout`;
`flax_model` makes it a `Model`, in which one key is one function.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.typing import Key

Params = Any


class Model(NamedTuple):
    """A stochastic network, as two pure functions.

    Attributes:
      init: `init(key, x) -> params`, for inputs like `x [n, ...]`.
      apply: `apply(params, x, key=None) -> logits [n, C]`. With a key it is *one function drawn
        from the posterior*, the same for all n points (consistent MC dropout), whatever chunks
        they come in; without, the deterministic network.
    """

    init: Callable[[Key, Array], Params]
    apply: Callable[..., Array]


def flax_model(module: nn.Module) -> Model:
    """The `Model` of a flax linen module with `__call__(x, *, deterministic: bool) -> logits`.

    Consistent MC dropout by construction: with a key, each point goes through the network alone
    (`vmap` over batches of one), under the same key. The masks do not depend on the points, so
    they are drawn once and shared, and any `nn.Dropout`, however deep, is consistent without
    knowing it.

    Args:
      module: its dropout draws from the rng collection "dropout". (A linen mask depends on the
        name of its module: renaming a layer changes the posterior samples.)
    """

    def init(key: Key, x: Array) -> Params:
        return module.init(key, x, deterministic=True)

    def apply(params: Params, x: Float[Array, "n ..."], key: Key | None = None) -> Array:
        if key is None:
            return cast(Array, module.apply(params, x, deterministic=True))

        def apply_to_one(point: Array) -> Array:
            logits = module.apply(params, point[None], deterministic=False, rngs={"dropout": key})
            return logits[0]

        return jax.vmap(apply_to_one)(x)

    return Model(init, apply)


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


class PaperCNN(nn.Module):
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

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, deterministic: bool) -> Float[Array, "n C"]:
        """Logits of images."""

        def channel_dropout(x: Array) -> Array:
            dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))
            return dropout(x, deterministic=deterministic)

        x = nn.relu(_max_pool(channel_dropout(ConvByPatches(32)(x))))
        x = nn.relu(_max_pool(channel_dropout(ConvByPatches(64)(x))))
        x = nn.Dense(128)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.Dropout(self.dropout_rate)(x, deterministic=deterministic))
        return nn.Dense(self.num_classes)(x)


class ConvByPatches(nn.Module):
    """A 5x5 convolution without padding, as one matrix product over all its patches.

    The same function as `nn.Conv(features, (5, 5), padding="VALID")`. XLA's own weight gradient
    of a convolution inside a loop is tens of times slower on a CPU.

    Attributes:
      features: output channels.
    """

    features: int
    kernel_size: int = 5

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        """The convolution of images in NHWC order."""
        size = self.kernel_size
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        shifted = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        return nn.Dense(self.features)(jnp.concatenate(shifted, axis=-1))


def _max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Max-pooling by 2, as a reshape: the gradient of `reduce_window` is slow on a CPU."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
