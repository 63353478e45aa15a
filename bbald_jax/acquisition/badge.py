"""BADGE: a batch that is diverse in what its likely errors would teach the last layer."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from bbald_jax.acquisition.clusters import ROUNDING, draw_far, finite_features, matmul
from bbald_jax.acquisition.ties import best, priorities
from bbald_jax.acquisition.top import usable_pending, without_pending
from bbald_jax.typing import Available, CandidateBatch, Diagnostics, Key, Pending
from bbald_jax.validation import assert_available, assert_mean_log_probs, assert_positive


@partial(jax.jit, static_argnames="batch_size")
def select_badge(
    key: Key,
    features: Num[Array, "N D"],
    mean_log_probs: Float[Array, "N C"],
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
) -> CandidateBatch:
    """B points whose gradients of the last layer are large and differ, by k-means++ seeding.

    g_n = (p_n - onehot(argmax_c p_nc)) x_n'    [C, D]

    the gradient of the cross-entropy of the likeliest label, in the weights (no bias) of a linear
    last layer on features x_n. The first point has the longest one; each other point is drawn
    with a probability proportional to `min_j |g_n - g_j|^2`, over the points j so far.

    Args:
      key: draws the points.
      features: `[N, D]`, inputs of the last layer.
      mean_log_probs: `[N, C]`, log p(y=c | x_n), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are among the points j from the start, and they are not returned.

    Returns:
      B slots, in order of acquisition; `gains` are the squared distances above (for a first point
      the squared length), `scores` their running sums, without a unit. Points with a NaN are left
      out and counted in `diagnostics.num_invalid`. Where no gradient differs, points are drawn
      uniformly. No `[N, C D]` is made: memory beside the input is N (C + D) + 6 N floats. Time:
      O(N (C + D)) a point.

    Raises:
      ValueError: `batch_size` below 1, or arrays whose shapes do not fit (at trace time).

    Source: Ash et al. (2020), arXiv 1906.03671; the first point as in their code, where k-means++
    itself draws it uniformly.
    """
    assert_positive(batch_size=batch_size)
    x, is_invalid = finite_features(features)
    num_points, num_classes = assert_mean_log_probs(mean_log_probs, len(x))
    probs = jnp.exp(mean_log_probs)
    is_invalid |= ~jnp.isfinite(probs).all(axis=1)
    errors = probs - jax.nn.one_hot(jnp.argmax(probs, axis=1), num_classes, dtype=probs.dtype)
    errors = jnp.where(is_invalid[:, None], 0, errors)
    lengths = jnp.sum(errors**2, axis=1) * jnp.sum(x**2, axis=1)
    available = without_pending(assert_available(available, num_points) & ~is_invalid, pending)

    def join(squared: Float[Array, "N"], index: Int[Array, ""]) -> Float[Array, "N"]:
        """Squared distances to the nearest point so far, once `index` is one of them."""
        shared = matmul(errors, errors[index]) * matmul(x, x[index])
        both = lengths + lengths[index]
        distances = both - 2 * shared
        return jnp.minimum(squared, jnp.where(distances > ROUNDING * both, distances, 0))

    squared = jnp.full(num_points, jnp.inf, lengths.dtype)
    if pending is not None and pending.size:
        conditions, num_conditions = usable_pending(pending, is_invalid)
        squared = lax.fori_loop(
            0, num_conditions, lambda i, squared: join(squared, conditions[i]), squared
        )
    tie_key, draw_key = jax.random.split(key)
    longest = best(lengths, available, priorities(tie_key, jnp.arange(num_points)))

    def choose(carry, key: Key):
        squared, available, score = carry
        is_first = jnp.isinf(squared[0])
        index = jnp.where(is_first, longest, draw_far(key, squared, available))
        is_found = available[index]
        gain = jnp.where(is_found, jnp.where(is_first, lengths, squared)[index], 0)
        score = score + gain
        squared = jnp.where(is_found, join(squared, index), squared)
        carry = squared, available.at[index].set(False), score
        return carry, (jnp.where(is_found, index, -1), score, gain)

    start = (squared, available, jnp.zeros((), lengths.dtype))
    _, (indices, scores, gains) = lax.scan(choose, start, jax.random.split(draw_key, batch_size))
    return CandidateBatch(
        indices=indices,
        scores=scores,
        gains=gains,
        diagnostics=Diagnostics(
            num_invalid=jnp.sum(is_invalid).astype(jnp.int32),
            is_exact=jnp.ones(batch_size, bool),
            num_tied=jnp.int32(0),
        ),
    )
