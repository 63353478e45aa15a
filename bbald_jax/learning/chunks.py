"""Mapping a function over slices or chunks of an array, as the device likes it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def map_each(function: Callable[..., Any], xs: Any) -> Any:
    """`function` of each slice of `xs` along its leading axis, results stacked.

    On a CPU one after another, so that its intermediate results stay in the cache; an accelerator
    wants them all at once.
    """
    if jax.default_backend() == "cpu":
        return lax.map(function, xs)
    return jax.vmap(function)(xs)


def map_chunks(function, x: Float[Array, "N ..."], *, chunk_size: int) -> Any:
    """`function(x)` for a function that maps `[n, ...]` to `[n, ...]`, `chunk_size` rows at a time.

    Its result may be a tuple of such arrays.

    Works like one call on all rows, whatever N is: the last chunk is moved back to end with the
    array, and what it computes again is the same. On a CPU there are two chunks an iteration,
    which do not wait for one another: enough work for a second thread.
    """
    num_points = x.shape[0]
    chunk_size = min(chunk_size, num_points)
    num_chunks = -(-num_points // chunk_size)
    at_once = min(2, num_chunks) if jax.default_backend() == "cpu" else 1
    out = jax.eval_shape(function, jax.ShapeDtypeStruct((chunk_size, *x.shape[1:]), x.dtype))
    result = jax.tree.map(lambda leaf: jnp.zeros((num_points, *leaf.shape[1:]), leaf.dtype), out)

    def add_chunks(i, result):
        starts = [
            jnp.minimum((i * at_once + j) * chunk_size, num_points - chunk_size)
            for j in range(at_once)
        ]
        chunks = [function(lax.dynamic_slice_in_dim(x, start, chunk_size)) for start in starts]
        for start, chunk in zip(starts, chunks, strict=True):
            update = partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
            result = jax.tree.map(update, result, chunk)
        return result

    return lax.fori_loop(0, -(-num_chunks // at_once), add_chunks, result)
