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

from bbald_jax.learning.convolution import Conv, max_pool, max_pool_forward
from bbald_jax.typing import Key

Params = Any


class Model(NamedTuple):
    """A stochastic network, as pure functions; the last two only make it faster.

    Attributes:
      init: `init(key, x) -> params`, for inputs like `x [n, ...]`.
      apply: `apply(params, x, key=None) -> logits [n, C]`. With a key it is *one function drawn
        from the posterior*, the same for all n points (consistent MC dropout), whatever chunks
        they come in; without, the deterministic network.
      apply_each: `apply_each(params, x, key) -> logits [n, C]`, each point by a function of its
        own, for training. None: `apply` with a key for each point.
      draw: `draw(params, keys [K]) -> (x -> logits [n, K, C])`, the K functions that `apply` is
        with these keys, as one function. None: `apply` with one key after the other.
    """

    init: Callable[[Key, Array], Params]
    apply: Callable[..., Array]
    apply_each: Callable[[Params, Array, Key], Array] | None = None
    draw: Callable[[Params, Array], Callable[[Array], Array]] | None = None


class FactoredModule(nn.Module):
    """A flax module that applies K dropout masks together, for less than K times the work of one.

    A subclass defines `masks` and `apply_masks` beside `__call__`. What makes it fast is that a
    mask (non-negative numbers, one a channel) may be applied later than it is drawn: relu and
    max-pooling act on each channel alone and commute with non-negative factors,

      relu(pool(m * h)) = m * relu(pool(h)),

    and the layer that comes next is linear in its input channels (see `Conv` with `masks`). So
    all before the first mask is computed once, and that layer once for each channel.

    In training it is applied to a whole minibatch: its dropout must draw a mask for each point
    there, as `nn.Dropout` does (unless the first axis is among its `broadcast_dims`).
    """

    def masks(self) -> Any:
        """The masks that `__call__` would apply now: a pytree of arrays; drawn by `nn.Dropout`."""
        raise NotImplementedError

    def apply_masks(self, x: Float[Array, "n ..."], masks: Any) -> Float[Array, "K n C"]:
        """The logits of `__call__` under each of K masks (a leading axis K on every leaf)."""
        raise NotImplementedError


def flax_model(module: nn.Module) -> Model:
    """The `Model` of a flax linen module with `__call__(x, *, deterministic: bool) -> logits`.

    Consistent MC dropout by construction: with a key, each point goes through the network alone
    (`vmap` over batches of one), under the same key. The masks do not depend on the points, so
    they are drawn once and shared, and any `nn.Dropout`, however deep, is consistent without
    knowing it.

    Args:
      module: its dropout draws from the rng collection "dropout". (A linen mask depends on the
        name of its module: renaming a layer changes the posterior samples.) A `FactoredModule`
        gives a faster `Model`.
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

    def apply_each(params: Params, x: Float[Array, "n ..."], key: Key) -> Array:
        # In one call flax draws a mask for each point.
        return cast(Array, module.apply(params, x, deterministic=False, rngs={"dropout": key}))

    def draw(params: Params, keys: Array) -> Callable[[Array], Array]:
        def masks(key: Key) -> Any:
            return module.apply(params, method="masks", rngs={"dropout": key})

        drawn = jax.vmap(masks)(keys)

        def networks(x: Float[Array, "n ..."]) -> Float[Array, "n K C"]:
            logits = cast(Array, module.apply(params, x, drawn, method="apply_masks"))
            return jnp.swapaxes(logits, 0, 1)

        return networks

    if isinstance(module, FactoredModule):
        return Model(init, apply, apply_each, draw)
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
