"""Whether a point outside a buffer beats the steps of a BatchBALD batch that was chosen inside it.

Every step has its tree and the best gain in the buffer. A point of the pool is ruled out for a step
by an upper bound on its gain (`bounds.py`): on the tree merged into one node first, then on finer
ones, each evaluated only for the points that are left; what no merged tree rules out is evaluated
on the tree itself. While the trees are exact, gains only fall from step to step, and what was found
for one step bounds the next.
"""

from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.bounds import SMALL, ladder, merge
from bbald_jax.acquisition.search import tighten
from bbald_jax.acquisition.ties import SLACK, Priority, first_of_equals
from bbald_jax.information.configurations import Configurations
from bbald_jax.information.entropy import xlogx
from bbald_jax.information.gains import Candidates, gains
from bbald_jax.typing import Available

#: Points of a chunk that are reported for a step, beside the one to take.
NUM_REPORTED = 32

# Groups of the tree between that of one node and the coarsest of `bounds.ladder`.
_FEW = 32


class Found(NamedTuple):
    """What a chunk holds against S steps.

    Attributes:
      gains: `[S, T]`, the best gains of the chunk, best first; `-inf` where none is above the
        step's threshold.
      places: `[S, T]` int32, of the points that have them.
      first: `[S]` int32, among the points whose gain equals the step's best one (in the chunk or
        before it) the one of highest priority; it means nothing where `first_gains` is `-inf`.
      first_gains: `[S]`, its gain; `-inf` where there is none.
      upper_gains: `[S, B]`, the largest upper bounds on the gains of the chunk.
      work: `[]`, evaluations of one point on one node.
    """

    gains: Float[Array, "S T"]
    places: Int[Array, "S T"]
    first: Int[Array, "S"]
    first_gains: Float[Array, "S"]
    upper_gains: Float[Array, "S B"]
    work: Float[Array, ""]


@jax.jit
def levels_of(trees: Configurations, is_on: Bool[Array, "S"]) -> tuple[Configurations, ...]:
    """Merged versions of S stacked trees, coarse to fine, and at the end the trees themselves.

    Args:
      trees: `[S, M, ...]`.
      is_on: `[S]`, the steps whose trees are needed; the others' are not merged.
    """

    def levels(tree: Configurations) -> tuple[Configurations, ...]:
        whole = _whole(tree)
        if tree.masses.shape[0] <= SMALL:
            return (whole,)
        merged = ladder(tree)
        coarse = merged.coarsest
        few = (merge(coarse, _FEW)[0],) if coarse.masses.shape[0] > _FEW else ()
        return (whole, *few, coarse, *reversed(merged.finer))

    def nothing(tree: Configurations) -> tuple[Configurations, ...]:
        shapes = jax.eval_shape(levels, tree)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def each(inputs):
        tree, is_on = inputs
        return lax.cond(is_on, levels, nothing, tree)

    return (*lax.map(each, (trees, is_on)), trees)


def _whole(tree: Configurations) -> Configurations:
    """All nodes merged into one."""
    mass = jnp.sum(tree.masses)
    weights = tree.mean / jnp.where(mass > 0, mass, 1)
    return Configurations(
        weights=weights[None],
        masses=mass[None],
        entropies=-jnp.sum(xlogx(weights))[None],
        mean=tree.mean,
        size=jnp.ones((), jnp.int32),
        is_exact=tree.is_exact,
    )


def examine(
    levels: tuple[Configurations, ...],
    pool: Candidates,
    *,
    available: Available,
    priority: Priority,
    thresholds: Float[Array, "S"],
    bests: Float[Array, "S"],
    num_upper: int,
) -> Found:
    """The points of a chunk that gain more than the thresholds, and bounds for all others.

    Args:
      levels: of S trees, by `levels_of`.
      pool: n points, the chunk.
      available: `[n]`, the points that may be chosen and are not in the buffer.
      priority: `[n]`, as in the whole pool.
      thresholds: `[S]`, gains that are looked for; infinite where a step is not in question.
      bests: `[S]`, the best gains so far.
      num_upper: B, how many upper bounds are returned (static).
    """
    num_points = available.shape[0]
    num_reported, num_upper = min(NUM_REPORTED, num_points), min(num_upper, num_points)
    nothing = jnp.where(available, jnp.inf, -jnp.inf).astype(pool.probs.dtype)

    def look(bounds: Float[Array, "N"], trees, threshold, best):
        whole, *finer, tree = trees
        bounds = jnp.where(available, jnp.minimum(bounds, gains(whole, pool)), -jnp.inf)
        work = jnp.asarray(num_points, pool.probs.dtype)
        for level in finer:
            bounds, work = tighten(level, pool, bounds, work, threshold)
        is_evaluated = bounds > threshold
        bounds, work = tighten(tree, pool, bounds, work, threshold)
        exact = jnp.where(is_evaluated, bounds, -jnp.inf)
        top, places = lax.top_k(exact, num_reported)
        is_equal = exact >= jnp.maximum(best, top[0]) - SLACK
        first = first_of_equals(is_equal, priority)
        first_gain = jnp.where(is_equal[first], exact[first], -jnp.inf)
        upper = lax.top_k(bounds, num_upper)[0]
        return bounds, Found(top, places.astype(jnp.int32), first, first_gain, upper, work)

    def skip(bounds: Float[Array, "N"], *_):
        shapes = jax.eval_shape(look, bounds, first_trees, thresholds[0], bests[0])[1]
        empty = jax.tree.map(
            lambda leaf: jnp.full(
                leaf.shape, 0 if leaf.dtype == jnp.int32 else -jnp.inf, leaf.dtype
            ),
            shapes,
        )
        return nothing, empty._replace(work=jnp.zeros_like(empty.work))

    def step(bounds: Float[Array, "N"], inputs):
        trees, threshold, best = inputs
        bounds = jnp.where(trees[-1].is_exact, bounds, nothing)
        return lax.cond(threshold < jnp.inf, look, skip, bounds, trees, threshold, best)

    first_trees = jax.tree.map(itemgetter(0), levels)
    _, found = lax.scan(step, nothing, (levels, thresholds, bests))
    return found._replace(work=jnp.sum(found.work))
