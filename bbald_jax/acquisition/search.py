"""The best gains of a pool, without evaluating the candidates that cannot win.

Every candidate has an upper bound (`bounds.py`), first on the coarsest merged tree, then, where
that does not rule it out, on finer ones. What is left is evaluated on the tree itself, best bound
first, until the best gains exceed every bound that remains.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.acquisition.bounds import SMALL, ladder
from bbald_jax.information.configurations import Configurations, first_nodes
from bbald_jax.information.gains import Candidates, gains, points_per_tile, take
from bbald_jax.tiling import tiling
from bbald_jax.typing import Available

# Blocks of candidates that are put in order at a time.
_BLOCKS = 32
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
      use_bounds: without them, candidates are evaluated in any order (static).
    """
    num_points = available.shape[0]
    num_best = min(num_best, num_points)
    block = min(num_points, tiling().block)

    def threshold(best):
        """Only what can rise above it is worth evaluating, once these are the best gains."""
        is_enough = jnp.sum(jnp.maximum(best, 0)) >= enough
        wanted = jnp.where(is_enough, num_needed, jnp.minimum(num_wanted, num_best))
        last_wanted = jnp.where(wanted > 0, best[wanted - 1], jnp.inf)
        return jnp.maximum(last_wanted + tolerance - _SLACK, _SLACK)

    def evaluate(state: _State, order: Float[Array, "N"], most: int) -> _State:
        """Exact gains of the `most` candidates that stand first, a block after the other.

        The first block is always evaluated; it ends before another that stands below the
        threshold. Nothing that is done once a block takes time that grows with N.
        """
        values, indices = lax.top_k(order, most)

        def can_win(inner):
            i, best, _ = inner
            first = values[jnp.minimum(i * block, most - 1)]
            return (i == 0) | ((i * block < most) & (first > threshold(best)))

        def evaluate_block(inner):
            i, best, exact = inner
            # The last block is moved back to end with the array. What it repeats is left out, and
            # what has no bound: it was evaluated before, or is not available.
            start = jnp.minimum(i * block, most - block)
            is_open = lax.dynamic_slice_in_dim(values, start, block) > -jnp.inf
            is_open &= start + jnp.arange(block) >= i * block
            now = lax.dynamic_slice_in_dim(indices, start, block)
            known = lax.dynamic_slice_in_dim(exact, start, block)
            block_gains = gains(tree, take(pool, now))
            new_gains = jnp.where(is_open, block_gains, -jnp.inf)
            best = lax.top_k(jnp.concatenate([best, new_gains]), num_best)[0]
            known = jnp.where(is_open, block_gains, known)
            return i + 1, best, lax.dynamic_update_slice_in_dim(exact, known, start, 0)

        start = (jnp.int32(0), state.best, state.exact[indices])
        i, best, exact = lax.while_loop(can_win, evaluate_block, start)
        is_evaluated = jnp.arange(most) < i * block
        return _State(
            bounds=state.bounds.at[indices].set(
                jnp.where(is_evaluated, -jnp.inf, state.bounds[indices])
            ),
            exact=state.exact.at[indices].set(exact),
            best=best,
            work=state.work + i * block * tree.size,
        )

    def evaluate_all(state: _State) -> _State:
        """On a tree of few nodes, that costs less than bounds."""
        exact = jnp.where(available, gains(first_nodes(tree, _FEW), pool), -jnp.inf)
        return _State(
            bounds=jnp.full_like(exact, -jnp.inf),
            exact=exact,
            best=lax.top_k(exact, num_best)[0],
            work=state.work + num_points * tree.size.astype(state.work.dtype),
        )

    def evaluate_some(state: _State) -> _State:
        """The first gains, from which on there is something to exceed; then bounds."""
        state = evaluate(state, jnp.minimum(state.bounds, hint), block)
        return lax.cond(threshold(state.best) < jnp.inf, refine, lambda state: state, state)

    def refine(state: _State) -> _State:
        """Bounds, coarse to fine, for what can still win."""
        *finer, coarsest = ladder(tree)
        # Not of a point that is not available: its gain may be NaN.
        bounds = jnp.minimum(state.bounds, gains(coarsest, pool))
        bounds = jnp.where(available, bounds, -jnp.inf)
        work = state.work + num_points * coarsest.size.astype(state.work.dtype)
        for level in reversed(finer):
            bounds, work = _refine(level, pool, bounds, work, threshold(state.best))
        return state._replace(bounds=bounds, work=work)

    dtype = pool.probs.dtype
    state = _State(
        bounds=jnp.where(available, jnp.inf, -jnp.inf).astype(dtype),
        exact=jnp.full(num_points, -jnp.inf, dtype),
        best=jnp.full(num_best, -jnp.inf, dtype),
        # In floats: a million points on thousands of nodes are too many for int32.
        work=jnp.zeros((), dtype),
    )
    if use_bounds and tree.masses.size > SMALL:
        state = lax.cond(tree.size <= _FEW, evaluate_all, evaluate_some, state)
    state = lax.while_loop(
        lambda state: jnp.max(state.bounds) > threshold(state.best),
        lambda state: evaluate(state, state.bounds, min(num_points, _BLOCKS * block)),
        state,
    )
    best, indices = lax.top_k(state.exact, num_best)
    # Evaluated candidates have no bound left, the others no exact gain.
    bounds = jnp.maximum(state.bounds, state.exact)
    return BestGains(indices.astype(jnp.int32), best, bounds, state.work)


class _State(NamedTuple):
    """What is known of the gains: of some exactly, of the others a bound."""

    bounds: Float[Array, "N"]
    exact: Float[Array, "N"]
    best: Float[Array, "k"]
    work: Float[Array, ""]


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
    return bounds, work + (num_blocks * block).astype(work.dtype) * level.size
