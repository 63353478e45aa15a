"""Where a mask is true, in an array whose size does not depend on the mask."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def true_positions(mask: Bool[Array, "N"], *, size: int, fill_value: int) -> Int[Array, "size"]:
    """The first `size` positions where the mask is true, in order, padded with `fill_value`.

    `jnp.nonzero` does it in two cumulative sums, which take XLA long to compile.
    """
    # In uint32, as the other long sum of the engine: XLA compiles equal kernels once.
    counts = jnp.cumsum(mask, dtype=jnp.uint32).astype(jnp.int32)
    places = jnp.where(mask, counts - 1, size)
    positions = jnp.arange(mask.shape[0], dtype=jnp.int32)
    return jnp.full(size, fill_value, jnp.int32).at[places].set(positions, mode="drop")


def count(mask: Bool[Array, "*shape"]) -> Int[Array, ""]:
    """How often the mask is true.

    A sum of float32, exact up to 2^24, takes XLA a third of the time to compile on a CPU.
    """
    if mask.size > 2**24:
        return jnp.sum(mask, dtype=jnp.int32)
    return jnp.sum(mask.astype(jnp.float32)).astype(jnp.int32)
