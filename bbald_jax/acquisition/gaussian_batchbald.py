"""BatchBALD in Gaussian form: a joint score without the ceiling of log K."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from bbald_jax.acquisition.progress import Progress, report
from bbald_jax.acquisition.ties import SLACK, best, priorities
from bbald_jax.acquisition.top import usable_pending, without_pending
from bbald_jax.information.entropy import mutual_information
from bbald_jax.information.gaussian import covariance, learn, log_determinant, residuals
from bbald_jax.typing import Available, CandidateBatch, Diagnostics, Key, LogProbs, Pending
from bbald_jax.validation import (
    assert_available,
    assert_log_probs,
    assert_positive,
    invalid_points,
)

# Candidates that are evaluated between two looks at whether another one can still win.
_BLOCK = 64


class _Search(NamedTuple):
    """One step's search: gains as far as they are known, and for the others bounds."""

    gains: Float[Array, "N"]
    is_fresh: Bool[Array, "N"]


@partial(jax.jit, static_argnames=("batch_size", "progress"))
def select_gaussian_batchbald(
    log_probs: LogProbs,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    progress: Progress | None = None,
) -> CandidateBatch:
    """B points whose joint labels tell most about the parameters, in Gaussian form, greedily.

    gain(n | S) = max( 0,  I[y_n; w] + 1/2 log det( I - A_n (I - P_S) A_n' ) )

    with the whitened residuals A_n and what S leaves unknown, P_S, of `information/gaussian.py`. It
    is BALD for the first point, near BatchBALD for the next ones, and unlike BatchBALD it has no
    ceiling of log K: batches of hundreds are told apart, by K - 1 dimensions.

    As S grows `P_S` falls and so does every gain: the gain at an earlier step bounds this one's,
    and only points that can still win are evaluated.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are in S from the start, and they are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      progress: see `select_kbald`.

    Returns:
      B slots, in order of acquisition. `gains[i]` is the gain above, in nats, never below zero;
      `scores[i]` the sum of the gains so far. Both are approximations for the K given samples
      (`diagnostics.is_exact`), but for a first point without pending ones. Points with NaN are
      left out (of S too) and counted in `diagnostics.num_invalid`.
      Memory beside the input: K^2 and about 6 N floats, and blocks of 64 points. Time: O(N K C)
      once, and O(E K^2 C) with E evaluations of points that can still win.

    Raises:
      ValueError: `batch_size` below 1 (at trace time).

    Source: see `gaussian_joint_mutual_information`; greedy selection by falling gains: Minoux
    (1978).
    """
    num_points, num_samples, _ = assert_log_probs(log_probs)
    assert_positive(batch_size=batch_size)
    is_invalid = invalid_points(log_probs)
    available = without_pending(assert_available(available, num_points) & ~is_invalid, pending)
    priority = None if key is None else priorities(key, jnp.arange(num_points))
    alone = jnp.where(is_invalid, 0, mutual_information(log_probs))
    unknown = jnp.eye(num_samples)
    num_conditions = jnp.int32(0)
    if pending is not None and pending.size:
        conditions, num_conditions = usable_pending(pending, is_invalid)
        unknown = lax.fori_loop(
            0,
            num_conditions,
            lambda i, unknown: learn(residuals(log_probs[conditions[i]][None])[0], unknown),
            unknown,
        )
    block = min(_BLOCK, num_points)

    def search(bounds: Float[Array, "N"], available: Available, unknown: Float[Array, "K K"]):
        """The gains of this step wherever they can decide; elsewhere bounds of them."""

        def is_open(state: _Search) -> Bool[Array, "N"]:
            highest = jnp.max(jnp.where(available & state.is_fresh, state.gains, 0))
            # What is below the slack is nothing, and needs no evaluation to be equal to nothing.
            least = jnp.maximum(highest - SLACK, SLACK)
            return available & ~state.is_fresh & (state.gains > least)

        def evaluate(state: _Search) -> _Search:
            order = jnp.where(is_open(state), state.gains, -1)
            _, chosen = lax.top_k(order, block)
            shared = log_determinant(covariance(residuals(log_probs[chosen]), unknown)) / 2
            gains = jnp.minimum(jnp.maximum(alone[chosen] + shared, 0), state.gains[chosen])
            return _Search(state.gains.at[chosen].set(gains), state.is_fresh.at[chosen].set(True))

        start = _Search(bounds, jnp.zeros(num_points, bool))
        return lax.while_loop(lambda state: jnp.any(is_open(state)), evaluate, start).gains

    def step(state, num_chosen):
        bounds, available, unknown, score = state
        gains = search(bounds, available, unknown)
        index = best(gains, available, priority)
        is_found = available[index]
        gain = jnp.where(is_found, gains[index], 0)
        score = score + gain
        learnt = learn(residuals(log_probs[index][None])[0], unknown)
        unknown = jnp.where(is_found, learnt, unknown)
        report(progress, num_chosen + 1, is_found)
        state = gains, available.at[index].set(False), unknown, score
        return state, (jnp.where(is_found, index, -1), score, gain)

    # Whatever is pending, no gain is above the point's own information.
    start = (alone, available, unknown, jnp.zeros((), alone.dtype))
    _, (indices, scores, gains) = lax.scan(step, start, jnp.arange(batch_size))
    return CandidateBatch(
        indices=indices,
        scores=scores,
        gains=gains,
        diagnostics=Diagnostics(
            num_invalid=jnp.sum(is_invalid).astype(jnp.int32),
            is_exact=(jnp.arange(batch_size) == 0) & (num_conditions == 0),
            num_tied=jnp.int32(0),
        ),
    )
