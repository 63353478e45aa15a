"""From scores to random scores: the best B of them are a batch sampled by score, or by rank.

The B best of scores taken one by one are near-copies of each other, and after the first label the
scores will have changed anyway. Noise spreads the batch for next to nothing: the B largest of
`log weight + Gumbel noise` are B draws without replacement, each with a probability proportional
to the weight. All with the coldness beta = 1 of the paper.

Source: Kirsch et al. (2023), "Stochastic Batch Acquisition".
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.ties import SLACK, priorities
from bbald_jax.typing import Available, Key


def perturb_power(
    key: Key, scores: Float[Array, "N"], *, axis_name: AxisName | None = None
) -> Float[Array, "N"]:
    """Scores for which the top B are drawn with probability proportional to the score.

    log s_n + g_n,   g_n ~ Gumbel(0, 1)

    Args:
      key: for the noise.
      scores: `[N]`, at least 0 but for rounding. A score of zero or below counts as the smallest
        positive float: such points come after all others, among themselves in random order.
      axis_name: see `select_batchbald`; a point's noise is the same, however the pool is spread.

    Returns:
      `[N]`, finite, to be given to `select_top`.

    Source: Kirsch et al. (2023), "power acquisition".
    """
    floor = jnp.finfo(scores.dtype).tiny
    return jnp.log(jnp.maximum(scores, floor)) + _noise(key, scores, axis_name)


def perturb_softmax(
    key: Key, scores: Float[Array, "N"], *, axis_name: AxisName | None = None
) -> Float[Array, "N"]:
    """Scores for which the top B are drawn with probability proportional to exp(score).

    s_n + g_n,   g_n ~ Gumbel(0, 1)

    Args:
      key: for the noise.
      scores: `[N]`, of any sign. They are weighed on the scale of the noise, whose standard
        deviation is 1.28: scores that differ by much less are chosen nearly at random.
      axis_name: see `perturb_power`.

    Returns:
      `[N]`, to be given to `select_top`.

    Source: Kirsch et al. (2023), "softmax acquisition".
    """
    return scores + _noise(key, scores, axis_name)


def perturb_softrank(
    key: Key,
    scores: Float[Array, "N"],
    *,
    available: Available,
    axis_name: AxisName | None = None,
) -> Float[Array, "N"]:
    """Scores for which the top B are drawn with probability proportional to 1 / rank.

    - log r_n + g_n,   r_n = 1 for the highest score, 2 for the next, ...,   g_n ~ Gumbel(0, 1)

    Args:
      key: for the noise, and for the ranks of points whose scores are equal within 1e-6.
      scores: `[N]`, of any sign and scale.
      available: `[N]` bool, the points that are ranked: the others have no rank that one of these
        could lose.
      axis_name: see `perturb_power`. Every device ranks the points of all.

    Returns:
      `[N]`, finite, to be given to `select_top` with the same `available`.

    Source: Kirsch et al. (2023), "softrank acquisition".
    """
    # First by availability: an available point of score -inf comes before all that are not.
    noise_key, ties_key = jax.random.split(key)
    axis = pool_axis(axis_name, scores.size)
    priority, scores, available = map(
        axis.gather, (priorities(ties_key, axis.indices()), scores, available)
    )
    order = jnp.lexsort((priority, -jnp.round(scores / SLACK), ~available))
    ranks = jnp.zeros_like(scores).at[order].set(jnp.arange(1, scores.size + 1, dtype=scores.dtype))
    ranks = axis.of_gathered(ranks)
    return _noise(noise_key, ranks, axis_name) - jnp.log(ranks)


def _noise(key: Key, scores: Float[Array, "N"], axis_name: AxisName | None) -> Float[Array, "N"]:
    # Made for all points on every device: JAX has no way to ask for a part of it.
    axis = pool_axis(axis_name, scores.size)
    return axis.of_whole(jax.random.gumbel(key, (axis.num_points,), scores.dtype))
