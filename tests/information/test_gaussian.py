"""Joint information in Gaussian form, against dense covariances and the exact joint information."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import bbald_jax as bb

K = 30
SHAPES = ((1, K, 3), (4, K, 3), (3, K, 2), (4, 5, 9))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_it_is_bald_and_the_total_correlation_of_gaussian_labels(make_log_probs, shape, scale):
    log_probs = make_log_probs(*shape, scale=scale)
    expected = reference.gaussian_joint_mutual_information(log_probs)
    found = bb.gaussian_joint_mutual_information(log_probs)
    # The shrinkage of a thousandth, which is a limit where K samples determine the labels.
    np.testing.assert_allclose(found, expected, atol=2e-3 + 0.02 * abs(expected))


def test_one_point_is_bald(make_log_probs):
    log_probs = make_log_probs(1, K, 4, zeros=0.3)
    expected = reference.mutual_information(log_probs)[0]
    assert float(bb.gaussian_joint_mutual_information(log_probs)) == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_where_information_is_small_it_is_the_exact_one(make_log_probs, seed):
    log_probs = make_log_probs(4, K, 3, scale=0.2, seed=seed)
    exact = reference.joint_mutual_information(log_probs)
    assert float(bb.gaussian_joint_mutual_information(log_probs)) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("num_points", [2, 4, 6])
def test_it_ranks_random_batches_like_the_exact_one(make_log_probs, num_points):
    """Points of few and many nats; without near-copies."""
    rng = np.random.default_rng(num_points)
    scales = rng.uniform(0.2, 3, size=(20, 1, 1))
    logits = scales * rng.normal(size=(20, K, 2))
    pool = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    batches = [rng.choice(20, num_points, replace=False) for _ in range(40)]
    exact = [reference.joint_mutual_information(pool[batch]) for batch in batches]
    found = [
        float(bb.gaussian_joint_mutual_information(jnp.asarray(pool[batch], jnp.float32)))
        for batch in batches
    ]
    assert np.corrcoef(exact, found)[0, 1] > 0.98


def test_the_order_of_points_samples_and_classes_does_not_matter(make_log_probs):
    log_probs = make_log_probs(4, K, 3)
    expected = bb.gaussian_joint_mutual_information(log_probs)
    for axis in range(3):
        flipped = jnp.flip(log_probs, axis=axis)
        found = bb.gaussian_joint_mutual_information(flipped)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_impossible_classes_and_certain_points_are_numbers():
    log_probs = jnp.log(jnp.eye(3)[jnp.arange(4 * K).reshape(4, K) % 3])
    assert jnp.isfinite(bb.gaussian_joint_mutual_information(log_probs))
    certain = jnp.broadcast_to(jnp.log(jnp.array([1.0, 0, 0])), (2, K, 3))
    assert float(bb.gaussian_joint_mutual_information(certain)) == pytest.approx(0, abs=1e-5)


def test_one_sample_knows_nothing(make_log_probs):
    log_probs = make_log_probs(3, 1, 4)
    assert float(bb.gaussian_joint_mutual_information(log_probs)) == pytest.approx(0, abs=1e-5)


def test_a_sum_has_a_gradient(make_log_probs):
    log_probs = make_log_probs(3, K, 3)
    slope = jax.grad(lambda x: bb.gaussian_joint_mutual_information(jax.nn.log_softmax(x)))(
        log_probs
    )
    assert jnp.isfinite(slope).all()
    assert jnp.abs(slope).max() > 0
