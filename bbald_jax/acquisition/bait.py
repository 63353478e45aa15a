"""BAIT: a batch that makes a logistic last layer certain wherever the pool asks it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from bbald_jax.acquisition.clusters import finite_features, matmul
from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.top import usable_pending, without_pending
from bbald_jax.masks import true_positions
from bbald_jax.typing import Available, CandidateBatch, Key, Pending
from bbald_jax.validation import (
    assert_available,
    assert_labelled,
    assert_mean_log_probs,
    assert_positive,
)


@partial(jax.jit, static_argnames="batch_size")
def select_bait(
    features: Num[Array, "N D"],
    mean_log_probs: Float[Array, "N C"],
    *,
    batch_size: int,
    labelled: Bool[Array, "N"] | None = None,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    ridge: float = 1.0,
) -> CandidateBatch:
    """B points that reduce the expected error of a logistic last layer over the pool.

    argmin over S of  tr( M_S^-1 F ),    M_S = r I + sum_j v_j v_j',    F = mean_n v_n v_n'
    v_n = sqrt(h_n) x_n,    h_n = (1 - sum_c p_nc^2) / (C - 1)

    with the sum over all points j that are labelled, pending or in S.

    The Fisher information of a label about the weights is `(diag p - p p') x x'`, of rank C - 1.
    Here every contrast of classes has their mean h of it: exact for two classes, and otherwise the
    information of one covariance that the classes share, in D dimensions instead of C D. Forward,
    2 B points are taken greedily, by the gain  v' M^-1 F M^-1 v / (1 + v' M^-1 v);  then backward,
    those are dropped one by one whose loss is least, until B are left.

    Args:
      features: `[N, D]`, inputs of the last layer.
      mean_log_probs: `[N, C]`, log p(y=c | x_n), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      labelled: `[N]` bool, points whose label is known; none by default.
      available: `[N]` bool, the points to choose from, of those that are not labelled; all of them
        by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      ridge: `r = ridge tr(F) / D`, with which the choice does not depend on the features' scale:
        1 is one average label, spread over all directions.

    Returns:
      B slots, in order of acquisition; `gains` say by how much each reduced the trace, after those
      before it, `scores` are their running sums, without a unit. Points with a NaN are left out
      and counted in `diagnostics.num_invalid`. Memory beside the input: 2 N D + 4 D^2 floats.
      Time: O(N D^2) once, and O(N D + B D^2) a point.

    Raises:
      ValueError: `batch_size` below 1, or arrays whose shapes do not fit (at trace time).

    Source: Ash et al. (2021), arXiv 2106.09675, there with the full Fisher information and r = 1
    for `M_S` divided by the number of labels.
    """
    assert_positive(batch_size=batch_size)
    x, is_invalid = finite_features(features)
    num_points, num_classes = assert_mean_log_probs(mean_log_probs, len(x))
    probs = jnp.exp(mean_log_probs)
    is_invalid |= ~jnp.isfinite(probs).all(axis=1)
    weights = jnp.maximum(1 - jnp.sum(probs**2, axis=1), 0) / max(num_classes - 1, 1)
    rows = jnp.where(is_invalid[:, None], 0, x * jnp.sqrt(weights)[:, None])
    num_features = rows.shape[1]
    # In units of the mean eigenvalue, so that float32 holds them.
    scale = jnp.sum(rows**2) / jnp.maximum(jnp.sum(~is_invalid), 1) / num_features
    rows = rows * jax.lax.rsqrt(jnp.where(scale > 0, scale, 1))
    fisher = matmul(rows.T, rows) / jnp.maximum(jnp.sum(~is_invalid), 1)

    is_labelled = assert_labelled(labelled, num_points)
    is_known = is_labelled & ~is_invalid
    available = without_pending(assert_available(available, num_points) & ~is_labelled, pending)
    if pending is not None and pending.size:
        conditions, num_conditions = usable_pending(pending, is_invalid)
        places = jnp.where(jnp.arange(pending.size) < num_conditions, conditions, num_points)
        is_known = is_known.at[places].set(True, mode="drop")
    known = jnp.where(is_known[:, None], rows, 0)
    start = _inverse(ridge * jnp.eye(num_features, dtype=rows.dtype) + matmul(known.T, known))

    def gains_of(state, available):
        del available
        _, length, useful = state
        return jnp.maximum(useful, 0) / (1 + jnp.maximum(length, 0)), state

    def learn_of(state, index: Int[Array, ""], is_found: Bool[Array, ""]):
        """`M^-1`, `v' M^-1 v` and `v' M^-1 F M^-1 v` of all points, once one is in the batch."""
        inverse, length, useful = state
        row = jnp.where(is_found, rows[index], 0)
        step = matmul(inverse, row)
        step = step * lax.rsqrt(1 + matmul(row, step))
        along = matmul(fisher, step)
        moved, crossed = matmul(rows, step), matmul(rows, matmul(inverse, along))
        useful = useful - 2 * moved * crossed + moved**2 * matmul(step, along)
        return inverse - jnp.outer(step, step), length - moved**2, useful

    forward = greedy(
        (start, *_forms(rows, start, fisher)),
        gains_of,
        learn_of,
        batch_size=2 * batch_size,
        available=available,
        pending=None,  # known from the start
        is_invalid=is_invalid,
        is_exact=False,
        key=key,
    )
    kept = _prune(forward.indices, rows, start, fisher, batch_size)
    is_filled = kept >= 0

    def add(inverse, row: Float[Array, "D"]):
        """The gains of those that were kept, without those that were dropped."""
        length, useful = _forms(row[None], inverse, fisher)
        step = matmul(inverse, row)
        inverse = inverse - jnp.outer(step, step) / (1 + length[0])
        return inverse, useful[0] / (1 + length[0])

    _, gains = lax.scan(add, start, jnp.where(is_filled[:, None], rows[kept], 0))
    diagnostics = forward.diagnostics._replace(is_exact=jnp.zeros(batch_size, bool))
    return CandidateBatch(kept, jnp.cumsum(gains), gains, diagnostics)


def _forms(
    rows: Float[Array, "n D"], inverse: Float[Array, "D D"], fisher: Float[Array, "D D"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """`v' M^-1 v` and `v' M^-1 F M^-1 v`."""
    half = matmul(rows, inverse)
    return jnp.sum(half * rows, axis=1), jnp.sum(matmul(half, fisher) * half, axis=1)


def _inverse(matrix: Float[Array, "D D"]) -> Float[Array, "D D"]:
    """Of a symmetric positive matrix."""
    factor = jnp.linalg.cholesky(matrix)
    return jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(matrix), dtype=matrix.dtype))


def _prune(
    indices: Int[Array, "Q"],
    rows: Float[Array, "N D"],
    start: Float[Array, "D D"],
    fisher: Float[Array, "D D"],
    batch_size: int,
) -> Int[Array, "B"]:
    """The points that are left when those whose loss is least are dropped, one by one."""
    is_kept = indices >= 0
    rows = jnp.where(is_kept[:, None], rows[indices], 0)
    # M^-1 with all of them in it: Woodbury's formula, as the inverse of M is what there is.
    half = matmul(rows, start)
    inner = jnp.eye(len(rows), dtype=rows.dtype) + matmul(half, rows.T)
    inverse = start - matmul(half.T, matmul(_inverse(inner), half))

    def drop(_: Int[Array, ""], state):
        inverse, is_kept = state
        length, useful = _forms(rows, inverse, fisher)
        left = jnp.maximum(1 - length, jnp.finfo(rows.dtype).eps)
        loss = jnp.where(is_kept, useful / left, jnp.inf)
        # The last one of equals: the earlier ones were chosen among more.
        place = len(rows) - 1 - jnp.argmin(loss[::-1])
        is_too_many = jnp.sum(is_kept) > batch_size
        step = jnp.where(is_too_many, matmul(inverse, rows[place]), 0)
        inverse = inverse + jnp.outer(step, step) / left[place]
        return inverse, is_kept.at[place].set(is_kept[place] & ~is_too_many)

    _, is_kept = lax.fori_loop(0, len(rows) - batch_size, drop, (inverse, is_kept))
    places = true_positions(is_kept, size=batch_size, fill_value=0)
    is_filled = jnp.arange(batch_size) < jnp.sum(is_kept)
    return jnp.where(is_filled, indices[places], -1)
