"""The `Model` of a flax linen module, however its dropout is nested.

A network is an ordinary flax module whose `__call__(x, *, deterministic)` uses `nn.Dropout`;
`flax_model` makes it a `Model`, in which one key is one function.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.learning.model import Model, Params
from bbald_jax.typing import Key


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
        gives a faster `Model`. It has parameters and no other variables: no batch normalisation,
        whose averages training would not update, and under which points are not independent.

    Raises:
      ValueError: what is given is no instance of a linen module; from `init`, that the module has
        other variables than parameters, or that its output is no `[n, C]`.
    """
    _check_module(module)

    def init(key: Key, x: Array) -> Params:
        logits, variables = module.init_with_output(key, x, deterministic=True)
        _check_variables(module, variables)
        if jnp.ndim(logits) != 2 or len(logits) != len(x):
            raise ValueError(
                f"flax_model: {type(module).__name__} gives {jnp.shape(logits)} for {len(x)} "
                "points; return logits [n, C], a row for each point"
            )
        return variables

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


def _check_module(module: Any) -> None:
    if isinstance(module, nn.Module):
        return
    cls = module if isinstance(module, type) else type(module)
    if any(parent.__module__.startswith("flax.nnx") for parent in cls.__mro__):
        fix = "an nnx module: pass a function that makes one to bb.nnx_model"
    elif issubclass(cls, nn.Module):
        fix = f"a class: pass an instance, such as {cls.__name__}(...)"
    else:
        fix = "no flax linen module: pass an instance of a subclass of flax.linen.Module"
    raise ValueError(f"flax_model: {cls.__name__} is {fix}")


def _check_variables(module: nn.Module, variables: Any) -> None:
    if others := sorted(set(variables) - {"params"}):
        fix = "keep nothing but parameters in it"
        if "batch_stats" in others:
            fix = "use nn.LayerNorm or nn.GroupNorm instead of batch normalisation"
        raise ValueError(
            f"flax_model: {type(module).__name__} has the variables {', '.join(others)} beside its "
            f"parameters, and training would not update them; {fix}"
        )
