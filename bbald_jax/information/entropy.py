"""Entropies of one variable at a time: what is uncertain about a single label, and why.

All take `log_probs[n, k, c] = log p(y=c | x_n, w_k)`, return nats, and are exact for the K given
samples. A probability of exactly zero (`-inf`) has zero entropy. None copies its input, if jaxlib
is 0.10.2 or newer: before, on a CPU, one or two arrays of its size are made.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.typing import LogProbs
from bbald_jax.validation import assert_log_probs


def plogp(log_p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`p log p` from `log p`, with `0 log 0 = 0`; NaN stays NaN."""
    # The floor turns 0 * -inf into 0 * -3e38 without a branch.
    return jnp.exp(log_p) * jnp.maximum(log_p, jnp.finfo(log_p.dtype).min)


def xlogx(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x log x` from `x >= 0`, with `0 log 0 = 0`; NaN stays NaN."""
    return x * jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def mean_probs(log_probs: LogProbs) -> Float[Array, "N C"]:
    """The prediction averaged over the samples, `p(c) = mean_k p(y=c | w_k)`."""
    return jnp.mean(jnp.exp(log_probs), axis=1)


@jax.jit
def predictive_entropy(log_probs: LogProbs) -> Float[Array, "N"]:
    """Entropy of the label under the averaged prediction, H[y_n] (total uncertainty).

    H[y] = - sum_c p(c) log p(c),   p(c) = mean_k p(y=c | w_k)

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, nats, in [0, log C]; exact for the K given samples.

    Source: Gal, Islam, Ghahramani (2017), section 4, "max entropy".
    """
    assert_log_probs(log_probs)
    return -jnp.sum(xlogx(mean_probs(log_probs)), axis=-1)


@jax.jit
def conditional_entropy(log_probs: LogProbs) -> Float[Array, "N"]:
    """Expected entropy of the label once the parameters are known, E_w H[y_n | w] (noise).

    E_w H[y | w] = - mean_k sum_c p(y=c | w_k) log p(y=c | w_k)

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, nats, in [0, log C]; exact for the K given samples.

    Source: Houlsby et al. (2011), eq. 2, second term.
    """
    assert_log_probs(log_probs)
    return -jnp.mean(jnp.sum(plogp(log_probs), axis=-1), axis=-1)


@jax.jit
def mutual_information(log_probs: LogProbs) -> Float[Array, "N"]:
    """Expected information of each label about the parameters, I[y_n; w] (BALD).

    I[y; w] = H[ mean_k p(y | w_k) ] - mean_k H[ p(y | w_k) ]

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.

    Returns:
      `[N]`, nats, in [0, min(log K, log C)] up to float32 rounding of the two entropies (about
      1e-6); exact for the K given samples.

    Source: Houlsby et al. (2011), eq. 2.
    """
    assert_log_probs(log_probs)
    return predictive_entropy(log_probs) - conditional_entropy(log_probs)
