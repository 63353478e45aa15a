"""Batch EPIG in Gaussian form: what the labels of a batch, jointly, tell about those of targets."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.progress import Progress
from bbald_jax.information.gaussian import residuals, step_down
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending, TargetLogProbs
from bbald_jax.validation import (
    assert_log_probs,
    assert_target_log_probs,
    invalid_points,
)

_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames=("batch_size", "progress", "axis_name"))
def select_batch_epig(
    log_probs: LogProbs,
    target_log_probs: TargetLogProbs,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
    numbers: Int[Array, "N"] | None = None,
) -> CandidateBatch:
    """B points whose joint labels tell most about the labels of the targets, greedily.

    gain(n | S) = 1/2 trace( V_n^-1 A_n P_S B P_S A_n' ),    V_n = I - A_n A_n' + A_n P_S A_n',
    B = mean_t A_t' A_t

    with the whitened residuals A and what S leaves unknown, P_S, of `information/gaussian.py`. The
    sum over a batch telescopes to `1/2 trace( B (I - P_S) )`: the share of the targets' labels that
    the batch explains. For one point it is half of chi-square between the labels' joint
    distribution and that of independent labels, which is EPIG where information is small.

    Information about labels to be predicted, not about parameters: points that nothing like them
    will be asked about tell nothing. A gain may *rise* when another point is chosen (the score is
    not submodular), so that every point is evaluated at every step.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      target_log_probs: `[T, K, C]`, predictions for inputs like those that the model will have to
        predict, by the same K samples. A target with a NaN is left out.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are in S from the start, and they are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      progress: see `select_kbald`.
      axis_name: see `select_batchbald`; T is this device's share too.
      numbers: `[N]`, see `greedy`; for a part of a pool.

    Returns:
      B slots, in order of acquisition. `gains[i]` is the gain above, in nats, never below zero;
      `scores[i]` the sum of the gains so far. Both are approximations for the K given samples.
      Points with NaN are left out (of S too) and counted in `diagnostics.num_invalid`.
      With R = min(C, K), memory beside the input: N R (2 K + 5 R) floats. Time: O(N K R^2) a point.

    Raises:
      ValueError: `batch_size` below 1, or targets of another K or C, or none (at trace time).

    Source: EPIG: Bickford Smith et al. (2023); the Gaussian form of the joint one: its targets'
    labels are predicted linearly from the batch's (Cover and Thomas, chapter 8).
    """
    num_points, num_samples, _ = assert_log_probs(log_probs)
    axis = pool_axis(axis_name, num_points)
    assert_target_log_probs(log_probs, target_log_probs)
    points, wanted = residuals(log_probs), wanted_of(target_log_probs, axis_name)

    def learn_of(state, index: Int[Array, ""], is_found: Bool[Array, ""]):
        """P, V and `W_n = A_n P B P A_n'` once the label of a point is known."""
        unknown, own, useful = state
        point = jnp.where(is_found, axis.row(points, index), 0)
        step = step_down(point, unknown)
        seen = _einsum("kl,lr->kr", unknown, _einsum("kl,lr->kr", wanted, step))
        inner = _einsum("kr,kl,ls->rs", step, wanted, step)
        here, there = _einsum("nrk,ks->nrs", points, step), _einsum("nrk,ks->nrs", points, seen)
        crossed = _einsum("nrs,nqs->nrq", here, there)
        own = own - _einsum("nrs,nqs->nrq", here, here)
        useful = useful - crossed - jnp.swapaxes(crossed, 1, 2)
        useful = useful + _einsum("nrs,nqs->nrq", _einsum("nrs,sp->nrp", here, inner), here)
        return unknown - _einsum("kr,lr->kl", step, step), own, useful

    def gains_of(state, available: Available):
        _, own, useful = state
        return explained(own, useful), state

    size = points.shape[1]
    state = (
        jnp.eye(num_samples),
        jnp.broadcast_to(jnp.eye(size), (num_points, size, size)),
        _einsum("nrk,nqk->nrq", _einsum("nrk,kl->nrl", points, wanted), points),
    )
    return greedy(
        state,
        gains_of,
        learn_of,
        batch_size=batch_size,
        available=available,
        pending=pending,
        is_invalid=invalid_points(log_probs),
        is_exact=False,
        key=key,
        progress=progress,
        axis_name=axis_name,
        numbers=numbers,
    )


def wanted_of(
    target_log_probs: TargetLogProbs, axis_name: AxisName | None = None
) -> Float[Array, "K K"]:
    """`B = mean_t A_t' A_t`, of the targets without a NaN."""
    axis, targets = pool_axis(axis_name, len(target_log_probs)), residuals(target_log_probs)
    num_targets = axis.sum(jnp.sum(~invalid_points(target_log_probs)))
    return axis.sum(_einsum("trk,trl->kl", targets, targets)) / jnp.maximum(num_targets, 1)


def explained(own: Float[Array, "n R R"], useful: Float[Array, "n R R"]) -> Float[Array, "n"]:
    """The gains, `1/2 trace( V_n^-1 W_n )`, never below zero."""
    solved = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(own), True), useful)
    return jnp.maximum(jnp.trace(solved, axis1=1, axis2=2) / 2, 0)
