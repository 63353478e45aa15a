"""One number per point, higher is better: what a pointwise acquisition function ranks by.

BALD and the predictive entropy, which are entropies first, are in `information/entropy.py`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.information.entropy import mean_probs
from bbald_jax.tiling import tiling
from bbald_jax.typing import LogProbs, TargetLogProbs
from bbald_jax.validation import assert_log_probs, assert_target_log_probs, invalid_points


@jax.jit
def margin(log_probs: LogProbs) -> Float[Array, "N"]:
    """How little separates the two likeliest classes, negated so that higher is better.

    - ( p(c_1) - p(c_2) ),   p(c) = mean_k p(y=c | w_k),   c_1 and c_2 its two largest

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, a difference of probabilities, in [-1, 0]; -1 where C = 1. Exact for the K given
      samples.

    Source: Scheffer, Decomain, Wrobel (2001), "Active Hidden Markov Models for Information
    Extraction", on the mean prediction.
    """
    assert_log_probs(log_probs)
    # One impossible class more, so that a single one has a second beside it.
    probs = jnp.pad(mean_probs(log_probs), ((0, 0), (0, 1)))
    largest, _ = lax.top_k(probs, 2)
    return largest[:, 1] - largest[:, 0]


@jax.jit
def variation_ratio(log_probs: LogProbs) -> Float[Array, "N"]:
    """How often the likeliest class is expected to be wrong (least confidence).

    1 - max_c p(c),   p(c) = mean_k p(y=c | w_k)

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, a probability, in [0, 1 - 1/C]; exact for the K given samples.

    Source: Gal, Islam, Ghahramani (2017), section 4, after Freeman (1965).
    """
    assert_log_probs(log_probs)
    return 1 - jnp.max(mean_probs(log_probs), axis=-1)


@jax.jit
def mean_std(log_probs: LogProbs) -> Float[Array, "N"]:
    """How far the samples' probabilities spread, averaged over the classes.

    mean_c sqrt( mean_k p(y=c | w_k)^2 - (mean_k p(y=c | w_k))^2 )

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, a standard deviation of probabilities, in [0, 1/2]; 0 where K = 1. Exact for the K
      given samples.

    Source: Gal, Islam, Ghahramani (2017), section 4, after Kampffmeyer et al. (2016).
    """
    assert_log_probs(log_probs)
    return jnp.mean(jnp.std(jnp.exp(log_probs), axis=1), axis=-1)


@partial(jax.jit, static_argnames="axis_name")
def epig(
    log_probs: LogProbs, target_log_probs: TargetLogProbs, *, axis_name: AxisName | None = None
) -> Float[Array, "N"]:
    """Expected predictive information gain: what a label tells about the labels of the targets.

    EPIG(n) = mean_t I[y_n; y_t],   I[y_n; y_t] = KL( p(y_n, y_t) || p(y_n) p(y_t) ),
    p(y_n, y_t) = mean_k p(y_n | x_n, w_k) p(y_t | x_t, w_k)

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      target_log_probs: `[T, K, C]`, log p(y=c | x_t, w_k) for inputs like those that the model
        will have to predict, under the *same* K samples of the parameters: index k must mean the
        same network in both arrays. A target with a NaN is left out of the mean.
      axis_name: see `select_batchbald`; T is this device's share too. Each device passes its
        targets on, until every point has met every target.

    Returns:
      `[N]`, nats, in [0, I[y_n; w]] up to float32 rounding (about 1e-6); exact for the K given
      samples and the T given targets. 0 where K = 1. With one target it is I[y_n; y_t].
      Memory beside the input: at most about R (3 R + 4 K) floats, whatever N and T are, with
      R = max(C, `outcomes` in `tiling.py`: 640 on a CPU).
      Time: O(N T K C^2).

    Raises:
      ValueError: the targets have another K or C, or there are none (at trace time).

    Source: Bickford Smith et al. (2023), for classification.
    """
    num_points, num_samples, num_classes = assert_log_probs(log_probs)
    num_targets = assert_target_log_probs(log_probs, target_log_probs)
    axis = pool_axis(axis_name, num_points)
    is_valid = ~invalid_points(target_log_probs)
    side = max(1, tiling().outcomes // num_classes)
    block, tile = min(num_points, side), min(num_targets, side)

    def information(points: LogProbs, targets: TargetLogProbs) -> Float[Array, "N T"]:
        joint = jnp.einsum(
            "nkc,tkd->nctd", jnp.exp(points), jnp.exp(targets), precision=lax.Precision.HIGHEST
        )
        joint = joint / num_samples
        independent = mean_probs(points)[:, :, None, None] * mean_probs(targets)
        # The ratio is at most K, and its logarithm small where there is little to know: the
        # difference of three entropies would be ten times less precise.
        tiny = jnp.finfo(joint.dtype).tiny
        ratio = jnp.maximum(joint, tiny) / jnp.maximum(independent, tiny)
        return jnp.sum(joint * jnp.log(ratio), axis=(1, 3))

    # Both last chunks are moved back to end with their arrays. What that computes again of the
    # points is the same; of the targets it must not be counted twice.
    def sum_of(targets: TargetLogProbs, is_valid: Bool[Array, "T"]) -> Float[Array, "N"]:
        def score_block(i, scores):
            first = jnp.minimum(i * block, num_points - block)
            points = lax.dynamic_slice_in_dim(log_probs, first, block)

            def add_tile(j, total):
                start = jnp.minimum(j * tile, num_targets - tile)
                is_new = start + jnp.arange(tile) >= j * tile
                is_counted = is_new & lax.dynamic_slice_in_dim(is_valid, start, tile)
                some = lax.dynamic_slice_in_dim(targets, start, tile)
                counted = jnp.where(is_counted, information(points, some), 0)
                return total + jnp.sum(counted, axis=1)

            total = lax.fori_loop(0, -(-num_targets // tile), add_tile, jnp.zeros(block, dtype))
            return lax.dynamic_update_slice_in_dim(scores, total, first, 0)

        num_blocks = -(-num_points // block)
        return lax.fori_loop(0, num_blocks, score_block, jnp.zeros(num_points, dtype))

    dtype = log_probs.dtype
    total = axis.sum_over_all(sum_of, (target_log_probs, is_valid))
    return total / jnp.maximum(axis.sum(jnp.sum(is_valid)), 1)
