"""Joint scores of a Gaussian posterior in closed form: no samples, no ceiling."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.typing import Available, CandidateBatch, Key, Pending
from bbald_jax.validation import assert_positive

_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
# Below it a doubt is rounding.
_LEAST_DOUBT = 1e-6


def select_gaussian_batchbald_closed(
    posterior: GaussianPosterior,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """B points whose joint labels tell most about the parameters of a Gaussian posterior.

    gain(n | S) = (C - 1) / 2  log( 1 + h_n v_n )

    with the variance v_n of a point's logits given S, and its weight h_n. After a pick j,
    `v_n <- v_n - c_nj^2 h_j / (1 + h_j v_j)` with the covariance c_nj given S. The weights stay as
    they are within a batch.

    Args:
      posterior: see `GaussianPosterior`.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are in S from the start, and they are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      axis_name: see `select_batchbald`; factors and weights are this device's share, the targets
        are whole.

    Returns:
      B slots; `gains` as above, in nats, `scores` their running sum. Points whose weight is NaN
      are left out. Memory beside the input: about 4 N + (B + P) D floats. Time: O(N D) a point.

    Raises:
      ValueError: `batch_size` below 1 (at trace time).

    Source: Gaussian processes: Houlsby et al. (2011); C classes as C - 1 independent contrasts of
    one-hot labels, each with the covariance h_n of its logit.
    """
    return _select(
        posterior,
        batch_size=batch_size,
        available=available,
        pending=pending,
        key=key,
        has_targets=False,
        axis_name=axis_name,
    )


def select_batch_epig_closed(
    posterior: GaussianPosterior,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    weigh_targets: bool = False,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """B points whose joint labels tell most about those of the targets of a Gaussian posterior.

    gain(n | S) = -(C - 1) / 2  mean_t log( 1 - c_nt^2 h_n h_t / ((1 + h_n v_n) (1 + h_t v_t)) )

    the mutual information of Gaussian label contrasts, averaged over the targets, given S. After a
    pick j, `c_mt <- c_mt - c_mj c_jt h_j / (1 + h_j v_j)`, and the variances v likewise. It is not
    submodular, so that every point is evaluated at every step.

    With `weigh_targets` the mean is over targets in proportion to their doubts, `1 - max_c q_tc`: a
    target counts as much as the model is likely to be wrong about it. What is predicted surely
    already, which is most of the common classes, then takes no labels from the rare ones; the
    evidence is in `experiments/results/which_function/tables.md`.

    Args:
      posterior: see `GaussianPosterior`.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are in S from the start, and they are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      weigh_targets: see there (static).
      axis_name: see `select_gaussian_batchbald_closed`.

    Returns:
      B slots; `gains` as above, in nats, `scores` their running sum. Points whose weight is NaN
      are left out. Memory beside the input: N T + 4 N + (B + P) D floats. Time: O(N (D + T)) a
      point.

    Raises:
      ValueError: `batch_size` below 1, or targets without doubts to be weighed by (at trace time).

    Source: EPIG, and that its targets may have any distribution: Bickford Smith et al. (2023); its
    Gaussian form as for `select_gaussian_batchbald_closed`.
    """
    return _select(
        posterior,
        batch_size=batch_size,
        available=available,
        pending=pending,
        key=key,
        has_targets=True,
        weigh_targets=weigh_targets,
        axis_name=axis_name,
    )


@partial(jax.jit, static_argnames=("batch_size", "has_targets", "weigh_targets", "axis_name"))
def _select(
    posterior: GaussianPosterior,
    *,
    batch_size: int,
    available: Available | None,
    pending: Pending | None,
    key: Key | None,
    has_targets: bool,
    weigh_targets: bool = False,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    assert_positive(batch_size=batch_size)
    factors, weights, targets, target_weights, num_classes, doubts = posterior
    axis = pool_axis(axis_name, len(factors))
    if weigh_targets and doubts is None:
        raise ValueError(
            "posterior.target_doubts: None, and the targets are to be weighed by them; give 1 less "
            "the largest probability of each target, as bb.logistic_head does"
        )
    # Where no target is in doubt all count the same.
    shares = jnp.ones(len(targets))
    if weigh_targets and doubts is not None:
        shares = doubts + _LEAST_DOUBT
    shares = shares / jnp.sum(shares)
    num_features = factors.shape[1]
    variance = jnp.sum(factors**2, axis=1)
    is_invalid = ~jnp.isfinite(variance * weights)
    contrasts = (num_classes - 1) / 2

    def gains_of(state, available: Available):
        variance, shared, target_variance, *_ = state
        if not has_targets:
            return contrasts * jnp.log1p(weights * variance), state
        own = weights / (1 + weights * variance)
        theirs = target_weights / (1 + target_weights * target_variance)
        explained = jnp.clip(shared**2 * own[:, None] * theirs, 0, 1 - 1e-6)
        return -contrasts * _einsum("nt,t->n", jnp.log1p(-explained), shares), state

    def learn_of(state, index: Int[Array, ""], is_found: Bool[Array, ""]):
        """Variances and covariances once the label of a point is known."""
        variance, shared, target_variance, directions, count = state
        # The point's factor less what is known of it already.
        own = axis.row(factors, index)
        left = own - _einsum("bd,b->d", directions, _einsum("bd,d->b", directions, own))
        weight = axis.row(weights, index)
        scale = weight / (1 + weight * axis.row(variance, index))
        direction = jnp.where(is_found, left * jnp.sqrt(scale), 0)
        moved, targets_moved = (
            _einsum("nd,d->n", factors, direction),
            _einsum("td,d->t", targets, direction),
        )
        if has_targets:
            shared = shared - moved[:, None] * targets_moved
        return (
            jnp.maximum(variance - moved**2, 0),
            shared,
            jnp.maximum(target_variance - targets_moved**2, 0),
            directions.at[count].set(direction),
            count + 1,
        )

    num_pending = 0 if pending is None else pending.size
    state = (
        jnp.where(is_invalid, 0, variance),
        _einsum("nd,td->nt", factors, targets) if has_targets else jnp.zeros(()),
        jnp.sum(targets**2, axis=1),
        jnp.zeros((num_pending + batch_size, num_features)),
        jnp.int32(0),
    )
    return greedy(
        state,
        gains_of,
        learn_of,
        batch_size=batch_size,
        available=available,
        pending=pending,
        is_invalid=is_invalid,
        is_exact=False,
        key=key,
        axis_name=axis_name,
    )
