"""From scores to a batch: the B best points, each judged on its own."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.ties import SLACK, Priority, priorities
from bbald_jax.information.entropy import mutual_information
from bbald_jax.masks import true_positions
from bbald_jax.typing import Available, CandidateBatch, Diagnostics, Key, LogProbs, Pending
from bbald_jax.validation import (
    assert_available,
    assert_log_probs,
    assert_positive,
    invalid_points,
)


def first_mentions(indices: Int[Array, "P"], num_points: int) -> Bool[Array, "P"]:
    """True where an index is in range and does not stand earlier in the list (padding is -1)."""
    in_range = (indices >= 0) & (indices < num_points)
    is_repeat = jnp.any(jnp.tril(indices[:, None] == indices[None, :], k=-1), axis=1)
    return in_range & ~is_repeat


def usable_pending(
    pending: Pending, is_invalid: Bool[Array, "N"], axis_name: AxisName | None = None
) -> tuple[Int[Array, "P"], Int[Array, ""]]:
    """The pending points to condition on, first of all, and how many they are.

    Each once, in range, and with predictions: a label that is not a number tells nothing.
    """
    axis = pool_axis(axis_name, is_invalid.size)
    is_usable = first_mentions(pending, axis.num_points) & ~axis.row(is_invalid, pending)
    # Compacted, as most of P is padding, and each point costs a pass over the pool.
    positions = true_positions(is_usable, size=pending.size, fill_value=0)
    return pending[positions], jnp.sum(is_usable)


def without_pending(
    available: Available, pending: Pending | None, axis_name: AxisName | None = None
) -> Available:
    """`available` less the pending points (`axis_name`: see `select_batchbald`)."""
    if pending is None:
        return available
    pending = pool_axis(axis_name, available.size).place(pending)
    # Out-of-range positions are dropped; a negative one would wrap round, so it is moved there.
    positions = jnp.where(pending < 0, available.size, pending)
    return jnp.asarray(available).at[positions].set(False, mode="drop")


def select_top(
    scores: Float[Array, "N"],
    *,
    batch_size: int,
    available: Available,
    num_invalid: Int[Array, ""] | None = None,
    key: Key | None = None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """The B available points with the highest scores.

    Args:
      scores: `[N]`, higher is better. A point whose score is NaN is not available.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from.
      num_invalid: reported in the diagnostics; by default how many scores are NaN.
      key: draws among points whose scores are equal within 1e-6; without it the lowest index
        comes first among those that are exactly equal: right where the order of the points means
        nothing, or where the scores are random already.
      axis_name: see `select_batchbald`.

    Returns:
      B slots; `scores` and `gains` are the points' own. See `CandidateBatch` for unfilled slots.
    """
    assert_positive(batch_size=batch_size)
    axis = pool_axis(axis_name, scores.shape[0])
    is_nan = jnp.isnan(scores)
    num_invalid = jnp.sum(is_nan) if num_invalid is None else num_invalid
    available = available & ~is_nan  # NaN would win every comparison
    # An available point of score -inf still comes before all that are not available.
    lowest = jnp.finfo(scores.dtype).min
    ranked = jnp.where(available, jnp.maximum(scores, lowest), -jnp.inf)
    if key is None:
        _, indices = axis.top(ranked, min(batch_size, axis.num_points))
    else:
        priority = priorities(key, axis.indices())
        indices = _top_with_ties(ranked, priority, batch_size, axis_name)
    indices = jnp.pad(indices, (0, batch_size - indices.size)).astype(jnp.int32)

    num_filled = jnp.minimum(axis.sum(jnp.sum(available)), batch_size)
    is_filled = jnp.arange(batch_size) < num_filled
    gains = jnp.where(is_filled, axis.row(scores, indices), 0)
    last = jnp.where(num_filled > 0, gains[num_filled - 1], 0)
    # Infinite scores have no difference.
    is_tied = (scores == last) | (jnp.abs(scores - last) <= (0 if key is None else SLACK))
    return CandidateBatch(
        indices=jnp.where(is_filled, indices, -1),
        scores=jnp.where(is_filled, gains, last),
        gains=gains,
        diagnostics=Diagnostics(
            num_invalid=axis.sum(num_invalid).astype(jnp.int32),
            is_exact=jnp.ones(batch_size, bool),
            num_tied=axis.sum(jnp.sum(available & is_tied, dtype=jnp.int32)),
        ),
    )


@partial(jax.jit, static_argnames=("batch_size", "axis_name"))
def _top_with_ties(
    scores: Float[Array, "N"], priority: Priority, batch_size: int, axis_name: AxisName | None
) -> Int[Array, "B"]:
    """The points of highest score; within a group of equals those of highest priority first.

    A group begins with the highest score that is left, and holds all that equal it within `SLACK`.
    So every group that is needed begins among the B highest scores, and only the last of them may
    have members beyond these.
    """
    axis = pool_axis(axis_name, scores.shape[0])
    size = min(batch_size, axis.num_points)
    values, indices = axis.top(scores, size)

    def join(least: Float[Array, ""], value: Float[Array, ""]):
        least = jnp.where(value >= least, least, value - SLACK)
        return least, least

    last_least, leasts = lax.scan(join, jnp.asarray(jnp.inf, scores.dtype), values)
    is_before = leasts > last_least
    num_before = jnp.sum(is_before)
    before = indices[jnp.lexsort((~axis.row(priority, indices), -leasts))]
    in_last = (scores >= last_least) & (scores <= values[num_before])
    # Above zero, the mark of all other points.
    _, last = axis.top(jnp.where(in_last, (priority >> 1) + 1, 0), size)
    places = jnp.arange(size)
    chosen = jnp.where(is_before, before, last[jnp.maximum(places - num_before, 0)])
    return chosen.astype(jnp.int32)


@partial(jax.jit, static_argnames=("batch_size", "axis_name"))
def select_bald(
    log_probs: LogProbs,
    *,
    batch_size: int,
    available: Available | None = None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """BALD: the B points whose own labels tell most about the parameters.

    argmax over n of I[y_n; w], the best B of them. Each point is judged alone, so near-copies of
    one informative point are chosen together: see `select_batchbald`.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      axis_name: see `select_batchbald`.

    Returns:
      B slots; `scores` and `gains` are I[y_n; w] of each point, in nats, exact for the K given
      samples. Equal scores go to the lowest index (`bb.select`, which has a key, draws among
      them). Points with NaN are left out and counted in `diagnostics.num_invalid`.

    Raises:
      ValueError: `batch_size` below 1 (at trace time).

    Source: Houlsby et al. (2011), eq. 2; Gal, Islam, Ghahramani (2017), section 4.
    """
    num_points, _, _ = assert_log_probs(log_probs)
    is_invalid = invalid_points(log_probs)
    available = assert_available(available, num_points)
    return select_top(
        mutual_information(log_probs),
        batch_size=batch_size,
        available=available & ~is_invalid,
        num_invalid=jnp.sum(is_invalid),
        axis_name=axis_name,
    )


@partial(jax.jit, static_argnames=("batch_size", "axis_name"))
def select_random(
    key: Key, *, batch_size: int, available: Available, axis_name: AxisName | None = None
) -> CandidateBatch:
    """B points uniformly at random, without replacement: what every other function must beat.

    Args:
      key: a random number per point comes from it.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from.
      axis_name: see `select_batchbald`.

    Returns:
      B slots; `scores` and `gains` are the random numbers by which the points were ranked.
    """
    axis = pool_axis(axis_name, available.size)
    scores = axis.of_whole(jax.random.uniform(key, (axis.num_points,)))
    return select_top(scores, batch_size=batch_size, available=available, axis_name=axis_name)
