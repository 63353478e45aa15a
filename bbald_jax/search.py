"""The best gains of a pool, without evaluating the candidates that cannot win.

Every candidate has an upper bound (`bounds.py`), first on the coarsest merged tree, then, where
that does not rule it out, on finer ones. What is left is evaluated on the tree itself, best bound
first, until the best gains exceed every bound that remains.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.bounds import ladder
from bbald_jax.configurations import Candidates, Configurations, Posteriors, gains, posteriors
from bbald_jax.typing import Available

_BLOCK = 64
# Gains that differ by less are told apart only by rounding, and gains below it are none.
_SLACK = 1e-6


class BestGains(NamedTuple):
    """The k best gains, best first, lowest index first among equals.

    Attributes:
      indices: `[k]` int32; what stands beside a gain of `-inf` means nothing.
      gains: `[k]`; `-inf` where there are fewer than k candidates.
      bounds: `[N]`, upper bounds on all gains (exact where they were evaluated), `-inf` for those
        that are not available.
      work: `[]`, evaluations of one candidate on one node.
    """

    indices: Int[Array, "k"]
    gains: Float[Array, "k"]
    bounds: Float[Array, "N"]
    work: Float[Array, ""]


def best_gains(
    tree: Configurations,
    pool: Candidates,
    available: Available,
    *,
    num_best: int,
    num_wanted: Int[Array, ""],
    tolerance: Float[Array, ""],
    hint: Float[Array, "N"],
    use_bounds: bool,
) -> BestGains:
    """The available points of highest gain: those of a dense evaluation, for less work.

    Args:
      tree: the configurations of the points chosen so far.
      pool: all candidates.
      available: which of them may be chosen.
      num_best: k, how many are returned (static).
      num_wanted: how many of those k must be the right ones.
      tolerance: points may be missed whose gains exceed the last wanted one's by less; 0 misses
        none.
      hint: an order in which good candidates come early; any will do.
      use_bounds: without them, every candidate is evaluated (static).
    """
    num_points = available.shape[0]
    num_best = min(num_best, num_points)
    exact_tree = posteriors(tree)
    block = min(num_points, max(_BLOCK, num_best))

    def evaluate(bounds, exact, work, order):
        """Exact gains of the block of candidates that stand first in `order`."""
        _, block_indices = lax.top_k(order, block)
        block_gains = gains(exact_tree, _take(pool, block_indices))
        block_gains = jnp.where(available[block_indices], block_gains, -jnp.inf)
        exact = exact.at[block_indices].set(block_gains)
        return bounds.at[block_indices].set(-jnp.inf), exact, work + block * exact_tree.size

    def threshold(exact):
        """Only what can rise above it is worth evaluating."""
        last_wanted = lax.top_k(exact, num_best)[0][jnp.minimum(num_wanted, num_best) - 1]
        return jnp.maximum(last_wanted + tolerance - _SLACK, _SLACK)

    exact = jnp.full(num_points, -jnp.inf, pool.probs.dtype)
    work = jnp.zeros((), pool.probs.dtype)
    bounds = jnp.where(available, jnp.inf, -jnp.inf).astype(exact.dtype)
    levels = [posteriors(level) for level in ladder(tree)] if use_bounds else []
    if levels:
        *finer, coarsest = levels
        bounds = jnp.where(available, gains(coarsest, pool), bounds)
        work += num_points * coarsest.size.astype(work.dtype)
        bounds, exact, work = evaluate(bounds, exact, work, jnp.minimum(bounds, hint))
        # Padded to one shape, so that one loop serves all levels, coarse to fine.
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves[::-1]), *map(_pad_to(finer[0]), finer)
        )

        def refine(i, state):
            bounds, work = state
            level = jax.tree.map(lambda leaf: leaf[i], stacked)
            return _refine(level, pool, bounds, work, threshold(exact))

        bounds, work = lax.fori_loop(0, len(finer), refine, (bounds, work))

    bounds, exact, work = lax.while_loop(
        lambda state: jnp.max(state[0]) > threshold(state[1]),
        lambda state: evaluate(*state, order=state[0]),
        (bounds, exact, work),
    )
    best, indices = lax.top_k(exact, num_best)
    # Evaluated candidates have no bound left, the others no exact gain.
    return BestGains(indices.astype(jnp.int32), best, jnp.maximum(bounds, exact), work)


def _pad_to(largest: Posteriors) -> Callable[[Posteriors], Posteriors]:
    """Fill the weights of a level with nodes of no mass, up to the shape of the largest."""

    def pad(level: Posteriors) -> Posteriors:
        missing = largest.masses.size - level.masses.size
        return level._replace(
            weights=jnp.pad(level.weights, ((0, missing), (0, 0))),
            masses=jnp.pad(level.masses, (0, missing)),
        )

    return pad


def _refine(
    level: Posteriors,
    pool: Candidates,
    bounds: Float[Array, "N"],
    work: Float[Array, ""],
    threshold: Float[Array, ""],
) -> tuple[Float[Array, "N"], Float[Array, ""]]:
    """Replace the bounds above `threshold` by those of `level`, where these are tighter."""
    num_points = bounds.shape[0]
    block = min(num_points, _BLOCK)
    is_alive = bounds > threshold
    num_blocks = -(-jnp.sum(is_alive) // block)
    alive = jnp.nonzero(is_alive, size=num_points, fill_value=num_points)[0]

    def refine_block(i, bounds):
        # The last block is moved back to end with the array; what it repeats does no harm.
        start = jnp.minimum(i * block, num_points - block)
        indices = lax.dynamic_slice_in_dim(alive, start, block)
        return bounds.at[indices].min(gains(level, _take(pool, indices)), mode="drop")

    bounds = lax.fori_loop(0, num_blocks, refine_block, bounds)
    # In floats: a million points on thousands of groups are too many for int32.
    return bounds, work + (num_blocks * block).astype(work.dtype) * level.size


def _take(pool: Candidates, indices: Int[Array, "block"]) -> Candidates:
    return Candidates(
        pool.probs.at[indices].get(mode="clip"), pool.entropies.at[indices].get(mode="clip")
    )
