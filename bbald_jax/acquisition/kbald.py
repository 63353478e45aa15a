"""k-BALD: BatchBALD's joint mutual information, approximated by pairs of points (k = 2)."""

from functools import partial

import jax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.pointwise import epig
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.progress import Progress
from bbald_jax.information.entropy import mutual_information
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending
from bbald_jax.validation import assert_log_probs, invalid_points


@partial(jax.jit, static_argnames=("batch_size", "progress", "axis_name"))
def select_kbald(
    log_probs: LogProbs,
    *,
    batch_size: int,
    available: Available | None = None,
    pending: Pending | None = None,
    key: Key | None = None,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """2-BALD: B informative points that tell little about each other, chosen greedily.

    argmax over S of  sum_{i in S} I[y_i; w] - sum_{i<j in S} I[y_i; y_j]

    one point at a time, by the gain  I[y_n; w] - sum_{j in S} I[y_n; y_j].  These are the first two
    orders of the expansion of I[y_S; w] in the interactions of its labels. What a label
    shares with two others at once is subtracted twice, so unlike BatchBALD's the score may fall as
    the batch grows: a gain may be negative, and the best one is taken even then, until the batch
    is full.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are in S from the start, and they are not returned.
      key: draws among points whose gains are equal within 1e-6; without it the lowest index is
        taken of those that are exactly equal.
      progress: called on the host after each point, with the number of points chosen so far
        (static: another function is another compilation; not under `vmap`).
      axis_name: see `select_batchbald`.

    Returns:
      B slots, in order of acquisition. `gains[i]` is the gain above, in nats; `scores[i]` the sum
      of the gains so far. Exact for the K given samples. Points with NaN are left out (of S too)
      and counted in `diagnostics.num_invalid`.
      Memory beside the input: that of `epig`, and about 4 N floats. Time: O((B + P) N K C^2).

    Raises:
      ValueError: `batch_size` below 1 (at trace time).

    Source: Kirsch (2023), "Speeding Up BatchBALD", with k = 2.
    """
    num_points, _, _ = assert_log_probs(log_probs)
    axis = pool_axis(axis_name, num_points)

    def gains_of(gains: Float[Array, "N"], available: Available):
        return gains, gains

    def condition(gains: Float[Array, "N"], index: Int[Array, ""], is_found: Bool[Array, ""]):
        """The gains once point `index` is in S: less `I[y_n; y_index]`, EPIG of that one target."""
        return gains - epig(log_probs, axis.row(log_probs, index)[None])

    return greedy(
        mutual_information(log_probs),
        gains_of,
        condition,
        batch_size=batch_size,
        available=available,
        pending=pending,
        is_invalid=invalid_points(log_probs),
        is_exact=True,
        key=key,
        progress=progress,
        axis_name=axis_name,
    )
