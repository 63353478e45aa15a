"""One variable at a time: against the float64 brute force, at the edges, and by property."""

import inspect
from collections.abc import Callable

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import strategies
from conftest import MakeLogProbs, assert_nats, temporary_bytes
from hypothesis import strategies as st

import bbald_jax as bb
from bbald_jax import entropy, validation

ROUNDING = 2e-6  # nats: two float32 entropies and their difference

NAMES = ["predictive_entropy", "conditional_entropy", "mutual_information"]
Function = Callable[[jax.Array], jax.Array]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def function(name: str) -> Function:
    return getattr(bb, name)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param((6, 4, 3), {}, id="random"),
        pytest.param((6, 4, 3), {"zeros": 0.5}, id="zeros"),
        pytest.param((6, 4, 3), {"scale": 0.0}, id="flat"),
        pytest.param((6, 4, 3), {"scale": 0.01}, id="nearly-flat"),
        pytest.param((6, 4, 3), {"scale": 200.0}, id="peaked"),
        pytest.param((1, 4, 3), {}, id="one-point"),
        pytest.param((6, 1, 3), {}, id="one-sample"),
        pytest.param((6, 4, 1), {}, id="one-class"),
        pytest.param((6, 4, 2), {}, id="two-classes"),
        pytest.param((3, 50, 100), {"zeros": 0.2}, id="many-classes"),
    ],
)
def test_equals_the_brute_force(
    name: str, function: Function, make_log_probs: MakeLogProbs, shape: tuple, options: dict
):
    log_probs = make_log_probs(*shape, **options)
    actual = function(log_probs)
    assert actual.shape == shape[:1]
    assert actual.dtype == jnp.float32
    assert_nats(actual, getattr(reference, name)(log_probs))


def test_equals_itself_without_jit_and_under_an_outer_jit(
    function: Function, make_log_probs: MakeLogProbs
):
    log_probs = make_log_probs(6, 4, 3, zeros=0.3)
    expected = function(log_probs)
    assert_nats(jax.jit(lambda x: function(x))(log_probs), expected, ROUNDING)
    with jax.disable_jit():
        assert_nats(function(log_probs), expected, ROUNDING)


def test_works_under_vmap(function: Function, make_log_probs: MakeLogProbs):
    pools = jnp.stack([make_log_probs(6, 4, 3, seed=seed) for seed in range(2)])
    assert_nats(jax.vmap(function)(pools), [function(pool) for pool in pools], ROUNDING)


def test_is_float64_under_x64(name: str, function: Function):
    logits = np.random.default_rng(0).normal(size=(6, 4, 3))
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    with jax.enable_x64(True):
        actual = np.asarray(function(jnp.asarray(log_probs)))
    assert actual.dtype == np.float64
    assert_nats(actual, getattr(reference, name)(log_probs), 1e-12)


@pytest.mark.parametrize(("num_samples", "num_classes"), [(3, 3), (2, 5), (5, 2)])
def test_certain_samples_that_disagree_carry_all_the_information_there_can_be(
    num_samples: int, num_classes: int
):
    votes = np.arange(num_samples) % num_classes
    log_probs = jnp.log(jnp.eye(num_classes)[votes])[None]
    votes_per_class = np.bincount(votes, minlength=num_classes)
    expected = reference.entropy(votes_per_class / num_samples)
    assert_nats(bb.mutual_information(log_probs), [expected], ROUNDING)
    assert_nats(bb.predictive_entropy(log_probs), [expected], ROUNDING)
    assert bb.conditional_entropy(log_probs)[0] == 0


def test_samples_that_agree_carry_no_information(make_log_probs: MakeLogProbs):
    one_sample = make_log_probs(6, 1, 3)
    assert_nats(bb.mutual_information(one_sample), np.zeros(6), 1e-6)
    assert_nats(bb.mutual_information(jnp.repeat(one_sample, 4, axis=1)), np.zeros(6), 1e-6)


def test_nan_stays_with_its_own_point(function: Function, make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    actual = function(log_probs.at[2, 1, 0].set(jnp.nan))
    others = np.arange(6) != 2
    assert np.isnan(actual[2])
    np.testing.assert_array_equal(actual[others], function(log_probs)[others])


@hypothesis.given(strategies.log_probs(3, 4, 3))
def test_every_entropy_stays_within_its_bounds(log_probs: jax.Array):
    log_classes, log_samples = np.log(3), np.log(4)
    total, noise = bb.predictive_entropy(log_probs), bb.conditional_entropy(log_probs)
    information = bb.mutual_information(log_probs)
    assert np.all((total >= -ROUNDING) & (total <= log_classes + ROUNDING))
    assert np.all((noise >= -ROUNDING) & (noise <= log_classes + ROUNDING))
    assert np.all(information >= -ROUNDING)
    assert np.all(information <= min(log_samples, log_classes) + ROUNDING)
    assert_nats(information, reference.mutual_information(log_probs))


@hypothesis.given(strategies.log_probs(3, 2, 5))
def test_two_samples_never_tell_more_than_log_2(log_probs: jax.Array):
    assert np.all(bb.mutual_information(log_probs) <= np.log(2) + ROUNDING)


@hypothesis.given(st.permutations(range(6)), st.permutations(range(4)), st.permutations(range(3)))
def test_order_of_points_samples_and_classes_does_not_matter(
    make_log_probs: MakeLogProbs, points: list[int], samples: list[int], classes: list[int]
):
    log_probs = make_log_probs(6, 4, 3)
    shuffled = log_probs[np.array(points)][:, np.array(samples)][:, :, np.array(classes)]
    expected = bb.mutual_information(log_probs)[np.array(points)]
    assert_nats(bb.mutual_information(shuffled), expected, ROUNDING)


def test_the_predictions_are_not_copied(function: Function):
    log_probs = jax.ShapeDtypeStruct((20_000, 100, 10), jnp.float32)
    assert temporary_bytes(function, log_probs) < 4 * log_probs.size / 10


def test_plogp_of_the_logarithm_and_xlogx_of_the_number_agree():
    p = jnp.asarray([0.0, 1e-30, 0.25, 1.0])
    expected = [0.0, 0.0, 0.25 * np.log(0.25), 0.0]
    assert_nats(entropy.plogp(jnp.log(p)), expected, 1e-7)
    assert_nats(entropy.xlogx(p), expected, 1e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_coarse_floats_are_refused_with_the_way_out(function: Function, dtype: jnp.dtype):
    with pytest.raises(TypeError, match=r"log_probs: dtype .*16 is too coarse.*check_log_probs"):
        function(jnp.zeros((2, 3, 1), dtype))


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_an_empty_axis_is_refused(function: Function, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"log_probs: empty axis in shape .*\[N, K, C\]"):
        function(jnp.zeros(shape))


def test_shapes_are_asserted_without_the_type_checks_of_the_tests():
    assert_log_probs = inspect.unwrap(validation.assert_log_probs)
    assert assert_log_probs(jnp.zeros((4, 3, 2))) == (4, 3, 2)
    with pytest.raises(AssertionError, match="rank"):
        assert_log_probs(jnp.zeros((4, 3)))
