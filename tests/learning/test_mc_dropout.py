"""Sampling predictions: sample k is the same network for every point, whatever its chunk."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import temporary_bytes

from bbald_jax.learning import model as models
from bbald_jax.learning.chunks import map_chunks
from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.mc_dropout import sample_mc_dropout
from bbald_jax.learning.model import Model
from bbald_jax.learning.networks import MLP, PaperCNN

KEY = jax.random.key(0)
NUM_POINTS, NUM_SAMPLES, NUM_CLASSES = 130, 3, 4  # more points than two chunks hold


class PlainDropout(nn.Module):
    """A user's own module: `nn.Dropout` on maps, without `broadcast_dims`."""

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        x = nn.tanh(nn.Conv(4, (3, 3))(x))
        x = nn.Dropout(0.5)(x, deterministic=deterministic)
        return nn.Dense(NUM_CLASSES)(x.reshape(x.shape[0], -1))


NETWORKS = {
    "mlp": (MLP(NUM_CLASSES, hidden=(16,)), (3,)),
    "cnn": (PaperCNN(NUM_CLASSES), (16, 16, 1)),
    "own": (PlainDropout(), (4, 4, 1)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def sampled(request: pytest.FixtureRequest):
    """The sampling function, the points, and their log-probabilities in one call.

    Points 5, 70 and 129 are copies of one another, in different chunks.
    """
    module, shape = NETWORKS[request.param]
    model = flax_model(module)
    x = jax.random.normal(KEY, (NUM_POINTS, *shape))
    x = x.at[jnp.array([70, 129])].set(x[5])
    params = model.init(KEY, x[:1])
    sample = jax.jit(lambda key, x: sample_mc_dropout(key, model, params, x, num_samples=3))
    return sample, x, sample(KEY, x), partial(model.apply, params)


def test_samples_are_log_probabilities(sampled):
    _, _, log_probs, _ = sampled
    assert log_probs.shape == (NUM_POINTS, NUM_SAMPLES, NUM_CLASSES)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, atol=1e-5)


def test_the_whole_equals_its_pieces(sampled):
    sample, x, log_probs, _ = sampled
    pieces = np.concatenate([sample(KEY, piece) for piece in jnp.split(x, 5)])
    np.testing.assert_allclose(pieces, log_probs, atol=1e-5)


def test_copies_of_a_point_get_the_same_predictions(sampled):
    _, _, log_probs, _ = sampled
    np.testing.assert_allclose(log_probs[70], log_probs[5], atol=1e-5)
    np.testing.assert_allclose(log_probs[129], log_probs[5], atol=1e-5)


def test_each_sample_is_another_network(sampled):
    _, _, log_probs, _ = sampled
    for k in range(NUM_SAMPLES):
        assert np.abs(log_probs[:, k] - log_probs[:, k - 1]).max(axis=-1).min() > 1e-4


def test_each_sample_is_a_function_of_the_model(sampled):
    _, x, log_probs, apply = sampled
    for k, key in enumerate(jax.random.split(KEY, NUM_SAMPLES)):
        expected = jax.nn.log_softmax(apply(x[:9], key))
        np.testing.assert_allclose(log_probs[:9, k], expected, atol=1e-5)


def test_samples_come_from_the_key(sampled):
    sample, x, log_probs, _ = sampled
    np.testing.assert_array_equal(sample(KEY, x), log_probs)
    assert np.abs(sample(jax.random.key(1), x) - log_probs).max() > 1e-2


def test_the_activations_of_one_chunk_are_held_at_a_time():
    num_points, width = 6_400, 512
    model = flax_model(MLP(NUM_CLASSES, hidden=(width,)))
    x = jnp.zeros((num_points, 3))
    params = model.init(KEY, x[:1])
    sample = jax.jit(lambda key, x: sample_mc_dropout(key, model, params, x, num_samples=2))
    analysis = sample.lower(KEY, x).compile().memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 4 * num_points * width / 4


# --- a network that draws its samples together


@pytest.fixture(scope="module")
def factored() -> tuple[Model, models.Params, jax.Array]:
    """The paper's network, any parameters, and points of which no chunk size is a divisor."""
    model = flax_model(PaperCNN(NUM_CLASSES))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(13, 16, 16, 1)), jnp.float32)
    shapes = jax.eval_shape(model.init, KEY, x)
    params = jax.tree.map(lambda leaf: jnp.float32(0.1 * rng.normal(size=leaf.shape)), shapes)
    return model, params, x


