"""A Bayesian logistic head on frozen features: refitted in milliseconds, sampled exactly enough."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.learning.chunks import map_chunks
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
      prior_variance: s2, of every weight: the prior variance of a logit too, as rows have length 1.
      centre: how much of the pool's mean is subtracted, in [0, 1]. 0.5 is best where classes are
        imbalanced, 1 where they are balanced; 0 is the cosine similarity.
      posterior: "anchored" or "laplace".

    Returns:
      The `Learner`. Rows of zeros (and rows that are the mean) predict the prior. Memory beside
      input and output: a few thousand rows of features, and `[D, K, C]` weights; for `gaussian`
      `[D, D]`.

    Raises:
      ValueError: an argument out of range.
      TypeError, ValueError: when it is used, features that are sparse or not `[N, D]`.

    Source: anchoring: Pearce, Leibfried, Brintrup, Uncertainty in Neural Networks: Approximately
    Bayesian Ensembling (2020); sample-then-optimise: Matthews et al. (2017). The covariance:
    Boehning (1992) bounds every weight p (1 - p).
    """
    assert_positive(num_classes=num_classes)
    if num_classes < 2:
        raise ValueError(f"num_classes: {num_classes}; a label that cannot differ tells nothing")
    if not 0 < prior_variance < float("inf"):
        raise ValueError(f"prior_variance: {prior_variance} is no positive number")
    if not 0 <= centre <= 1:
        raise ValueError(f"centre: {centre} is not in [0, 1]")
    if posterior not in POSTERIORS:
        raise ValueError(f"posterior: {posterior!r} is none of {', '.join(POSTERIORS)}")
    head = _Head(num_classes, float(prior_variance), float(centre), posterior)
    return Learner(
        init=_on_features(jax.jit(head.init), 1),
        fit=_on_features(jax.jit(head.fit), 2),
        sample=_on_features(jax.jit(head.sample, static_argnums=3), 2),
        predict=_on_features(jax.jit(head.predict), 1),
        features=_on_features(jax.jit(head.features), 1),
        gaussian=_on_features(jax.jit(head.gaussian), 1, 2),
    )


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


def _on_features(function: Any, *positions: int) -> Any:
    """`function`, which refuses what is no array of features at these positions of its arguments.

    Outside of `jit`, which would turn away a sparse matrix with words of its own.
    """

    def checked(*arguments: Any) -> Any:
        for position in positions:
            x = arguments[position]
            _check_features(x.x if isinstance(x, Labelled) else x)
        return function(*arguments)

    return checked


def _check_features(x: Any) -> None:
    if hasattr(x, "toarray"):
        raise TypeError(
            f"x: {type(x).__name__} is sparse, and the head needs dense features; take "
            "bb.text_features(texts), or scikit-learn's TruncatedSVD(256).fit_transform(x), or "
            "x.toarray() where it is small"
        )
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or 0 in shape[1:]:
        raise ValueError(
            f"x: shape {shape} is not [N, D], a row of features a point; take bb.image_features "
            "for images, or x.reshape(len(x), -1)"
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
            mean=jnp.mean(_normalise(x), axis=0),
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

        def describe(x: Num[Array, "n D"]) -> tuple[Float[Array, "n D"], Float[Array, "n"]]:
            rows = self._rows(state.mean, x)
            factors = matmul(rows, root)
            variance = jnp.sum(factors**2, axis=1, keepdims=True)
            # The mean of a softmax of Gaussian logits (MacKay 1992).
            moderated = matmul(rows, state.weights) / jnp.sqrt(1 + jnp.pi / 8 * variance)
            left = 1 - jnp.sum(jax.nn.softmax(moderated, axis=-1) ** 2, axis=1)
            return factors, left / (self.num_classes - 1)

        factors, weights = map_chunks(describe, x, chunk_size=_CHUNK_ROWS)
        targets, target_weights = map_chunks(describe, x_target, chunk_size=_CHUNK_ROWS)
        return GaussianPosterior(
            factors, weights, targets, target_weights, jnp.int32(self.num_classes)
        )

    def _rows(self, mean: Float[Array, "D"], x: Num[Array, "n D"]) -> Float[Array, "n D"]:
        return _normalise(_normalise(x) - self.centre * mean)


def _normalise(x: Num[Array, "n D"]) -> Float[Array, "n D"]:
    """Rows of length 1; of zeros where they were."""
    # First to a largest element of 1: squares of large or small ones leave float32's range.
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)
