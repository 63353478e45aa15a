"""One point after the other, each the best beside those before it: what joint functions share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.progress import Progress, report
from bbald_jax.acquisition.ties import best, priorities
from bbald_jax.acquisition.top import usable_pending, without_pending
from bbald_jax.typing import Available, CandidateBatch, Diagnostics, Key, Pending
from bbald_jax.validation import assert_available, assert_positive


def greedy(
    state: Any,
    gains_of: Callable[[Any, Available], tuple[Float[Array, "N"], Any]],
    learn_of: Callable[[Any, Int[Array, ""], Bool[Array, ""]], Any],
    *,
    batch_size: int,
    available: Available | None,
    pending: Pending | None,
    is_invalid: Bool[Array, "N"],
    is_exact: bool,
    key: Key | None = None,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
    numbers: Int[Array, "N"] | None = None,
) -> CandidateBatch:
    """The available point of highest gain, B times.

    Args:
      state: what is known before the first point; any arrays.
      gains_of: `gains_of(state, available) -> (gains [N], state)`; right wherever they decide
        among the available points. Of a pool that is spread, those of the points here.
      learn_of: `learn_of(state, index, is_found) -> state`, once a point is in the batch; where
        none was found, it must say what it said before. The index is that in the whole pool.
      batch_size: B, at least 1 (static).
      available: `[N]` bool, the points to choose from; all of them where it is None.
      pending: `[P]`, padded with -1; learned of before the first point, and not chosen.
      is_invalid: `[N]`, points that are neither chosen nor learned of.
      is_exact: whether the scores are, for the diagnostics.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      progress: see `select_kbald`.
      axis_name: see `select_batchbald`.
      numbers: `[N]`, what the points are called in the pool that these are a part of: the key goes
        by that. Their positions by default.

    Returns:
      B slots; `scores` are the running sums of the gains.
    """
    assert_positive(batch_size=batch_size)
    num_points = is_invalid.shape[0]
    axis = pool_axis(axis_name, num_points)
    available = assert_available(available, num_points) & ~is_invalid
    available = without_pending(available, pending, axis_name)
    priority = (
        None if key is None else priorities(key, axis.indices() if numbers is None else numbers)
    )
    if pending is not None and pending.size:
        conditions, num_conditions = usable_pending(pending, is_invalid, axis_name)
        found = jnp.asarray(True)
        state = lax.fori_loop(
            0, num_conditions, lambda i, state: learn_of(state, conditions[i], found), state
        )

    def choose(carry, num_chosen):
        state, available, score = carry
        gains, state = gains_of(state, available)
        index = best(gains, available, priority, axis_name)
        is_found = axis.row(available, index)
        gain = jnp.where(is_found, axis.row(gains, index), 0)
        score = score + gain
        state = learn_of(state, index, is_found)
        report(progress, num_chosen + 1, is_found, axis_name)
        carry = state, available.at[axis.place(index)].set(False), score
        return carry, (jnp.where(is_found, index, -1), score, gain)

    dtype = jax.eval_shape(gains_of, state, available)[0].dtype
    start = (state, available, jnp.zeros((), dtype))
    _, (indices, scores, gains) = lax.scan(choose, start, jnp.arange(batch_size))
    return CandidateBatch(
        indices=indices,
        scores=scores,
        gains=gains,
        diagnostics=Diagnostics(
            num_invalid=axis.sum(jnp.sum(is_invalid)).astype(jnp.int32),
            is_exact=jnp.full(batch_size, is_exact),
            num_tied=jnp.int32(0),
        ),
    )