def sample_with(model: Model, params: models.Params, x: jax.Array, num_samples: int) -> jax.Array:
    sample = partial(sample_mc_dropout, num_samples=num_samples)
    return jax.jit(lambda params, x: sample(KEY, model, params, x))(params, x)


# On a CPU in chunks of 8 points, at 100 samples of 4.
@pytest.mark.parametrize("num_samples", [1, 3, 100])
def test_samples_drawn_together_are_those_drawn_one_by_one(factored, num_samples: int):
    model, params, x = factored
    together = sample_with(model, params, x, num_samples)
    one_by_one = sample_with(model._replace(draw=None), params, x, num_samples)
    assert together.shape == (13, num_samples, NUM_CLASSES)
    scale = np.abs(one_by_one).max()
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=2e-6 * scale)


@pytest.fixture(scope="module")
def whole(factored) -> jax.Array:
    """What three networks drawn together predict for all points at once."""
    model, params, x = factored
    networks = jax.jit(lambda params, x: model.draw(params, jax.random.split(KEY, 3))(x))
    return jax.nn.log_softmax(networks(params, x), axis=-1)


@pytest.mark.parametrize("num_points", [1, 8, 9])
def test_chunks_drawn_together_equal_the_whole(factored, whole: jax.Array, num_points: int):
    model, params, x = factored
    expected = whole[:num_points]
    actual = sample_with(model, params, x[:num_points], 3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_memory_of_drawing_together_does_not_grow_with_the_points(factored):
    model, params, _ = factored

    def memory(num_points: int) -> int:
        sample = partial(sample_mc_dropout, num_samples=10)
        points = jax.ShapeDtypeStruct((num_points, 16, 16, 1), jnp.float32)
        return temporary_bytes(lambda params, x: sample(KEY, model, params, x), params, points)

    assert memory(1000) < 1.1 * memory(20)


def test_extreme_logits_stay_normalised():
    model = Model(lambda key, x: None, lambda params, x, key=None: x)
    x = jnp.array([[1e4, 0, 0, -1e4], [500, 500, -500, 0]])
    log_probs = sample_mc_dropout(KEY, model, None, x, num_samples=2)
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("num_points", [1, 3, 4, 5, 8, 11])
def test_chunks_equal_the_whole(num_points: int):
    x = jnp.arange(6.0 * num_points).reshape(num_points, 2, 3)
    sizes = []

    def function(points: jax.Array) -> jax.Array:
        sizes.append(len(points))
        return jnp.cumsum(points.reshape(len(points), 6), axis=1)

    expected = np.cumsum(x.reshape(num_points, 6), axis=1)
    np.testing.assert_array_equal(map_chunks(function, x, chunk_size=4), expected)
    assert set(sizes) == {min(4, num_points)}


def test_chunks_keep_the_dtype():
    x = jnp.arange(5.0)[:, None]
    out = map_chunks(lambda points: points[:, 0].astype(jnp.int32), x, chunk_size=2)
    assert out.dtype == jnp.int32
    assert out.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_samples", [3, 300])
def test_an_accelerator_computes_the_same_in_larger_pieces(
    monkeypatch: pytest.MonkeyPatch, num_samples: int
):
    # What it runs differently (all networks at once, XLA's own convolution) runs here too.
    x = jax.random.normal(KEY, (NUM_POINTS, 16, 16, 1))
    factored = flax_model(PaperCNN(NUM_CLASSES))
    params = factored.init(KEY, x[:1])
    for model in (factored, factored._replace(draw=None)) if num_samples == 3 else (factored,):
        results = []
        for backend in ("cpu", "gpu"):
            monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
            results.append(sample_mc_dropout(KEY, model, params, x, num_samples=num_samples))
        np.testing.assert_allclose(*results, atol=1e-4)
