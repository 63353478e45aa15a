"""The `Model` of an equinox module."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.learning.model import Model, Params
from bbald_jax.typing import Key


def equinox_model(make: Callable[[Key], Any]) -> Model:
    """The `Model` of an equinox module, called as `module(x, key=key)` for one point.

    Consistent MC dropout by construction: with a key, each point goes through the network under
    that same key. Without, the module is in inference mode, in which its key does not matter.

    Args:
      make: `make(key) -> module`, a new module each time; it may return a trained one.

    Raises:
      ImportError: equinox is not installed.
      ValueError: from `init` and `apply`: the module keeps state (batch normalisation does), or
        holds arrays that no gradient can reach.
    """
    try:
        eqx: Any = importlib.import_module("equinox")
    except ImportError as error:
        raise ImportError(
            "equinox is not installed: pip install 'bbald_jax[equinox]'", name="equinox"
        ) from error

    def is_state(leaf: Any) -> bool:
        return isinstance(leaf, eqx.nn.StateIndex)

    @functools.cache
    def static() -> Any:
        """All of the module but its parameters."""
        module = eqx.filter_eval_shape(make, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(module, is_leaf=is_state):
            where = f"{type(module).__name__}{jax.tree_util.keystr(path)}"
            if is_state(leaf):
                raise ValueError(
                    f"{where}: a layer that keeps state, which fitting would not update; use "
                    "eqx.nn.LayerNorm or eqx.nn.GroupNorm in place of batch normalisation"
                )
            if _is_array(leaf) and not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"{where}: no gradient reaches an array of {leaf.dtype}; make it a tuple of "
                    "numbers, or compute it where the module is called"
                )
        return eqx.filter(module, _is_array, inverse=True)

    def init(key: Key, x: Array) -> Params:
        del x  # equinox modules know the shapes of their inputs
        static()  # refuses what cannot be fitted
        return eqx.filter(make(key), eqx.is_array)

    def apply(params: Params, x: Float[Array, "n ..."], key: Key | None = None) -> Array:
        module = eqx.nn.inference_mode(eqx.combine(params, static()), value=key is None)
        same = jax.random.key(0) if key is None else key
        return jax.vmap(lambda point: module(point, key=same))(x)

    return Model(init, apply)


def _is_array(leaf: Any) -> bool:
    """What `filter_eval_shape` leaves of an array."""
    return isinstance(leaf, jax.ShapeDtypeStruct)
