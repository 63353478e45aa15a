"""A Gaussian posterior over logits: what closed forms of joint information need."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int


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
    """

    factors: Float[Array, "N D"]
    weights: Float[Array, "N"]
    target_factors: Float[Array, "T D"]
    target_weights: Float[Array, "T"]
    num_classes: Int[Array, ""]
