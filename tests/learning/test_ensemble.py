"""Deep ensembles: E networks of their own, each sampled K / E times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from bbald_jax.learning.ensemble import ensemble_learner
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.training import mc_dropout_learner

KEY = jax.random.key(0)
NUM_NETWORKS = 3
SINGLE = mc_dropout_learner(toy.mlp(), toy.RECIPE)
ENSEMBLE = ensemble_learner(SINGLE, NUM_NETWORKS)


@pytest.fixture(scope="module")
def fitted():
    x, y = toy.blobs(1, 40)
    return ENSEMBLE.fit(KEY, ENSEMBLE.init(KEY, x), toy.labelled(x, y), toy.nothing())


def network(states, index: int):
    return jax.tree.map(lambda leaf: leaf[index], states)


def test_every_network_is_the_single_learner_with_a_key_of_its_own(fitted):
    x, y = toy.blobs(1, 40)
    keys = jax.random.split(KEY, NUM_NETWORKS)
    for index, key in enumerate(keys):
        alone = SINGLE.fit(key, SINGLE.init(key, x), toy.labelled(x, y), toy.nothing())
        for one, other in zip(
            jax.tree.leaves(network(fitted, index)), jax.tree.leaves(alone), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-4)
    kernels = [leaf for leaf in jax.tree.leaves(fitted) if leaf.ndim == 3]
    assert all(np.any(kernel[0] != kernel[1]) for kernel in kernels)


def test_samples_are_shared_evenly_among_the_networks(fitted):
    x, _ = toy.blobs(2, 9)
    log_probs = ENSEMBLE.sample(KEY, fitted, x, 6)
    assert log_probs.shape == (9, 6, toy.NUM_CLASSES)
    for index, key in enumerate(jax.random.split(KEY, NUM_NETWORKS)):
        expected = SINGLE.sample(key, network(fitted, index), x, 2)
        np.testing.assert_allclose(log_probs[:, 2 * index : 2 * index + 2], expected, atol=1e-5)


def test_a_sample_is_one_function_however_the_points_come(fitted):
    x, _ = toy.blobs(2, 9)
    whole = ENSEMBLE.sample(KEY, fitted, x, 6)
    pieces = jnp.concatenate([ENSEMBLE.sample(KEY, fitted, x[i : i + 3], 6) for i in (0, 3, 6)])
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_samples_that_cannot_be_shared_are_refused(fitted):
    x, _ = toy.blobs(2, 9)
    for num_samples, instead in ((7, 6), (2, 3)):
        with pytest.raises(ValueError, match=f"num_samples: {num_samples} .* take {instead}"):
            ENSEMBLE.sample(KEY, fitted, x, num_samples)


def test_one_network_is_no_ensemble():
    x, _ = toy.blobs(2, 9)
    one = ensemble_learner(SINGLE, 1)
    (key,) = jax.random.split(KEY, 1)
    expected = SINGLE.sample(key, SINGLE.init(key, x), x, 4)
    np.testing.assert_allclose(one.sample(KEY, one.init(KEY, x), x, 4), expected, atol=1e-5)


def test_any_learner_will_do():
    # Its state is its key, its predictions come from the state.
    def sample(key, state, x, num_samples):
        logits = jax.random.normal(state, (len(x), num_samples, 2))
        return jax.nn.log_softmax(logits)

    learner = Learner(lambda key, x: key, lambda key, state, *_: state, sample)
    ensemble = ensemble_learner(learner, 4)
    x = jnp.zeros((3, 1))
    log_probs = ensemble.sample(KEY, ensemble.init(KEY, x), x, 8)
    per_network = log_probs.reshape(3, 4, 2, 2)
    assert len({per_network[:, e].tobytes() for e in range(4)}) == 4
