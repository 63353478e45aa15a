"""Joint entropy and joint mutual information of a given batch: exact, and estimated."""

import inspect
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import strategies
from conftest import (
    MakeLogProbs,
    assert_nats,
    assert_unbiased,
    in_float64,
    temporary_bytes,
    tile_bytes,
)

import bbald_jax as bb
from bbald_jax.information import joint
from bbald_jax.information.joint import estimate_joint_mutual_information as estimate

ROUNDING = 2e-6  # nats


def keys(num: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), num)


@jax.jit
def information_and_entropy(log_probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compiled in one go: the entropy computes the information, too."""
    return bb.joint_mutual_information(log_probs), bb.joint_entropy(log_probs)


EXACT_CASES = [
    pytest.param((1, 4, 3), {}, id="one-point"),
    pytest.param((4, 5, 3), {}, id="random"),
    pytest.param((4, 5, 3), {"zeros": 0.4}, id="zeros"),
    pytest.param((4, 5, 3), {"scale": 0.0}, id="flat"),
    pytest.param((4, 5, 3), {"scale": 200.0}, id="peaked"),
    pytest.param((4, 1, 3), {}, id="one-sample"),
    pytest.param((3, 4, 1), {}, id="one-class"),
    pytest.param((8, 6, 2), {}, id="two-classes"),
    pytest.param((2, 3, 20), {"zeros": 0.2}, id="many-classes"),
]


@pytest.mark.parametrize(("shape", "options"), EXACT_CASES)
def test_both_equal_the_brute_force(make_log_probs: MakeLogProbs, shape: tuple, options: dict):
    log_probs = make_log_probs(*shape, **options)
    information, entropy = information_and_entropy(log_probs)
    assert information.shape == entropy.shape == ()
    assert_nats(information, reference.joint_mutual_information(log_probs))
    assert_nats(entropy, reference.joint_entropy(log_probs))


@pytest.mark.parametrize("num_points", [1, 2])
def test_joint_entropy_without_jit_and_under_an_outer_jit(
    make_log_probs: MakeLogProbs, num_points: int
):
    log_probs = make_log_probs(num_points, 4, 3, zeros=0.3)
    expected = reference.joint_entropy(log_probs)
    assert_nats(jax.jit(lambda log_probs: bb.joint_entropy(log_probs))(log_probs), expected)
    with jax.disable_jit():
        assert_nats(bb.joint_entropy(log_probs), expected)


def test_joint_functions_are_float64_under_x64():
    logits = np.random.default_rng(0).normal(size=(4, 5, 3))
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    with in_float64():
        values = jnp.asarray(log_probs)
        actual = np.asarray([bb.joint_entropy(values), bb.joint_mutual_information(values)])
    assert actual.dtype == np.float64
    expected = reference.joint_entropy(log_probs), reference.joint_mutual_information(log_probs)
    assert_nats(actual, expected, 1e-12)


def test_of_one_point_the_joint_functions_are_the_marginal_ones(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(1, 4, 3)
    assert_nats(bb.joint_entropy(log_probs), bb.predictive_entropy(log_probs)[0], ROUNDING)
    information = bb.joint_mutual_information(log_probs)
    assert_nats(information, bb.mutual_information(log_probs)[0], ROUNDING)


def test_noiseless_copies_tell_nothing_new():
    votes = jnp.log(jnp.eye(3)[jnp.asarray([0, 1, 2, 0])])  # 4 samples, certain of 3 classes
    expected = reference.entropy(np.array([0.5, 0.25, 0.25]))
    assert_nats(bb.joint_mutual_information(jnp.tile(votes, (5, 1, 1))), expected, ROUNDING)


@hypothesis.given(strategies.log_probs(4, 5, 3))
def test_joint_information_is_at_least_each_part_and_at_most_log_k(log_probs: jax.Array):
    joint = float(bb.joint_mutual_information(log_probs))
    assert joint <= np.log(5) + ROUNDING
    assert joint >= float(bb.mutual_information(log_probs).max()) - ROUNDING
    assert joint <= float(bb.mutual_information(log_probs).sum()) + ROUNDING
    assert_nats(joint, reference.joint_mutual_information(log_probs))


@pytest.mark.parametrize("name", ["joint_entropy", "joint_mutual_information"])
def test_too_many_configurations_name_the_estimator(name: str, make_log_probs: MakeLogProbs):
    message = r"10 points of 4 classes have 4\^10 .*estimate_joint_mutual_information\(key, "
    with pytest.raises(ValueError, match=message):
        getattr(bb, name)(make_log_probs(10, 2, 4))


def test_as_many_configurations_as_allowed_are_enumerated(
    monkeypatch: pytest.MonkeyPatch, make_log_probs: MakeLogProbs
):
    log_probs = make_log_probs(4, 5, 2)
    function = inspect.unwrap(bb.joint_mutual_information)  # the limit is read when tracing
    monkeypatch.setattr(joint, "MAX_EXACT_CONFIGURATIONS", 2**4)
    assert_nats(function(log_probs), reference.joint_mutual_information(log_probs))
    monkeypatch.setattr(joint, "MAX_EXACT_CONFIGURATIONS", 2**4 - 1)
    with pytest.raises(ValueError, match="15 that are enumerated"):
        function(log_probs)


@pytest.mark.parametrize(
    "name", ["joint_entropy", "joint_mutual_information", "estimate_joint_mutual_information"]
)
def test_no_points_at_all_are_refused(name: str):
    functions = {
        "joint_entropy": bb.joint_entropy,
        "joint_mutual_information": bb.joint_mutual_information,
        "estimate_joint_mutual_information": partial(estimate, keys(1)[0], num_configurations=5),
    }
    with pytest.raises(ValueError, match="empty axis"):
        functions[name](jnp.zeros((0, 4, 3)))


@pytest.mark.parametrize("num_configurations", [27, 28, 1000])
def test_the_estimate_is_exact_while_the_configurations_fit(
    make_log_probs: MakeLogProbs, num_configurations: int
):
    log_probs = make_log_probs(4, 5, 3)
    exact = bb.joint_mutual_information(log_probs)
    for key in keys(2):
        actual = estimate(key, log_probs, num_configurations=num_configurations)
        assert_nats(actual, exact, 1e-7)


def test_one_configuration_less_makes_it_an_estimate(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(4, 5, 3)
    estimates = jax.vmap(partial(estimate, num_configurations=26), (0, None))(keys(20), log_probs)
    assert len(np.unique(estimates)) > 1


@pytest.mark.parametrize(
    ("num_configurations", "options", "sharpness"),
    [
        pytest.param(1, {}, 0.02, id="M=1"),
        pytest.param(6, {}, 0.005, id="M=6"),
        pytest.param(6, {"zeros": 0.4}, 0.005, id="M=6-zeros"),
        pytest.param(20, {"scale": 6.0}, 0.001, id="M=20-peaked"),
    ],
)
def test_the_thinned_estimate_is_unbiased(
    make_log_probs: MakeLogProbs, num_configurations: int, options: dict, sharpness: float
):
    log_probs = make_log_probs(5, 6, 3, **options)
    function = partial(estimate, num_configurations=num_configurations)
    estimates = jax.vmap(function, (0, None))(keys(4000), log_probs)
    assert_unbiased(estimates, reference.joint_mutual_information(log_probs), sharpness)
    assert np.all(estimates <= np.log(6) + ROUNDING)


def test_the_estimate_depends_on_the_key_alone(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(5, 6, 3)
    function = jax.vmap(partial(estimate, num_configurations=6), (0, None))
    one, again = function(keys(4000), log_probs), function(keys(4000), log_probs)
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(one)) > 100


def test_a_rare_class_beside_a_full_tree_costs_nothing(make_log_probs: MakeLogProbs):
    # As many likely configurations as the tree can hold; the others, all but impossible, must not
    # take their place.
    two_classes = make_log_probs(3, 6, 2)
    rare = jnp.full((3, 6, 1), -25.0)
    log_probs = jnp.concatenate([rare, two_classes], axis=-1)
    exact = reference.joint_mutual_information(two_classes)
    for key in keys(3):
        assert_nats(estimate(key, log_probs, num_configurations=4), exact)


def test_a_hundred_points_do_not_underflow(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(100, 6, 10, scale=60.0)
    value = estimate(keys(1)[0], log_probs, num_configurations=50)
    assert_nats(value, np.log(6))


def test_the_number_of_configurations_must_be_positive(make_log_probs: MakeLogProbs):
    with pytest.raises(ValueError, match="num_configurations: 0 is not an integer of at least 1"):
        estimate(keys(1)[0], make_log_probs(2, 4, 3), num_configurations=0)


def test_memory_of_the_estimate_is_that_of_the_docstring():
    num_points, num_samples, num_classes, capacity = 20, 4, 10, 10_000
    stated = 4 * 3 * capacity * (num_samples + num_classes) + tile_bytes()
    batch = jax.ShapeDtypeStruct((num_points, num_samples, num_classes), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    function = partial(estimate, num_configurations=capacity)
    assert temporary_bytes(function, key, batch) <= 2 * stated


def test_more_configurations_than_there_can_be_cost_nothing():
    batch = jax.ShapeDtypeStruct((3, 4, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    function = partial(estimate, num_configurations=1_000_000)
    assert temporary_bytes(function, key, batch) < 100_000
