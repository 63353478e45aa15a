"""Joint information in Gaussian form: labels by two moments of what K samples say of them.

Write `pbar` for the mean of the K predictions of a point, and let

    A_n = (p_k(c | x_n) - pbar_c) / sqrt(K pbar_c)      [C, K]

be its whitened epistemic residuals. The one-hot labels of points i and j, each whitened by its own
covariance, have the covariance `A_i A_j'`, and with themselves the identity. If they were
Gaussian, a set S of them would leave of the samples

    P_S = (I + sum_{j in S} A_j' (I - A_j A_j')^-1 A_j)^-1      [K, K],  P_{} = I

unknown, and every joint quantity follows from `P_S`. There is no ceiling of log K.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.information.entropy import mutual_information
from bbald_jax.typing import LogProbs
from bbald_jax.validation import assert_log_probs

# `A A'` is brought below one by this share, so that exact copies do not make it singular.
_SHRINKAGE = 1e-3
# Of the predictions whose residuals are made together.
_CHUNK_ELEMENTS = 2**20
# Of the Gram matrix of the residuals, below which is rounding.
_JITTER = 1e-7


class GaussianPosterior(NamedTuple):
    """Logits that are independent between classes and share one covariance between points.

    cov[f_c(x_n), f_c(x_t)] = factors_n . target_factors_t    for every class c

    Attributes:
      factors: `[N, D]`, a square root of the pool's covariance; the variance of a point's logits is
        the squared length of its row.
      weights: `[N]`, in [0, 1/C], h_n = (1 - sum_c q_nc^2) / (C - 1) with q_n the predicted
        probabilities: what a unit of logit variance moves the label. 0 where the label is certain.
      target_factors: `[T, D]`, the same for the target points.
      target_weights: `[T]`.
      num_classes: `[]` int32, C.
      target_doubts: `[T]`, 1 - max_c q_tc: how likely the model's prediction for a target is to be
        wrong, by its own account; None where nobody has said.
    """

    factors: Float[Array, "N D"]
    weights: Float[Array, "N"]
    target_factors: Float[Array, "T D"]
    target_weights: Float[Array, "T"]
    num_classes: Int[Array, ""]
    target_doubts: Float[Array, "T"] | None = None


def residuals(log_probs: LogProbs) -> Float[Array, "N R K"]:
    """Whitened epistemic residuals A_n, in R = min(C, K) rows.

    Only `A_n' A_n` matters, so where there are more classes than samples a square root of it, of K
    rows, stands for A_n. Rows of impossible classes are 0; so are points with a NaN. Memory beside
    the result: a few MiB.
    """
    num_points, num_samples, num_classes = log_probs.shape
    size = min(num_points, max(1, _CHUNK_ELEMENTS // (num_samples * num_classes)))
    if size == num_points:
        return _residuals(log_probs)

    def add(i: Int[Array, ""], result: Float[Array, "N R K"]) -> Float[Array, "N R K"]:
        start = jnp.minimum(i * size, num_points - size)  # the last one ends with the array
        part = _residuals(lax.dynamic_slice_in_dim(log_probs, start, size))
        return lax.dynamic_update_slice_in_dim(result, part, start, axis=0)

    rows = min(num_classes, num_samples)
    result = jnp.zeros((num_points, rows, num_samples), log_probs.dtype)
    return lax.fori_loop(0, -(-num_points // size), add, result)


def _residuals(log_probs: LogProbs) -> Float[Array, "N R K"]:
    num_samples, num_classes = log_probs.shape[1:]
    probs = jnp.exp(log_probs)
    mean = jnp.mean(probs, axis=1, keepdims=True)
    scale = jnp.where(mean > 0, jax.lax.rsqrt(num_samples * jnp.where(mean > 0, mean, 1)), 0)
    scaled = jnp.sqrt(1 - _SHRINKAGE) * (probs - mean) * scale  # [N, K, C]
    scaled = jnp.where(jnp.isfinite(scaled).all(axis=(1, 2), keepdims=True), scaled, 0)
    if num_classes <= num_samples:
        return jnp.swapaxes(scaled, 1, 2)
    gram = jnp.einsum("nkc,nlc->nkl", scaled, scaled, precision=lax.Precision.HIGHEST)
    jitter = _JITTER * jnp.eye(num_samples)
    return jnp.swapaxes(jnp.linalg.cholesky(gram + jitter), 1, 2)


def covariance(
    points: Float[Array, "N R K"], unknown: Float[Array, "K K"]
) -> Float[Array, "N R R"]:
    """`V_n = I - A_n A_n' + A_n P A_n'`: of the whitened label, given what `unknown` = P leaves."""
    return jnp.eye(points.shape[1]) - explained(points, unknown)


def explained(points: Float[Array, "N R K"], unknown: Float[Array, "K K"]) -> Float[Array, "N R R"]:
    """`M_n = A_n (I - P) A_n'`: what is known of the whitened label already."""
    known = jnp.eye(unknown.shape[0]) - unknown
    half = jnp.matmul(points, known, precision=lax.Precision.HIGHEST)
    return jnp.einsum("nrk,nsk->nrs", half, points, precision=lax.Precision.HIGHEST)


def step_down(point: Float[Array, "R K"], unknown: Float[Array, "K K"]) -> Float[Array, "K R"]:
    """U with `P_{S + j} = P_S - U U'`, for a point j.

    U = P A_j' L^-T,   L L' = I - A_j A_j' + A_j P A_j'
    """
    root = jnp.linalg.cholesky(covariance(point[None], unknown)[0])
    right = jnp.matmul(point, unknown, precision=lax.Precision.HIGHEST)
    return jax.scipy.linalg.solve_triangular(root, right, lower=True).T


def learn(point: Float[Array, "R K"], unknown: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """`P_{S + j}`: what the label of a point leaves unknown."""
    step = step_down(point, unknown)
    return unknown - jnp.matmul(step, step.T, precision=lax.Precision.HIGHEST)


def log_determinant(matrices: Float[Array, "N R R"]) -> Float[Array, "N"]:
    """Of symmetric positive matrices."""
    diagonal = jnp.diagonal(jnp.linalg.cholesky(matrices), axis1=1, axis2=2)
    return 2 * jnp.sum(jnp.log(diagonal), axis=1)


@jax.jit
def gaussian_joint_mutual_information(log_probs: LogProbs) -> Float[Array, ""]:
    """Joint mutual information of the labels of a batch and the parameters, in Gaussian form.

    I[y_1, ..., y_N; w]  ~  sum_i I[y_i; w]  +  1/2 log det( correlation of the one-hot labels )

    The total correlation of the labels, what they tell twice, is that of Gaussian variables with
    the same two moments. Exact for one point, and in the limit of little information; there is no
    ceiling of log K above it. It is no bound, and copies of a point that is certain under each
    sample bring it below zero.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C, of the batch.

    Returns:
      `[]`, nats; an approximation. Memory beside the input: as much again. Time:
      O(N K^2 min(C, K)).

    Source: the two moments are those of Kirsch et al. (2019), section 3; the determinant is the
    entropy of Gaussian variables (Cover and Thomas, Elements of Information Theory, theorem 8.4.1).
    """
    _, num_samples, _ = assert_log_probs(log_probs)

    def add(unknown: Float[Array, "K K"], point: Float[Array, "R K"]):
        return learn(point, unknown), log_determinant(covariance(point[None], unknown))[0]

    _, shared = lax.scan(add, jnp.eye(num_samples), residuals(log_probs))
    return jnp.sum(mutual_information(log_probs)) + jnp.sum(shared) / 2
