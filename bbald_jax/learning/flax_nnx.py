"""The `Model` of a flax nnx module."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from bbald_jax.learning.model import Model, Params
from bbald_jax.typing import Key


class _Structure(NamedTuple):
    """All of a module but its numbers.

    Attributes:
      graph: what `nnx.split` gives first.
      streams: the shapes and dtypes of its random streams.
      num_statistics: arrays of batch statistics.
      takes_rngs: whether it is called with `rngs`.
    """

    graph: Any
    streams: Any
    num_statistics: int
    takes_rngs: bool


def nnx_model(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """The `Model` of a flax nnx module, called as `module(x)` or `module(x, rngs=rngs)`.

    Consistent MC dropout by construction, as in `flax_model`: with a key, each point goes through
    the network alone, and all of its random streams start from that key. Only what has an
    attribute `deterministic` (dropout, and attention's) becomes stochastic: batch normalisation
    predicts by its running statistics, which are kept with the parameters, and which no gradient
    reaches.

    Args:
      make: `make(rngs) -> module`, a new module each time; it may return a trained one.

    Raises:
      ValueError: from `init`, where a batch normalisation was never trained: fitting would leave
        its statistics as they are.
    """

    @functools.cache
    def structure() -> _Structure:
        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        graph, streams, _, others = nnx.split(module, nnx.RngState, nnx.Param, ...)
        leaves, treedef = jax.tree.flatten(streams)
        parameters = inspect.signature(type(module).__call__).parameters
        num_statistics = len(jax.tree.leaves(nnx.filter_state(others, nnx.BatchStat)))
        return _Structure(graph, (leaves, treedef), num_statistics, "rngs" in parameters)

    def init(key: Key, x: Array) -> Params:
        del x  # nnx modules know the shapes of their inputs
        if structure().num_statistics:
            with jax.ensure_compile_time_eval():  # values, under jit too
                _refuse_untrained(make(nnx.Rngs(0)))
        module = make(nnx.Rngs(key))
        _, _, params, others = nnx.split(module, nnx.RngState, nnx.Param, ...)
        for leaf in jax.tree.leaves(others):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"{type(module).__name__}: holds a variable of dtype {leaf.dtype}, which has "
                    "no gradient; make it a plain array, or a variable of floats"
                )
        return {"params": params, "others": others}

    def module_of(params: Params, key: Key | None) -> Callable[[Array], Array]:
        graph, (leaves, treedef), _, takes_rngs = structure()
        is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
        base = jax.random.key(0) if key is None else key
        # Every stream gets a key of its own, whatever its name: `nnx.reseed` knows only streams
        # that were made under the name that it is given.
        streams = jax.tree.unflatten(
            treedef,
            [
                jax.random.split(jax.random.fold_in(base, i), leaf.shape)
                if leaf_is_key
                else jnp.zeros(leaf.shape, leaf.dtype)
                for i, (leaf, leaf_is_key) in enumerate(zip(leaves, is_key, strict=True))
            ],
        )
        # New variables: those of one trace must not be set in another.
        trained = jax.tree.map(lambda leaf: leaf, params["params"])
        module = nnx.merge(graph, streams, trained, jax.lax.stop_gradient(params["others"]))
        module.set_attributes(
            deterministic=key is None, use_running_average=True, raise_if_not_found=False
        )
        called: Any = module
        if not takes_rngs:
            return called
        rngs = nnx.Rngs(jax.random.fold_in(base, len(leaves)))
        return lambda x: called(x, rngs=rngs)

    def apply(params: Params, x: Float[Array, "n ..."], key: Key | None = None) -> Array:
        if key is None:
            return module_of(params, None)(x)
        return jax.vmap(lambda point: module_of(params, key)(point[None])[0])(x)

    return Model(init, apply)


def _refuse_untrained(module: nnx.Module) -> None:
    """Means that are all 0 and variances that are all 1 are those of a new module."""
    for path, layer in nnx.iter_graph(module):
        if isinstance(layer, nnx.BatchNorm) and bool(
            jnp.all(layer.mean[...] == 0) & jnp.all(layer.var[...] == 1)
        ):
            name = ".".join(map(str, path))
            raise ValueError(
                f"{type(module).__name__}: the batch normalisation {name!r} was never trained, and "
                "fitting keeps its statistics as they are; use nnx.LayerNorm or nnx.GroupNorm, or "
                "return a trained module from make"
            )
