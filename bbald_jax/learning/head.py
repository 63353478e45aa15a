"""A Bayesian logistic head on frozen features: refitted in milliseconds, sampled exactly enough."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.learning.chunks import map_chunks
from bbald_jax.learning.head_inputs import (
    check_features,
    check_labelled,
    check_mean,
    check_weights,
)
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.logistic_regression import laplace_samples, logistic_map, matmul, span
from bbald_jax.pool import Labelled
from bbald_jax.typing import Key, LogProbs
from bbald_jax.validation import assert_positive

#: Ways to draw posterior samples.
POSTERIORS = ("anchored", "laplace")

# Rows that are normalised and multiplied at a time: copies of them, not of the pool, are held.
_CHUNK_ROWS = 4_096
# Elements of the logits of labelled rows, for the posterior samples that are fitted at a time.
_FIT_ELEMENTS = 2**24
# A weaker prior drowns in float32's rounding.
_MOST_VARIANCE = 10_000
# In logits of a row. A sample scatters by one or more.
_SAMPLE_TOLERANCE, _MAP_TOLERANCE = 2e-2, 2e-3


class HeadState(NamedTuple):
    """What the head has learnt.

    Attributes:
      mean: `[D]`, of the normalised rows of the pool.
      rows: `[capacity, D]`, the labelled rows as the head sees them, the others zero.
      labels: `[capacity]` int32, 0 where there is none.
      num_examples: `[]` int32.
      weights: `[D, C]`, the MAP.
    """

    mean: Float[Array, "D"]
    rows: Float[Array, "capacity D"]
    labels: Int[Array, "capacity"]
    num_examples: Int[Array, ""]
    weights: Float[Array, "D C"]


def logistic_head(
    num_classes: int,
    *,
    prior_variance: float = 16.0,
    centre: float = 0.5,
    posterior: str = "anchored",
) -> Learner:
    """Bayesian multinomial logistic regression on frozen features, `[N, D]`, as a `Learner`.

    phi_n = |x_n / |x_n| - centre * mean_m x_m / |x_m||  (normalised again)
    p(y=c | x_n, W) = softmax(W' phi_n)_c,    W_dc ~ N(0, prior_variance)

    `fit` finds the MAP in the span of the labelled rows, so that its cost does not grow with D^2
    while there are fewer labels than features. No label at all leaves the prior. There is no
    intercept.

    `sample` draws K posterior samples, each a W for all points. "anchored": the MAP under a prior
    that is centred at a draw w0_k of the prior,

        W_k = argmin_W  cross-entropy(W) + |W - w0_k|^2 / (2 prior_variance),

    which is the exact posterior if the likelihood is Gaussian, and close to it here (the table in
    `experiments/results/head/calibration.md`). "laplace" is the Gaussian with the curvature at
    the MAP, for comparison: where classes are separable the curvature vanishes, and it knows far
    less than it should.

    The head predicts with the MAP, which is more accurate than the mean of the samples. Its
    `gaussian` has the covariance s2-prior and all labelled points at their largest weight, 1 / C,

        Sigma^-1 = I / prior_variance + sum_i phi_i phi_i' / C,

    which does not depend on the labels.

    Args:
      num_classes: C, at least 2.
      prior_variance: s2, of every weight: the prior variance of a logit too, as rows have length 1;
        at most 10,000.
      centre: how much of the pool's mean is subtracted, in [0, 1]: 0 is the cosine similarity, 1
        takes away all that the rows have in common.
      posterior: "anchored" or "laplace".

    Returns:
      The `Learner`. Rows of zeros predict the prior. Memory beside
      input and output: a few thousand rows of features, and `[D, K, C]` weights; for `gaussian`
      `[D, D]`.

    Raises:
      ValueError: an argument out of range.
      TypeError, ValueError: when it is used, features that are sparse or not `[N, D]`, NaN or the
        same for all points; labels that are no classes.

    Source: anchoring: Pearce, Leibfried, Brintrup, Uncertainty in Neural Networks: Approximately
    Bayesian Ensembling (2020); sample-then-optimise: Matthews et al. (2017). The covariance:
    Boehning (1992) bounds every weight p (1 - p).
    """
    assert_positive(num_classes=num_classes)
    if num_classes < 2:
        raise ValueError(
            f"num_classes: {num_classes}; labels that cannot differ tell nothing: take 2"
        )
    if not 0 < prior_variance <= _MOST_VARIANCE:
        raise ValueError(f"prior_variance: {prior_variance} is not in (0, {_MOST_VARIANCE:,}]")
    if not 0 <= centre <= 1:
        raise ValueError(f"centre: {centre} is not in [0, 1]")
    if posterior not in POSTERIORS:
        raise ValueError(f"posterior: {posterior!r} is none of {', '.join(POSTERIORS)}")
    head = _Head(num_classes, float(prior_variance), float(centre), posterior)
    return _checked(head)


def sample_weights(
    key: Key,
    state: HeadState,
    num_samples: int,
    *,
    prior_variance: float = 16.0,
    posterior: str = "anchored",
) -> Float[Array, "D K C"]:
    """K posterior samples of the head's weights.

    Args:
      key: all K come from it.
      state: after a fit with the same prior variance; without a label, the samples are the prior's.
      num_samples: K (static).
      prior_variance: s2 (static).
      posterior: one of `POSTERIORS` (static), see `logistic_head`.

    Returns:
      `[D, K, C]`.
    """
    num_features, num_classes = state.weights.shape
    draw_key, noise_key = jax.random.split(key)
    shape = (num_features, num_samples, num_classes)
    draws = jnp.sqrt(prior_variance) * jax.random.normal(draw_key, shape)
    if state.rows.shape[0] == 0:
        return draws
    space = span(state.rows, prior_variance)
    is_labelled = jnp.arange(len(state.labels)) < state.num_examples
    anchors = space.enter(draws)
    if posterior == "laplace":
        samples = laplace_samples(
            space,
            space.enter(state.weights),
            is_labelled,
            anchors,
            jax.random.normal(noise_key, (len(state.labels), *shape[1:])),
            prior_variance=prior_variance,
            tolerance=_SAMPLE_TOLERANCE,
        )
    else:

        def solve(anchors: Float[Array, "k R C"]) -> Float[Array, "k R C"]:
            solutions = logistic_map(
                space,
                state.labels,
                is_labelled,
                jnp.swapaxes(anchors, 0, 1),
                prior_variance=prior_variance,
                tolerance=_SAMPLE_TOLERANCE,
            )
            return jnp.swapaxes(solutions, 0, 1)

        at_once = max(1, _FIT_ELEMENTS // (len(state.labels) * num_classes))
        samples = map_chunks(solve, jnp.swapaxes(anchors, 0, 1), chunk_size=at_once)
        samples = jnp.swapaxes(samples, 0, 1)
    # What of a draw lies outside of the span no label has touched.
    return draws + space.leave(samples - anchors)


def _checked(head: "_Head") -> Learner:
    """The functions of a head, jitted, with what they refuse (`head_inputs`) outside of `jit`."""
    init, fit, sample = (
        jax.jit(head.init),
        jax.jit(head.fit),
        jax.jit(head.sample, static_argnums=3),
    )

    def checked_init(key: Key, x: Any) -> HeadState:
        check_features("x", x)
        state = init(key, x)
        check_mean(state.mean, x)
        return state

    def checked_fit(key: Key, state: HeadState, labelled: Labelled, validation: Any) -> HeadState:
        check_features("labelled.x", labelled.x, len(state.mean))
        check_labelled(labelled, head.num_classes)
        state = fit(key, state, labelled, validation)
        check_weights(state.weights, labelled)
        return state

    def checked_sample(key: Key, state: HeadState, x: Any, num_samples: int) -> LogProbs:
        assert_positive(num_samples=num_samples)
        check_features("x", x, len(state.mean))
        return sample(key, state, x, num_samples)

    def on_features(function: Any) -> Any:
        jitted = jax.jit(function)

        def checked(state: HeadState, *arrays: Any) -> Any:
            for x in arrays:
                check_features("x", x, len(state.mean))
            return jitted(state, *arrays)

        return checked

    return Learner(
        init=checked_init,
        fit=checked_fit,
        sample=checked_sample,
        predict=on_features(head.predict),
        features=on_features(head.features),
        gaussian=on_features(head.gaussian),
    )


class _Head(NamedTuple):
    """The settings, and the functions of the `Learner`, to be jitted."""

    num_classes: int
    prior_variance: float
    centre: float
    posterior: str

    def init(self, key: Key, x: Num[Array, "N D"]) -> HeadState:
        """No label: the prior, and the pool's mean."""
        del key
        num_features = x.shape[1]
        return HeadState(
            mean=_mean_direction(x),
            rows=jnp.zeros((0, num_features)),
            labels=jnp.zeros(0, jnp.int32),
            num_examples=jnp.int32(0),
            weights=jnp.zeros((num_features, self.num_classes)),
        )

    def fit(self, key: Key, state: HeadState, labelled: Labelled, validation: Labelled):
        """The MAP on the labelled rows."""
        del key, validation
        num_examples = labelled.num_examples
        is_labelled = jnp.arange(len(labelled.y)) < num_examples
        rows = jnp.where(is_labelled[:, None], self._rows(state.mean, labelled.x), 0)
        labels = jnp.where(is_labelled, labelled.y, 0)
        space = span(rows, self.prior_variance)
        anchors = jnp.zeros((space.rows.shape[1], 1, self.num_classes))
        solution = logistic_map(
            space,
            labels,
            is_labelled,
            anchors,
            prior_variance=self.prior_variance,
            tolerance=_MAP_TOLERANCE,
        )
        return HeadState(state.mean, rows, labels, num_examples, space.leave(solution)[:, 0])

    def sample(self, key: Key, state: HeadState, x: Num[Array, "N D"], num_samples: int):
        """`[N, K, C]`, predictions of K posterior samples."""
        weights = sample_weights(
            key,
            state,
            num_samples,
            prior_variance=self.prior_variance,
            posterior=self.posterior,
        )
        flat = weights.reshape(weights.shape[0], -1)

        def predictions(x: Num[Array, "n D"]) -> LogProbs:
            logits = matmul(self._rows(state.mean, x), flat)
            return jax.nn.log_softmax(logits.reshape(len(x), num_samples, -1), axis=-1)

        return map_chunks(predictions, x, chunk_size=max(1, _CHUNK_ROWS * 256 // flat.shape[1]))

    def predict(self, state: HeadState, x: Num[Array, "N D"]) -> Float[Array, "N C"]:
        """`[N, C]`, log-probabilities of the MAP."""
        return map_chunks(
            lambda x: jax.nn.log_softmax(matmul(self._rows(state.mean, x), state.weights)),
            x,
            chunk_size=_CHUNK_ROWS,
        )

    def features(self, state: HeadState, x: Num[Array, "N D"]) -> Float[Array, "N D"]:
        """`[N, D]`, rows as the head sees them."""
        return map_chunks(partial(self._rows, state.mean), x, chunk_size=_CHUNK_ROWS)

    def gaussian(
        self, state: HeadState, x: Num[Array, "N D"], x_target: Num[Array, "T D"]
    ) -> GaussianPosterior:
        """The closed form of the posterior for pool and targets."""
        num_features = state.mean.shape[0]
        precision = jnp.eye(num_features) / self.prior_variance
        precision += matmul(state.rows.T, state.rows) / self.num_classes
        # Sigma = root root': its condition is at most that of the precision, some thousands.
        factor = jnp.linalg.cholesky(precision)
        root = jax.scipy.linalg.solve_triangular(factor, jnp.eye(num_features), lower=True).T

        def describe(x: Num[Array, "n D"]) -> tuple[Float[Array, "n ..."], ...]:
            rows = self._rows(state.mean, x)
            factors = matmul(rows, root)
            variance = jnp.sum(factors**2, axis=1, keepdims=True)
            # The mean of a softmax of Gaussian logits (MacKay 1992).
            moderated = matmul(rows, state.weights) / jnp.sqrt(1 + jnp.pi / 8 * variance)
            probs = jax.nn.softmax(moderated, axis=-1)
            left = (1 - jnp.sum(probs**2, axis=1)) / (self.num_classes - 1)
            return factors, left, 1 - jnp.max(probs, axis=1)

        factors, weights, _ = map_chunks(describe, x, chunk_size=_CHUNK_ROWS)
        theirs, their_weights, doubts = map_chunks(describe, x_target, chunk_size=_CHUNK_ROWS)
        num_classes = jnp.int32(self.num_classes)
        return GaussianPosterior(factors, weights, theirs, their_weights, num_classes, doubts)

    def _rows(self, mean: Float[Array, "D"], x: Num[Array, "n D"]) -> Float[Array, "n D"]:
        return _normalise(_normalise(x) - self.centre * mean)


def _mean_direction(x: Num[Array, "N D"]) -> Float[Array, "D"]:
    """The mean of the normalised rows, without a normalised copy of the pool."""
    num_points, num_features = x.shape
    size = min(_CHUNK_ROWS, num_points)

    def add(i: Int[Array, ""], total: Float[Array, "D"]) -> Float[Array, "D"]:
        start = jnp.minimum(i * size, num_points - size)
        rows = _normalise(jax.lax.dynamic_slice_in_dim(x, start, size))
        is_new = start + jnp.arange(size) >= i * size  # the last chunk begins within the one before
        return total + jnp.sum(jnp.where(is_new[:, None], rows, 0), axis=0)

    return jax.lax.fori_loop(0, -(-num_points // size), add, jnp.zeros(num_features)) / num_points


def _normalise(x: Num[Array, "n D"]) -> Float[Array, "n D"]:
    """Rows of length 1; of zeros where they were."""
    # First to a largest element of 1: squares of large or small ones leave float32's range.
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)
