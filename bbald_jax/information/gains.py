"""What one more point would add to the joint mutual information of those in a tree.

It is the point's mutual information under the posterior of each configuration, averaged (the chain
rule, I[y_S, y_n; w] - I[y_S; w]):

    gain(n) = sum_m v[m] ( H[ sum_k w[m,k] p(. | x_n, w_k) ] - sum_k w[m,k] H[ p(. | x_n, w_k) ] )

The first term is a matrix product `[M, K] x [K, N C]` and a logarithm of every element of it: all
the cost of BatchBALD. The second needs only the average posterior, `sum_m v[m] w[m, k]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.information.configurations import Configurations
from bbald_jax.information.entropy import plogp, xlogx
from bbald_jax.tiling import tiling
from bbald_jax.typing import LogProbs

# The coarsest of the merged trees have fewer configurations than this: one tile holds them.
_FEWEST_ROWS = 256
_MOST_ROWS = 1024


class Candidates(NamedTuple):
    """What the gains of a pool are computed from, the same in every step.

    Attributes:
      probs: `[N, C, K]`, p(y=c | x_n, w_k): K last, as a matrix product wants it.
      entropies: `[N, K]`, H[p(. | x_n, w_k)] in nats.
    """

    probs: Float[Array, "N C K"]
    entropies: Float[Array, "N K"]


def candidates(log_probs: LogProbs) -> Candidates:
    """Probabilities and entropies of a pool: `N K (C + 1)` floats."""
    return Candidates(jnp.exp(jnp.swapaxes(log_probs, 1, 2)), -jnp.sum(plogp(log_probs), axis=-1))


def take(pool: Candidates, indices: Int[Array, "block"]) -> Candidates:
    """Some of the candidates; an index beyond the last stands for the last."""
    return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="clip"), pool)


def gains(tree: Configurations, pool: Candidates, *, rows: int | None = None) -> Float[Array, "N"]:
    """The gain of every candidate.

    gain(n) = sum_m v[m] ( H[ sum_k w[m,k] p(. | x_n, w_k) ] - sum_k w[m,k] H[ p(. | x_n, w_k) ] )

    Args:
      tree: the configurations.
      pool: the candidates.
      rows: configurations of a tile (static), for trees that may be much smaller than their
        capacity; by default so many that few tiles are needed.

    Returns:
      `[N]`, nats; exact while the tree is. Zero when no configuration is left (K = 1, or all
      settled). Memory: one tile of `[configurations, points, C]`.
    """
    num_points, num_classes, _ = pool.probs.shape
    capacity = tree.masses.shape[0]
    # An eighth part of a tree on average is left empty: its last tile's.
    fewest = rows or min(capacity, max(_FEWEST_ROWS, min(_MOST_ROWS, capacity // 4)))
    block = min(num_points, max(1, tiling().predictive // (fewest * num_classes)))
    # As many configurations as there is room for beside these points, in tiles of one size.
    most = max(1, tiling().predictive // (block * num_classes))
    tile = min(capacity, rows or -(-capacity // -(-capacity // most)))

    def evaluate_block(i, all_gains):
        start = jnp.minimum(i * block, num_points - block)
        probs = lax.dynamic_slice_in_dim(pool.probs, start, block)
        entropies = lax.dynamic_slice_in_dim(pool.entropies, start, block)
        conditional = jnp.matmul(entropies, tree.mean, precision=lax.Precision.HIGHEST)
        gain = _expected_predictive_entropy(tree, probs, tile) - conditional
        return lax.dynamic_update_slice_in_dim(all_gains, gain, start, 0)

    num_blocks = -(-num_points // block)
    return lax.fori_loop(0, num_blocks, evaluate_block, jnp.zeros(num_points, pool.probs.dtype))


def _expected_predictive_entropy(
    tree: Configurations, probs: Float[Array, "block C K"], tile: int
) -> Float[Array, "block"]:
    """`sum_m v[m] H[ sum_k w[m,k] p(. | x_n, w_k) ]`, a tile of configurations at a time."""
    block, num_classes, num_samples = probs.shape
    outcomes = probs.reshape(block * num_classes, num_samples)
    capacity = tree.masses.shape[0]

    def add_tile(i, total):
        # The last tile is moved back to end with the array; what it repeats weighs nothing.
        start = jnp.minimum(i * tile, capacity - tile)
        is_new = start + jnp.arange(tile) >= i * tile
        masses = jnp.where(is_new, lax.dynamic_slice_in_dim(tree.masses, start, tile), 0)
        weights = lax.dynamic_slice_in_dim(tree.weights, start, tile)
        predictive = jnp.matmul(weights, outcomes.T, precision=lax.Precision.HIGHEST)
        return total - jnp.matmul(masses, _fast_xlogx(predictive), precision=lax.Precision.HIGHEST)

    num_tiles = -(-tree.size // tile)
    total = lax.fori_loop(0, num_tiles, add_tile, jnp.zeros(block * num_classes, probs.dtype))
    return jnp.sum(total.reshape(block, num_classes), axis=-1)


def _fast_xlogx(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`xlogx`, with a cheaper logarithm on a CPU: see `benchmarks/profile_scoring.py`."""
    if x.dtype != jnp.float32:
        return xlogx(x)
    return lax.platform_dependent(x, cpu=lambda x: x * _log(x), default=xlogx)


# log(1 + z) / z on [sqrt(1/2) - 1, sqrt(2) - 1], interpolated at Chebyshev nodes.
_LOG_COEFFICIENTS = (
    0.087439455,
    -0.1437733,
    0.14949095,
    -0.16560696,
    0.19956978,
    -0.25002155,
    0.33334184,
    -0.49999988,
    1.0,
)


def _log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Natural logarithm of float32 without special cases: `x log x` is right to 6e-8 on [0, 1].

    x = 2^e (1 + z), so log x = e log 2 + log(1 + z). At zero it is finite, so 0 log 0 is 0.
    """
    bits = lax.bitcast_convert_type(x, jnp.int32)
    # Counted from sqrt(1/2), which centres 1 + z around one.
    exponent = (bits - np.float32(0.5**0.5).view(np.int32)) >> 23
    z = lax.bitcast_convert_type(bits - (exponent << 23), jnp.float32) - 1
    ratio = jnp.zeros_like(z)
    for coefficient in _LOG_COEFFICIENTS:
        ratio = ratio * z + coefficient
    return exponent * np.float32(np.log(2)) + z * ratio
