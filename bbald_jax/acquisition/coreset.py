"""Core-set: a batch after which no point of the pool is far from a labelled one."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

from bbald_jax.acquisition.clusters import centred, finite_features, nearest
from bbald_jax.acquisition.greedy import greedy
from bbald_jax.masks import true_positions
from bbald_jax.typing import Available, CandidateBatch, Key, Pending
from bbald_jax.validation import assert_available, assert_labelled, assert_positive


@partial(jax.jit, static_argnames="batch_size")
def select_coreset(
    features: Num[Array, "N D"],
    *,
    batch_size: int,
    labelled: Bool[Array, "N"] | None = None,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
) -> CandidateBatch:
    """B points, each the farthest from all that are labelled, pending or chosen: greedy k-centre.

    argmax_n  min_j |x_n - x_j|    over all points j that are labelled, pending or chosen

    The largest distance that is left is at most twice the least that B points could leave. Where
    there is no point j, the first one is the point nearest to the mean of the pool.

    Args:
      features: `[N, D]`; the distance is Euclidean, so their scale matters.
      batch_size: B, at least 1 (static); it may exceed N.
      labelled: `[N]` bool, points whose label is known; none by default.
      available: `[N]` bool, the points to choose from, of those that are not labelled; all of them
        by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are not returned.
      key: draws among points whose distances are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.

    Returns:
      B slots, in order of acquisition; `gains` are the distances above, in the unit of the
      features (0 for a first point beside no other), `scores` their running sums. Points with a
      NaN are left out and counted in `diagnostics.num_invalid`. Memory beside the input: N D + 70 N
      floats. Time: O(N D) a point, labelled and pending ones too.

    Raises:
      ValueError: `batch_size` below 1, or arrays whose shapes do not fit (at trace time).

    Source: Sener and Savarese (2018), arXiv 1708.00489, algorithm 1 (without the mixed integer
    program that refines it); the bound: Gonzalez (1985).
    """
    assert_positive(batch_size=batch_size)
    x, is_invalid = finite_features(features)
    x, num_points = centred(x, is_invalid), len(x)
    is_labelled = assert_labelled(labelled, num_points)
    is_centre = is_labelled & ~is_invalid
    centres = true_positions(is_centre, size=num_points, fill_value=0)
    squared, _ = nearest(x, x, centres, jnp.sum(is_centre))
    to_mean = jnp.sqrt(jnp.sum(x**2, axis=1))  # which is 0

    def gains_of(squared, available):
        del available
        return jnp.where(jnp.isinf(squared), -to_mean, jnp.sqrt(squared)), squared

    def join(squared, index: Int[Array, ""], is_found: Bool[Array, ""]):
        distances = jnp.sum((x - x[index]) ** 2, axis=1)
        return jnp.where(is_found, jnp.minimum(squared, distances), squared)

    batch = greedy(
        squared,
        gains_of,
        join,
        batch_size=batch_size,
        available=assert_available(available, num_points) & ~is_labelled,
        pending=pending,
        is_invalid=is_invalid,
        is_exact=True,
        key=key,
    )
    gains = jnp.maximum(batch.gains, 0)
    return batch._replace(gains=gains, scores=jnp.cumsum(gains))
