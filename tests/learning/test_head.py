"""The logistic head: MAP, posterior samples and Gaussian posterior against dense float64."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy

from bbald_jax import loop as loops
from bbald_jax.acquisition.inputs import Acquisition
from bbald_jax.acquisition.top import select_top
from bbald_jax.learning.head import HeadState, logistic_head, sample_weights
from bbald_jax.loop.rounds import Data, Loop
from bbald_jax.pool import Labelled

KEY = jax.random.key(0)
C, CAPACITY, K = 4, 12, 6
VARIANCE = 16.0
#: More features than the buffer has rows, and fewer.
WIDE, NARROW = 17, 5


def make_pool(num_features: int, num_points: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_points, num_features)) + 0.5
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(C, size=num_points), jnp.int32)


def fit(learner: Any, x, labelled_x, y, num_examples: int) -> HeadState:
    buffer = Labelled(labelled_x, y, jnp.int32(num_examples))
    return learner.fit(KEY, learner.init(KEY, x), buffer, toy.nothing(x.shape[1]))


LEARNER: Any = logistic_head(C)


@pytest.mark.parametrize("num_features", [WIDE, NARROW])
@pytest.mark.parametrize("num_examples", [0, 1, 7, CAPACITY])
@pytest.mark.parametrize("labels", ["all", "one class"])
def test_fit_is_the_map(num_features, num_examples, labels):
    x, y = make_pool(num_features)
    y = y[:CAPACITY] if labels == "all" else jnp.full(CAPACITY, 2)
    state = fit(LEARNER, x, x[:CAPACITY], y, num_examples)
    rows = reference.head_rows(x[:num_examples], x, 0.5)
    expected = reference.logistic_map(
        rows, np.asarray(y[:num_examples]), np.zeros((num_features, C)), VARIANCE
    )
    np.testing.assert_allclose(state.weights, expected, atol=3e-3)
    logits = reference.head_rows(x, x, 0.5) @ expected
    expected = np.log(reference.softmax(logits))
    np.testing.assert_allclose(LEARNER.predict(state, x), expected, atol=3e-3)


@pytest.mark.parametrize("centre", [0.0, 0.5, 1.0])
def test_features_are_normalised_centred_and_normalised_again(centre):
    x, _ = make_pool(WIDE)
    learner: Any = logistic_head(C, centre=centre)
    features = learner.features(learner.init(KEY, x), x[:7])
    np.testing.assert_allclose(features, reference.head_rows(x[:7], x, centre), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_a_row_does_not_matter(scale):
    x, _ = make_pool(WIDE)
    state = LEARNER.init(KEY, x)
    np.testing.assert_allclose(
        LEARNER.features(state, scale * x), LEARNER.features(state, x), atol=1e-6
    )


def test_a_row_of_zeros_is_a_number():
    x, y = make_pool(WIDE)
    x = x.at[0].set(0)
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], CAPACITY)
    assert jnp.isfinite(LEARNER.sample(KEY, state, x, K)).all()
    assert jnp.isfinite(LEARNER.predict(state, x)).all()


@pytest.mark.parametrize("num_features", [WIDE, NARROW])
@pytest.mark.parametrize("num_examples", [0, 7])
def test_every_sample_is_the_map_around_its_own_draw_of_the_prior(num_features, num_examples):
    x, y = make_pool(num_features)
    posterior = "anchored"
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], num_examples)
    samples = np.asarray(sample_weights(KEY, state, K, posterior=posterior))
    prior = np.asarray(sample_weights(KEY, LEARNER.init(KEY, x), K, posterior=posterior))
    rows = reference.head_rows(x[:num_examples], x, 0.5)
    for k in range(K):
        expected = reference.logistic_map(
            rows, np.asarray(y[:num_examples]), prior[:, k].astype(np.float64), VARIANCE
        )
        np.testing.assert_allclose(samples[:, k], expected, atol=2e-2)


def test_without_labels_the_samples_are_the_prior():
    x, _ = make_pool(NARROW)
    state = LEARNER.init(KEY, x)
    draws = np.asarray(sample_weights(KEY, state, 4_000, prior_variance=9.0))
    assert abs(draws.mean()) < 0.05
    covariance = np.cov(np.moveaxis(draws, 1, 0).reshape(4_000, -1).T)
    np.testing.assert_allclose(covariance, 9 * np.eye(NARROW * C), atol=1.0)


def test_laplace_samples_have_the_inverse_hessian_at_the_map_as_their_covariance():
    x, y = make_pool(NARROW)
    num_examples, num_draws = 7, 8_000
    posterior = "laplace"
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], num_examples)
    draws = np.asarray(sample_weights(KEY, state, num_draws, posterior=posterior))
    rows = reference.head_rows(x[:num_examples], x, 0.5)
    weights = np.asarray(state.weights, np.float64)
    expected = np.linalg.inv(reference.logistic_hessian(weights, rows, VARIANCE))
    flat = np.moveaxis(draws, 1, 0).reshape(num_draws, -1)
    # Standard errors of entries of a covariance: at most sqrt(2 / n) of the variances, here 0.25.
    np.testing.assert_allclose(np.cov(flat.T), expected, atol=1.3)
    np.testing.assert_allclose(flat.mean(axis=0), weights.ravel(), atol=0.25)


def test_laplace_outside_of_the_span_is_the_prior():
    x, y = make_pool(WIDE)
    posterior = "laplace"
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], CAPACITY)
    samples = np.asarray(sample_weights(KEY, state, K, posterior=posterior))
    prior = np.asarray(sample_weights(KEY, LEARNER.init(KEY, x), K, posterior=posterior))
    basis = np.linalg.svd(np.asarray(state.rows).T)[0][:, CAPACITY:]
    np.testing.assert_allclose(
        np.tensordot(basis.T, samples, 1), np.tensordot(basis.T, prior, 1), atol=1e-4
    )
    assert np.abs(np.tensordot(np.asarray(state.rows), samples - prior, 1)).max() > 1


@pytest.mark.parametrize("posterior", ["anchored", "laplace"])
def test_a_sample_is_one_function_however_the_points_come(posterior):
    learner = logistic_head(C, posterior=posterior)
    x, y = make_pool(WIDE)
    state = fit(learner, x, x[:CAPACITY], y[:CAPACITY], 7)
    whole = learner.sample(KEY, state, x, K)
    assert whole.shape == (30, K, C)
    np.testing.assert_allclose(jax.nn.logsumexp(whole, axis=-1), 0, atol=1e-5)
    pieces = [learner.sample(KEY, state, x[start : start + 10], K) for start in (0, 10, 20)]
    np.testing.assert_allclose(jnp.concatenate(pieces), whole, atol=1e-5)
    assert jnp.std(whole, axis=1).min() > 1e-3
    assert jnp.abs(whole - learner.sample(jax.random.key(1), state, x, K)).max() > 0.1


def test_other_points_in_the_buffer_change_nothing():
    x, y = make_pool(WIDE)
    first = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], 7)
    other = fit(LEARNER, x, x[:CAPACITY].at[7:].set(jnp.nan), y[:CAPACITY].at[7:].set(-1), 7)
    np.testing.assert_array_equal(first.weights, other.weights)
    np.testing.assert_array_equal(
        LEARNER.sample(KEY, first, x, K), LEARNER.sample(KEY, other, x, K)
    )


def test_copies_and_opposites_are_fitted():
    x, _ = make_pool(WIDE)
    rows = jnp.concatenate([jnp.tile(x[:1], (6, 1)), -jnp.tile(x[:1], (6, 1))])
    y = jnp.array([0, 0, 0, 0, 1, 1] + [2] * 6, jnp.int32)
    state = fit(LEARNER, x, rows, y, CAPACITY)
    expected = reference.logistic_map(
        reference.head_rows(rows, x, 0.5), np.asarray(y), np.zeros((WIDE, C)), VARIANCE
    )
    np.testing.assert_allclose(state.weights, expected, atol=3e-3)
    assert jnp.isfinite(LEARNER.sample(KEY, state, x, K)).all()


@pytest.mark.parametrize("num_features", [WIDE, NARROW])
def test_the_gaussian_posterior_is_the_dense_one(num_features):
    x, y = make_pool(num_features)
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], 7)
    found = LEARNER.gaussian(state, x, x[20:])
    rows, labelled = reference.head_rows(x, x, 0.5), reference.head_rows(x[:7], x, 0.5)
    covariance = np.linalg.inv(np.eye(num_features) / VARIANCE + labelled.T @ labelled / C)
    np.testing.assert_allclose(
        found.factors @ found.target_factors.T, rows @ covariance @ rows[20:].T, atol=1e-3
    )
    variance = np.einsum("nd,de,ne->n", rows, covariance, rows)
    mean = rows @ np.asarray(state.weights, np.float64)
    moderated = reference.softmax(mean / np.sqrt(1 + np.pi / 8 * variance)[:, None])
    weights = (1 - (moderated**2).sum(axis=1)) / (C - 1)
    np.testing.assert_allclose(found.weights, weights, atol=1e-4)
    np.testing.assert_allclose(found.target_weights, weights[20:], atol=1e-4)
    np.testing.assert_allclose(found.target_doubts, 1 - moderated[20:].max(axis=1), atol=1e-4)
    assert found.num_classes == C


def test_the_gaussian_posterior_without_labels_is_the_prior():
    x, _ = make_pool(WIDE)
    found = LEARNER.gaussian(LEARNER.init(KEY, x), x, x[:3])
    np.testing.assert_allclose(jnp.sum(found.factors**2, axis=1), VARIANCE, rtol=1e-5)
    np.testing.assert_allclose(found.weights, 1 / C, rtol=1e-5)


@pytest.mark.parametrize("prior_variance", [0.01, 1e4])
def test_strong_and_weak_priors_converge(prior_variance):
    x, y = make_pool(NARROW)
    learner = logistic_head(C, prior_variance=prior_variance)
    state = fit(learner, x, x[:CAPACITY], y[:CAPACITY], CAPACITY)
    rows = reference.head_rows(x[:CAPACITY], x, 0.5)
    expected = reference.logistic_map(
        rows, np.asarray(y[:CAPACITY]), np.zeros((NARROW, C)), prior_variance
    )
    np.testing.assert_allclose(rows @ state.weights, rows @ expected, atol=0.05)


def test_many_classes_and_samples_at_a_time(monkeypatch):
    """Samples are fitted in several goes where their logits would be too many."""
    x, y = make_pool(WIDE)
    state = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], 7)
    at_once = sample_weights(KEY, state, K)
    monkeypatch.setattr("bbald_jax.learning.head._FIT_ELEMENTS", 2 * CAPACITY * C)
    in_goes = sample_weights(KEY, state, K)
    np.testing.assert_allclose(in_goes, at_once, atol=1e-3)


def test_two_classes_and_whole_numbers_as_features():
    x = jnp.arange(24, dtype=jnp.int32).reshape(8, 3) % 5
    learner = logistic_head(2)
    y = jnp.array([0, 1] * 4, jnp.int32)
    state = fit(learner, x, x, y, 8)
    expected = reference.logistic_map(
        reference.head_rows(x, x, 0.5), np.asarray(y), np.zeros((3, 2)), VARIANCE
    )
    np.testing.assert_allclose(state.weights, expected, atol=3e-3)


def test_half_precision_embeddings_are_taken():
    x, y = make_pool(WIDE)
    half = x.astype(jnp.float16)
    state = fit(LEARNER, half, half[:CAPACITY], y[:CAPACITY], 7)
    single = fit(LEARNER, x, x[:CAPACITY], y[:CAPACITY], 7)
    assert state.weights.dtype == jnp.float32
    np.testing.assert_allclose(state.weights, single.weights, atol=0.02)


def test_it_works_under_vmap_over_trials():
    x, y = make_pool(WIDE)
    buffers = [Labelled(x[i : i + CAPACITY], y[i : i + CAPACITY], jnp.int32(7)) for i in (0, 9)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *buffers)
    start = LEARNER.init(KEY, x)
    together = jax.vmap(lambda buffer: LEARNER.fit(KEY, start, buffer, buffer))(stacked)
    for index, buffer in enumerate(buffers):
        alone = LEARNER.fit(KEY, start, buffer, buffer)
        np.testing.assert_allclose(together.weights[index], alone.weights, atol=1e-3)


def _by_gaussian(key, inputs: Any, *, batch_size, available, pending):
    """Uses every field, and checks what they are."""
    assert inputs.log_probs is None
    for field in (inputs.mean_log_probs, inputs.features, inputs.labelled, inputs.gaussian):
        assert field is not None
    chex.assert_shape(inputs.mean_log_probs, (30, C))
    chex.assert_shape(inputs.features, (30, WIDE))
    assert inputs.labelled.dtype == bool
    variance = jnp.sum(inputs.gaussian.factors**2, axis=1)
    score = jnp.where(inputs.labelled, -jnp.inf, variance)
    return select_top(score, batch_size=batch_size, available=available, num_invalid=jnp.int32(0))


USES_ALL = Acquisition(
    "uses-all", ("mean_log_probs", "features", "labelled", "gaussian"), _by_gaussian
)


def make_data() -> Data:
    x, y = make_pool(WIDE)
    return Data(x, y, toy.nothing(WIDE), x[:9], y[:9], x_target=x[20:])


def test_the_loop_starts_without_labels_and_compiles_once():
    data = make_data()
    loop = Loop(logistic_head(C), USES_ALL, batch_size=2, num_samples=K, capacity=CAPACITY)
    state = loops.init(KEY, data.y, num_classes=C, initial_per_class=0)
    compiled = len(toy.COMPILED)
    rounds = []
    for _, measured, _ in loops.run(loop, state, data, num_rounds=3):
        rounds.append(measured)
        if len(rounds) == 2:
            compiled = len(toy.COMPILED)
    assert len(toy.COMPILED) == compiled, toy.COMPILED[compiled:]
    assert [int(r.num_labelled) for r in rounds] == [0, 2, 4, 6]
    # The prior predicts all classes alike; what counts is that it predicts.
    assert float(rounds[0].evaluation.nll) == pytest.approx(np.log(C), abs=1e-5)
    labelled = [int(i) for r in rounds if r.batch for i in r.batch.indices]
    assert len({*labelled}) == 6


def test_it_is_evaluated_with_the_map():
    data = make_data()
    loop = Loop(LEARNER, USES_ALL, batch_size=2, num_samples=K, capacity=CAPACITY)
    state = loops.init(KEY, data.y, num_classes=C, initial_per_class=1)
    learned = loops.fit(loop, state, data)
    log_probs = LEARNER.predict(learned, data.x_test)
    nll = -np.mean(np.asarray(log_probs)[np.arange(9), np.asarray(data.y_test)])
    assert float(loops.evaluate(loop, state, learned, data).nll) == pytest.approx(nll, abs=1e-5)


def test_what_a_learner_or_the_data_lack_is_refused():
    data = make_data()
    state = loops.init(KEY, data.y, num_classes=C, initial_per_class=0)
    loop = Loop(LEARNER, USES_ALL, batch_size=2, num_samples=K, capacity=CAPACITY)
    learned = LEARNER.init(KEY, data.x)
    with pytest.raises(ValueError, match=r"data\.x_target: uses-all requires target points"):
        loops.predict(loop, state, learned, data._replace(x_target=None))
    lacking = loop._replace(learner=LEARNER._replace(gaussian=None))
    with pytest.raises(ValueError, match=r"take bb\.logistic_head"):
        loops.predict(lacking, state, learned, data)


def test_without_features_of_its_own_a_learner_has_the_inputs():
    data = make_data()
    state = loops.init(KEY, data.y, num_classes=C, initial_per_class=0)
    learner = LEARNER._replace(features=None, predict=None)
    acquisition = Acquisition("x", ("log_probs", "features", "mean_log_probs"), _by_gaussian)
    loop = Loop(learner, acquisition, batch_size=2, num_samples=K, capacity=CAPACITY)
    inputs: Any = loops.predict(loop, state, learner.init(KEY, data.x), data)
    np.testing.assert_array_equal(inputs.features, data.x)
    expected = jax.nn.logsumexp(inputs.log_probs, axis=1) - jnp.log(K)
    np.testing.assert_allclose(inputs.mean_log_probs, expected, atol=1e-6)
    assert inputs.gaussian is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1}, "num_classes: 1"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"prior_variance": 0.0}, "prior_variance: 0.0"),
        ({"prior_variance": float("nan")}, "prior_variance: nan"),
        ({"prior_variance": 1e6}, r"prior_variance: 1000000.0 is not in \(0, 10,000\]"),
        ({"centre": 1.5}, "centre: 1.5"),
        ({"posterior": "mcmc"}, "posterior: 'mcmc' is none of anchored, laplace"),
    ],
)
def test_settings_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        logistic_head(**{"num_classes": 3} | options)


def test_many_near_copies_and_a_weak_prior_are_fitted():
    """A bound of the Hessian that float32 takes for singular gave NaN."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(1 + 1e-3 * rng.normal(size=(2_000, 300)), jnp.float32)
    learner: Any = logistic_head(2, prior_variance=1e4, centre=0.0)
    y = jnp.asarray(rng.integers(2, size=2_000), jnp.int32)
    assert np.isfinite(fit(learner, x, x, y, 2_000).weights).all()


def test_no_copy_of_the_pool_is_made():
    x = jax.ShapeDtypeStruct((100_000, WIDE), jnp.float32)
    needed: Any = jax.jit(LEARNER.init).lower(KEY, x).compile().memory_analysis()
    assert needed.temp_size_in_bytes < 4 * 100_000 * WIDE / 4
