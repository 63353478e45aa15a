"""The best gains of a pool, without evaluating the candidates that cannot win.

Every candidate has an upper bound (`bounds.py`), first on the coarsest merged tree, then, where
that does not rule it out, on finer ones. What is left is evaluated on the tree itself, best bound
first, until the best gains exceed every bound that remains.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.bounds import COARSEST, SMALL, ladder
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.ties import SLACK, Priority, first_of_equals
from bbald_jax.information.configurations import Configurations
from bbald_jax.information.gains import Candidates, gains, take
from bbald_jax.masks import count
from bbald_jax.tiling import tiling
from bbald_jax.typing import Available

# Blocks of candidates that are put in order at a time.
_BLOCKS = 32
# Blocks of candidates that are compared with a merged tree at a time.
_REFINED = 4


class BestGains(NamedTuple):
    """The k best gains, and the point to take.

    Attributes:
      chosen: `[]` int32, the point of the best gain: of gains that are equal within `SLACK`, the
        one of highest priority. Means nothing where no point is available.
      gain: `[]`, its gain; `-inf` where no point is available.
      indices: `[k]` int32, of the k best gains, lowest index first among equals; what stands
        beside a gain of `-inf` means nothing.
      gains: `[k]`, best first; `-inf` where there are fewer than k candidates.
      bounds: `[N]`, upper bounds on all gains (exact where they were evaluated), `-inf` for those
        that are not available.
      work: `[]`, evaluations of one candidate on one node.
    """

    chosen: Int[Array, ""]
    gain: Float[Array, ""]
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
    priority: Priority,
    use_bounds: bool,
    axis_name: AxisName | None = None,
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
      priority: decides between gains that are equal.
      use_bounds: without them, candidates are evaluated in any order (static).
      axis_name: of the mesh axis along which the points lie, inside `shard_map`: every device
        searches its own. `chosen` and `gain` are then those of the whole pool, the rest is this
        device's.
    """
    num_points = available.shape[0]
    num_best = min(num_best, num_points)
    block = min(num_points, tiling().block)
    most = min(num_points, _BLOCKS * block)
    coarsest = max(1, tree.masses.size // COARSEST)
    uses_bounds = use_bounds and tree.masses.size > SMALL

    def threshold(best):
        """Only what can rise above it is worth evaluating, once these are the best gains."""
        is_enough = jnp.sum(jnp.maximum(best, 0)) >= enough
        wanted = jnp.where(is_enough, num_needed, jnp.minimum(num_wanted, num_best))
        last_wanted = jnp.where(wanted > 0, best[wanted - 1], jnp.inf)
        return jnp.maximum(last_wanted + tolerance - SLACK, SLACK)

    def evaluate(state: _State, order: Float[Array, "N"], num_blocks: int | Array) -> _State:
        """Exact gains of the candidates that stand first, a block after the other.

        The first block is always evaluated; it ends before another that stands below the
        threshold, or after `num_blocks`. Nothing that is done once a block takes time that grows
        with N.
        """
        values, indices = lax.top_k(order, most)

        def can_win(inner):
            i, best, _ = inner
            first = values[jnp.minimum(i * block, most - 1)]
            is_left = (i * block < most) & (i < num_blocks)
            return (i == 0) | (is_left & (first > threshold(best)))

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

    def refine(state: _State) -> _State:
        """Bounds, coarse to fine, for what can still win; where nothing was merged, exact gains."""
        levels = ladder(tree)
        # Few configurations are not merged even on the coarsest level: its gains are exact.
        is_whole = tree.size <= coarsest

        def refine_once(i, state: _State) -> _State:
            # The coarsest, which was made first, and then the others from the last made on.
            level = jax.tree.map(lambda leaf: leaf[-i % len(leaf)], levels)
            is_alive = state.bounds > threshold(state.best)
            bounds, work = tighten(level, pool, state.bounds, is_alive, coarsest)
            is_exact = is_whole & is_alive
            exact = jnp.where(is_exact, bounds, state.exact)
            return _State(
                bounds=jnp.where(is_exact, -jnp.inf, bounds),
                exact=exact,
                best=lax.top_k(exact, num_best)[0],
                work=state.work + work,
            )

        return lax.fori_loop(0, levels.size.size, refine_once, state)

    def search(step) -> tuple[Int[Array, ""], _State]:
        """One block of the candidates that look best, then bounds, then whatever they leave."""
        i, state = step
        if not uses_bounds:
            return i + 1, evaluate(state, state.bounds, _BLOCKS)
        is_first = i == 0
        order = jnp.where(is_first, jnp.minimum(state.bounds, hint), state.bounds)
        state = evaluate(state, order, jnp.where(is_first, 1, _BLOCKS))
        needs_bounds = is_first & (threshold(state.best) < jnp.inf)
        return i + 1, lax.cond(needs_bounds, refine, lambda state: state, state)

    def goes_on(step):
        i, state = step
        return ((i == 0) & uses_bounds) | (count(state.bounds > threshold(state.best)) > 0)

    dtype = pool.probs.dtype
    state = _State(
        bounds=jnp.where(available, jnp.inf, -jnp.inf).astype(dtype),
        exact=jnp.full(num_points, -jnp.inf, dtype),
        best=jnp.full(num_best, -jnp.inf, dtype),
        # In floats: a million points on thousands of nodes are too many for int32.
        work=jnp.zeros((), dtype),
    )
    _, state = lax.while_loop(goes_on, search, (jnp.int32(0), state))
    gains_found, indices = lax.top_k(state.exact, num_best)
    chosen = _choose(state.exact, gains_found[0], available, priority, axis_name)
    axis = pool_axis(axis_name, num_points)
    gain = axis.row(state.exact, chosen)
    return BestGains(
        chosen=chosen,
        # What was not evaluated there can gain nothing. Nothing available: nor is what was chosen.
        gain=jnp.where(axis.row(available, chosen), jnp.maximum(gain, 0), -jnp.inf),
        indices=indices.astype(jnp.int32),
        gains=gains_found,
        # Evaluated candidates have no bound left, the others no exact gain.
        bounds=jnp.maximum(state.bounds, state.exact),
        work=state.work,
    )


class _State(NamedTuple):
    """What is known of the gains: of some exactly, of the others a bound."""

    bounds: Float[Array, "N"]
    exact: Float[Array, "N"]
    best: Float[Array, "k"]
    work: Float[Array, ""]


def _choose(
    exact: Float[Array, "N"],
    best: Float[Array, ""],
    available: Available,
    priority: Priority,
    axis_name: AxisName | None,
) -> Int[Array, ""]:
    """The point to take: all whose gain equals the best one within `SLACK` are equal.

    A point that was not evaluated gains `SLACK` at most, so where the best gain is no more than
    that above it, all that are available are equal: nobody can tell them apart.
    """
    best = pool_axis(axis_name, available.shape[0]).max(best)
    is_equal = jnp.where(best <= 2 * SLACK, available, available & (exact >= best - SLACK))
    return first_of_equals(is_equal, priority, axis_name)


def tighten(
    level: Configurations,
    pool: Candidates,
    bounds: Float[Array, "N"],
    is_alive: Bool[Array, "N"],
    rows: int | None = None,
) -> tuple[Float[Array, "N"], Float[Array, ""]]:
    """Replace the bounds of those alive by those of `level`, where these are tighter; the work.

    `rows` configurations in a tile, see `gains`: with as many as the coarsest level has, none of it
    is padding, and the levels, which are one size as arrays, share one compiled loop.
    """
    num_points = bounds.shape[0]
    block = min(num_points, _REFINED * tiling().block)
    num_blocks = -(-count(is_alive) // block)
    # A sort takes XLA a fifth of the time to compile that `true_positions` takes.
    alive = jnp.sort(jnp.where(is_alive, jnp.arange(num_points, dtype=jnp.int32), num_points))

    def refine_block(i, bounds):
        # The last block is moved back to end with the array; what it repeats does no harm.
        start = jnp.minimum(i * block, num_points - block)
        indices = lax.dynamic_slice_in_dim(alive, start, block)
        return bounds.at[indices].min(gains(level, take(pool, indices), rows=rows), mode="drop")

    bounds = lax.fori_loop(0, num_blocks, refine_block, bounds)
    return bounds, (num_blocks * block).astype(bounds.dtype) * level.size
