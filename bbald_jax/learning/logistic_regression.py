"""Multinomial logistic regression by accelerated gradients, for many priors' centres at once."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

#: An accelerator's own precision would be far below `_ROUNDING`.
matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)

# A step costs three products of matrices; a few dozen to some hundred are taken.
_MAX_STEPS = 2_000
# Derivatives smaller than this are float32's rounding.
_ROUNDING = 1e-5
# Of the trace.
_JITTER = 1e-6


class Span(NamedTuple):
    """Labelled rows in coordinates of the space that they span; rows beyond the labelled are zero.

    Attributes:
      basis: `[D, R]`, orthonormal; None where the coordinates are the features themselves (R = D).
      rows: `[n, R]`, row i of the features is `basis @ rows[i]`.
      inverse: `[R, R]`, the inverse of an upper bound of every class's Hessian,
        `I / s2 + rows' rows / 2`, and a millionth of its trace for float32's rounding.
    """

    basis: Float[Array, "D R"] | None
    rows: Float[Array, "n R"]
    inverse: Float[Array, "R R"]

    def enter(self, weights: Float[Array, "D ..."]) -> Float[Array, "R ..."]:
        """The coordinates of weights, whose part outside the span is left out."""
        return weights if self.basis is None else _times(self.basis.T, weights)

    def leave(self, coordinates: Float[Array, "R ..."]) -> Float[Array, "D ..."]:
        """The weights of coordinates."""
        return coordinates if self.basis is None else _times(self.basis, coordinates)


def span(rows: Float[Array, "n D"], prior_variance: float) -> Span:
    """The `Span` of labelled rows; of more rows than features, the whole space."""
    num_rows, num_features = rows.shape
    basis, coordinates = None, rows
    if num_rows < num_features:
        # Orthonormal for linearly dependent rows, too: the coordinates then have rank below R.
        basis, triangle = jnp.linalg.qr(rows.T)
        coordinates = triangle.T
    size = coordinates.shape[1]
    bound = jnp.eye(size) / prior_variance + matmul(coordinates.T, coordinates) / 2
    # Of many near-copies it would be singular in float32; more than the bound is one, too.
    bound += _JITTER * jnp.trace(bound) * jnp.eye(size)
    factor = jnp.linalg.cholesky(bound)
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(size))
    return Span(basis, coordinates, inverse)


def logistic_map(
    space: Span,
    labels: Int[Array, "n"],
    is_labelled: Bool[Array, "n"],
    anchors: Float[Array, "R K C"],
    *,
    prior_variance: float,
    tolerance: float,
) -> Float[Array, "R K C"]:
    """The K MAP solutions of multinomial logistic regression with K centres of the prior.

    u_k = argmin_u  sum_i -log softmax(u' r_i)[y_i]  +  |u - a_k|^2 / (2 s2)

    Accelerated gradient steps with restarts, preconditioned by an upper bound of the Hessian
    (diag(p) - p p' <= I / 2), so that no step overshoots and nothing has to be tuned. A solution
    that is good enough stands still, so that it does not depend on the others.

    Args:
      space: `span` of the rows r_i.
      labels: `[n]`, y_i in [0, C).
      is_labelled: `[n]`, False for rows that are not there.
      anchors: `[R, K, C]`, a_k; 0 is the ordinary MAP.
      prior_variance: s2.
      tolerance: of every coordinate, for a unit of the rows in logits. By strong convexity,
        |u - u*| <= s2 |gradient|.

    Returns:
      `[R, K, C]`.

    Source: Boehning, Multinomial logistic regression algorithm (1992), for the bound; Nesterov
    (1983); O'Donoghue and Candes, Adaptive restart for accelerated gradient schemes (2015).
    """
    observed = (jax.nn.one_hot(labels, anchors.shape[2]) * is_labelled[:, None])[:, None]

    def gradient(u: Float[Array, "R K C"]) -> Float[Array, "R K C"]:
        probs = jax.nn.softmax(_times(space.rows, u), axis=-1) * is_labelled[:, None, None]
        return _times(space.rows.T, probs - observed) + (u - anchors) / prior_variance

    return _minimise(space, gradient, anchors, tolerance / prior_variance)


def _minimise(
    space: Span,
    gradient: Callable[[Float[Array, "R K C"]], Float[Array, "R K C"]],
    start: Float[Array, "R K C"],
    small: float,
) -> Float[Array, "R K C"]:
    """K minima at once, where each derivative is small, of functions that `Span.inverse` bounds."""
    small = max(small, _ROUNDING)

    def step(carry):
        u, ahead, momentum, count, is_moving = carry
        slope = gradient(ahead)
        is_moving &= jnp.max(jnp.abs(slope), axis=(0, 2)) > small
        next_u = ahead - _times(space.inverse, slope)
        change = next_u - u
        is_wrong_way = jnp.sum(slope * change, axis=(0, 2)) > 0
        momentum = jnp.where(is_wrong_way, 1.0, momentum)
        next_momentum = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        further = jnp.where(is_wrong_way, 0.0, (momentum - 1) / next_momentum)[:, None]
        moves = is_moving[:, None]
        u = jnp.where(moves, next_u, u)
        ahead = jnp.where(moves, next_u + further * change, ahead)
        return u, ahead, next_momentum, count + 1, is_moving

    def goes_on(carry):
        return jnp.any(carry[4]) & (carry[3] < _MAX_STEPS)

    num_starts = start.shape[1]
    state = (start, start, jnp.ones(num_starts), 0, jnp.ones(num_starts, bool))
    return lax.while_loop(goes_on, step, state)[1]


def laplace_samples(
    space: Span,
    mode: Float[Array, "R C"],
    is_labelled: Bool[Array, "n"],
    draws: Float[Array, "R K C"],
    noise: Float[Array, "n K C"],
    *,
    prior_variance: float,
    tolerance: float,
) -> Float[Array, "R K C"]:
    """K samples of the Laplace approximation at the MAP, N(mode, H^-1), within the span.

    H = I / s2 + sum_i (diag(p_i) - p_i p_i') (x) r_i r_i'

    A draw z of N(0, H) is put together from standard normal ones, and H x = z solved by the steps
    of `logistic_map`: H, `[R C, R C]`, is never formed.

    Args:
      space: `span` of the rows r_i.
      mode: `[R, C]`, the MAP solution.
      is_labelled: `[n]`, False for rows that are not there.
      draws: `[R, K, C]`, from the prior, N(0, s2).
      noise: `[n, K, C]`, standard normal.
      prior_variance: s2.
      tolerance: as for `logistic_map`.

    Returns:
      `[R, K, C]`.

    Source: MacKay, A Practical Bayesian Framework for Backpropagation Networks (1992); drawing by
    solving: Papandreou and Yuille, Gaussian sampling by local perturbations (2010).
    """
    probs = jax.nn.softmax(matmul(space.rows, mode), axis=-1) * is_labelled[:, None]
    probs = probs[:, None]
    root = jnp.sqrt(probs)

    # root is a square root's diagonal: (diag(root) - p root') (same)' = diag(p) - p p'.
    scattered = root * noise - probs * jnp.sum(root * noise, axis=-1, keepdims=True)
    right = _times(space.rows.T, scattered) + draws / prior_variance

    def gradient(u: Float[Array, "R K C"]) -> Float[Array, "R K C"]:
        logits = _times(space.rows, u)
        weighed = probs * (logits - jnp.sum(probs * logits, axis=-1, keepdims=True))
        return _times(space.rows.T, weighed) + u / prior_variance - right

    return mode[:, None] + _minimise(space, gradient, draws, tolerance / prior_variance)


def _times(matrix: Float[Array, "a b"], array: Float[Array, "b ..."]) -> Float[Array, "a ..."]:
    """A product over the first axis of an array, as one matrix product."""
    product = matmul(matrix, array.reshape(array.shape[0], -1))
    return product.reshape(matrix.shape[0], *array.shape[1:])
