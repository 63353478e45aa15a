"""The best gains of a pool, without evaluating the candidates that cannot win.

Every candidate has an upper bound (`bounds.py`), first on the coarsest merged tree, then, where
that does not rule it out, on finer ones. What is left is evaluated on the tree itself, best bound
first, until the best gains exceed every bound that remains.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.bounds import SMALL, ladder
from bbald_jax.configurations import Configurations, first_nodes
from bbald_jax.gains import Candidates, gains, points_per_tile, take
from bbald_jax.tiling import tiling
from bbald_jax.typing import Available

# A tree of so few nodes is evaluated whole.
_FEW = 16
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
    num_needed: Int[Array, ""],
    enough: Float[Array, ""],
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
      num_wanted: how many of those k must be the right ones,
      num_needed: and how many, once k gains are found that add up to `enough`.
      enough: see there.
      tolerance: points may be missed whose gains exceed the last wanted one's by less; 0 misses
        none.
      hint: an order in which good candidates come early; any will do.
      use_bounds: without them, every candidate is evaluated (static).
    """
    num_points = available.shape[0]
    num_best = min(num_best, num_points)
    block = min(num_points, max(tiling().block, num_best))

    def evaluate(bounds, exact, work, order):
        """Exact gains of the block of candidates that stand first in `order`."""
        _, block_indices = lax.top_k(order, block)
        block_gains = gains(tree, take(pool, block_indices))
        block_gains = jnp.where(available[block_indices], block_gains, -jnp.inf)
        exact = exact.at[block_indices].set(block_gains)
        return bounds.at[block_indices].set(-jnp.inf), exact, work + block * tree.size

    def threshold(exact):
        """Only what can rise above it is worth evaluating."""
        best = lax.top_k(exact, num_best)[0]
        is_enough = jnp.sum(jnp.maximum(best, 0)) >= enough
        wanted = jnp.where(is_enough, num_needed, jnp.minimum(num_wanted, num_best))
        last_wanted = jnp.where(wanted > 0, best[wanted - 1], jnp.inf)
        return jnp.maximum(last_wanted + tolerance - _SLACK, _SLACK)

    def refine(state):
        """Bounds, coarse to fine, for what can still win."""
        bounds, exact, work = state
        *finer, coarsest = ladder(tree)
        bounds = jnp.minimum(bounds, gains(coarsest, pool))
        work += num_points * coarsest.size.astype(work.dtype)
        for level in reversed(finer):
            bounds, work = _refine(level, pool, bounds, work, threshold(exact))
        return bounds, exact, work

    def evaluate_and_refine(state):
        bounds, exact, work = state
        # The first gains, from which on there is something to exceed.
        state = evaluate(bounds, exact, work, jnp.minimum(bounds, hint))
        return lax.cond(threshold(state[1]) < jnp.inf, refine, lambda state: state, state)

    def evaluate_all(state):
        """On a tree of few nodes, that costs less than bounds."""
        bounds, _, work = state
        exact = jnp.where(available, gains(first_nodes(tree, _FEW), pool), -jnp.inf)
        work += num_points * tree.size.astype(work.dtype)
        return jnp.full_like(bounds, -jnp.inf), exact, work

    exact = jnp.full(num_points, -jnp.inf, pool.probs.dtype)
    work = jnp.zeros((), pool.probs.dtype)
    bounds = jnp.where(available, jnp.inf, -jnp.inf).astype(exact.dtype)
    if use_bounds and tree.masses.size > SMALL:
        bounds, exact, work = lax.cond(
            tree.size <= _FEW, evaluate_all, evaluate_and_refine, (bounds, exact, work)
        )

    bounds, exact, work = lax.while_loop(
        lambda state: jnp.max(state[0]) > threshold(state[1]),
        lambda state: evaluate(*state, order=state[0]),
        (bounds, exact, work),
    )
    best, indices = lax.top_k(exact, num_best)
    # Evaluated candidates have no bound left, the others no exact gain.
    return BestGains(indices.astype(jnp.int32), best, jnp.maximum(bounds, exact), work)


def _refine(
    level: Configurations,
    pool: Candidates,
    bounds: Float[Array, "N"],
    work: Float[Array, ""],
    threshold: Float[Array, ""],
) -> tuple[Float[Array, "N"], Float[Array, ""]]:
    """Replace the bounds above `threshold` by those of `level`, where these are tighter."""
    num_points, num_classes, _ = pool.probs.shape
    block = min(num_points, points_per_tile(level.masses.shape[0], num_classes))
    is_alive = bounds > threshold
    num_blocks = -(-jnp.sum(is_alive) // block)
    alive = jnp.nonzero(is_alive, size=num_points, fill_value=num_points)[0]

    def refine_block(i, bounds):
        # The last block is moved back to end with the array; what it repeats does no harm.
        start = jnp.minimum(i * block, num_points - block)
        indices = lax.dynamic_slice_in_dim(alive, start, block)
        return bounds.at[indices].min(gains(level, take(pool, indices)), mode="drop")

    bounds = lax.fori_loop(0, num_blocks, refine_block, bounds)
    # In floats: a million points on thousands of groups are too many for int32.
    return bounds, work + (num_blocks * block).astype(work.dtype) * level.size
