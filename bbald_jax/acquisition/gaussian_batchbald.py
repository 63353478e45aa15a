"""BatchBALD in Gaussian form: a joint score without the ceiling of log K."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.progress import Progress
from bbald_jax.acquisition.ties import SLACK
from bbald_jax.acquisition.top import usable_pending
from bbald_jax.information.entropy import mutual_information
from bbald_jax.information.gaussian import covariance, learn, log_determinant, residuals
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending
from bbald_jax.validation import assert_log_probs, invalid_points

# Candidates that are evaluated between two looks at whether another one can still win.
_BLOCK = 64


class _Search(NamedTuple):
    """One step's search: gains as far as they are known, and for the others bounds."""

    gains: Float[Array, "N"]
    is_fresh: Bool[Array, "N"]


class _State(NamedTuple):
    """Before a step: what bounds its gains, and what the points so far leave unknown."""

    bounds: Float[Array, "N"]
    unknown: Float[Array, "K K"]


@partial(jax.jit, static_argnames=("batch_size", "progress", "axis_name"))
def select_gaussian_batchbald(
    log_probs: LogProbs,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
    numbers: Int[Array, "N"] | None = None,
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
      axis_name: see `select_batchbald`.
      numbers: `[N]`, see `greedy`; for a part of a pool.

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
    axis = pool_axis(axis_name, num_points)
    is_invalid = invalid_points(log_probs)
    alone = jnp.where(is_invalid, 0, mutual_information(log_probs))
    block = min(_BLOCK, num_points)

    def search(state: _State, available: Available):
        """The gains of this step wherever they can decide; elsewhere bounds of them."""

        def is_open(search: _Search) -> Bool[Array, "N"]:
            highest = jnp.max(jnp.where(available & search.is_fresh, search.gains, 0))
            # What is below the slack is nothing, and needs no evaluation to be equal to nothing.
            least = jnp.maximum(highest - SLACK, SLACK)
            return available & ~search.is_fresh & (search.gains > least)

        def evaluate(search: _Search) -> _Search:
            order = jnp.where(is_open(search), search.gains, -1)
            _, chosen = lax.top_k(order, block)
            shared = log_determinant(covariance(residuals(log_probs[chosen]), state.unknown)) / 2
            gains = jnp.minimum(jnp.maximum(alone[chosen] + shared, 0), search.gains[chosen])
            return _Search(search.gains.at[chosen].set(gains), search.is_fresh.at[chosen].set(True))

        start = _Search(state.bounds, jnp.zeros(num_points, bool))
        gains = lax.while_loop(lambda search: jnp.any(is_open(search)), evaluate, start).gains
        return gains, state._replace(bounds=gains)

    def learn_of(state: _State, index: Int[Array, ""], is_found: Bool[Array, ""]) -> _State:
        learnt = learn(residuals(axis.row(log_probs, index)[None])[0], state.unknown)
        return state._replace(unknown=jnp.where(is_found, learnt, state.unknown))

    batch = greedy(
        # Whatever is pending, no gain is above the point's own information.
        _State(alone, jnp.eye(num_samples)),
        search,
        learn_of,
        batch_size=batch_size,
        available=available,
        pending=pending,
        is_invalid=is_invalid,
        is_exact=False,
        key=key,
        progress=progress,
        axis_name=axis_name,
        numbers=numbers,
    )
    is_first = jnp.arange(batch_size) == 0
    if pending is not None and pending.size:
        is_first &= usable_pending(pending, is_invalid, axis_name)[1] == 0
    return batch._replace(diagnostics=batch.diagnostics._replace(is_exact=is_first))
