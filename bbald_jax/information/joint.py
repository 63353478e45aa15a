"""Joint entropy and joint mutual information of a given batch, from its configurations."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bbald_jax.information.configurations import branch, extend, remaining_entropy, root
from bbald_jax.information.entropy import conditional_entropy
from bbald_jax.typing import Key, LogProbs
from bbald_jax.validation import assert_log_probs, assert_positive

#: `joint_entropy` and `joint_mutual_information` enumerate up to this many configurations.
MAX_EXACT_CONFIGURATIONS = 1_000_000


@jax.jit
def joint_mutual_information(log_probs: LogProbs) -> Float[Array, ""]:
    """Information of the labels of N given points about the parameters, I[y_1, ..., y_N; w].

    I[y_1..y_N; w] = log K - sum_m p(m) H[p(w | m)],   m over all C^N configurations

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[]`, nats, in [0, log K]; exact for the K given samples. Memory: 3 C^(N-1) (K + C) floats.

    Raises:
      ValueError: C^N is above `MAX_EXACT_CONFIGURATIONS`.

    Source: Kirsch, van Amersfoort, Gal (2019), eq. 5 and 8.
    """
    num_points, _, num_classes = assert_log_probs(log_probs)
    if num_classes**num_points > MAX_EXACT_CONFIGURATIONS:
        raise ValueError(
            f"log_probs: {num_points} points of {num_classes} classes have "
            f"{num_classes}^{num_points} configurations, more than the "
            f"{MAX_EXACT_CONFIGURATIONS:,} that are enumerated; use "
            "estimate_joint_mutual_information(key, log_probs, num_configurations=...)"
        )
    # The key is not used: nothing is thinned.
    return _joint_mutual_information(jax.random.key(0), log_probs, num_classes ** (num_points - 1))


@jax.jit
def joint_entropy(log_probs: LogProbs) -> Float[Array, ""]:
    """Joint entropy of the labels of N given points, H[y_1, ..., y_N].

    H[y_1..y_N] = I[y_1..y_N; w] + sum_n E_w H[y_n | w]

    The labels are independent given the parameters, so what the parameters do not explain adds up
    point by point.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[]`, nats; exact for the K given samples. Memory: 3 C^(N-1) (K + C) floats.

    Raises:
      ValueError: C^N is above `MAX_EXACT_CONFIGURATIONS`; the formula above, with
        `estimate_joint_mutual_information`, then gives an estimate.

    Source: Kirsch, van Amersfoort, Gal (2019), eq. 8 and 9.
    """
    assert_log_probs(log_probs)
    return joint_mutual_information(log_probs) + jnp.sum(conditional_entropy(log_probs))


@partial(jax.jit, static_argnames="num_configurations")
def estimate_joint_mutual_information(
    key: Key, log_probs: LogProbs, *, num_configurations: int
) -> Float[Array, ""]:
    """Information of the labels of N given points about the parameters, for any N.

    The tree that `select_batchbald` grows, for a batch that is given: to compare batches that
    other methods chose, and on posterior samples that did not choose them.

    Args:
      key: for the thinning of the configurations.
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      num_configurations: M, at least 1; more is more precise.

    Returns:
      `[]`, nats, in [0, log K]; exact while C^(N-1) <= M, a Monte-Carlo estimate beyond.
      Memory: 3 M (K + C) floats.

    Source: Kirsch, van Amersfoort, Gal (2019), section 3.2, with the module's estimator.
    """
    num_points, _, num_classes = assert_log_probs(log_probs)
    assert_positive(num_configurations=num_configurations)
    capacity = min(num_configurations, num_classes ** (num_points - 1))
    return _joint_mutual_information(key, log_probs, capacity)


def _joint_mutual_information(key: Key, log_probs: LogProbs, capacity: int) -> Float[Array, ""]:
    num_points, num_samples, _ = log_probs.shape
    tree = root(num_samples, capacity, log_probs.dtype)
    prior_entropy = remaining_entropy(tree)

    def add_point(tree, key_and_point):
        key, point = key_and_point
        return extend(key, tree, point, branch(tree, point)), None

    keys = jax.random.split(key, num_points)
    # The last point's children are only summed, so the tree never has to hold them.
    if num_points > 1:  # an empty scan does not work without jit
        tree, _ = lax.scan(add_point, tree, (keys[:-1], log_probs[:-1]))
    return prior_entropy - remaining_entropy(branch(tree, log_probs[-1]))
