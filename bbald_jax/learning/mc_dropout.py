"""Sampling predictions: K functions drawn from a posterior, applied to every point."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bbald_jax.learning.models import Model, Params
from bbald_jax.typing import Key, LogProbs


def sample_mc_dropout(
    key: Key, model: Model, params: Params, x: Float[Array, "N ..."], *, num_samples: int
) -> LogProbs:
    """Consistent MC dropout: the predictions of K networks drawn by dropout, for N points.

    log_probs[n, k, :] = log_softmax(model.apply(params, x_n, key_k))

    Sample k is the same network for every point, whatever chunk the point comes in; joint
    entropies mean nothing otherwise.

    Args:
      key: K keys, one a network, are split from it.
      model: see `Model`.
      params: its parameters.
      x: `[N, ...]`.
      num_samples: K (static).

    Returns:
      `[N, K, C]`. Memory beside input and output: on a CPU twice the activations of 64 points under
      one network (factored: of one point, or of 300 pairs of a point and a network); on an
      accelerator those of at most 16,384 pairs, or one point.

    Source: Gal, Islam, Ghahramani (2017), section 3; consistency: Kirsch, van Amersfoort, Gal
    (2019), section 4.1.
    """
    keys = jax.random.split(key, num_samples)
    is_cpu = jax.default_backend() == "cpu"
    chunk_size = 64 if is_cpu else max(1, min(64, 16_384 // num_samples))
    draw = partial(_draw, model.apply)
    if model.draw is not None:
        draw = model.draw
        if is_cpu:  # all networks at once, as many pairs as leave their activations small
            chunk_size = max(1, min(8, 300 // num_samples))
    networks = draw(params, keys)
    return map_chunks(
        lambda points: jax.nn.log_softmax(networks(points), axis=-1), x, chunk_size=chunk_size
    )


def _draw(apply: Callable[..., Array], params: Params, keys: Array) -> Callable[[Array], Array]:
    """`Model.draw` of any network: `apply` with each key."""

    def networks(points: Float[Array, "n ..."]) -> Float[Array, "n K C"]:
        return jnp.swapaxes(map_each(lambda key: apply(params, points, key), keys), 0, 1)

    return networks


def map_each(function: Callable[..., Any], xs: Any) -> Any:
    """`function` of each slice of `xs` along its leading axis, results stacked.

    On a CPU one after another, so that its intermediate results stay in the cache; an accelerator
    wants them all at once.
    """
    if jax.default_backend() == "cpu":
        return lax.map(function, xs)
    return jax.vmap(function)(xs)


def map_chunks(function, x: Float[Array, "N ..."], *, chunk_size: int) -> Array:
    """`function(x)` for a function that maps `[n, ...]` to `[n, ...]`, `chunk_size` rows at a time.

    Works like one call on all rows, whatever N is: the last chunk is moved back to end with the
    array, and what it computes again is the same. On a CPU there are two chunks an iteration,
    which do not wait for one another: enough work for a second thread.
    """
    num_points = x.shape[0]
    chunk_size = min(chunk_size, num_points)
    num_chunks = -(-num_points // chunk_size)
    at_once = min(2, num_chunks) if jax.default_backend() == "cpu" else 1
    out = jax.eval_shape(function, jax.ShapeDtypeStruct((chunk_size, *x.shape[1:]), x.dtype))
    result = jnp.zeros((num_points, *out.shape[1:]), out.dtype)

    def add_chunks(i, result):
        starts = [
            jnp.minimum((i * at_once + j) * chunk_size, num_points - chunk_size)
            for j in range(at_once)
        ]
        chunks = [function(lax.dynamic_slice_in_dim(x, start, chunk_size)) for start in starts]
        for start, chunk in zip(starts, chunks, strict=True):
            result = lax.dynamic_update_slice_in_dim(result, chunk, start, 0)
        return result

    return lax.fori_loop(0, -(-num_chunks // at_once), add_chunks, result)
