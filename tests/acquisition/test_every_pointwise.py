"""Every function that gives one number per point, on the same terms.

Against the float64 brute force, with and without jit, in any order, and in memory.
"""

from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import MakeLogProbs, assert_nats, fused_reductions, in_float64, temporary_bytes
from hypothesis import strategies as st

import bbald_jax as bb

ROUNDING = 2e-6

NAMES = (
    "predictive_entropy",
    "conditional_entropy",
    "mutual_information",
    "margin",
    "variation_ratio",
    "mean_std",
    "epig",
)
Function = Callable[[jax.Array], jax.Array]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def of(module: object, name: str) -> Callable[[Any], Any]:
    """The function of that name; the targets of EPIG are the first points and their neighbours."""
    function = getattr(module, name)
    if name != "epig":
        return function
    return lambda log_probs: function(log_probs, log_probs[:4][::-1])


@pytest.fixture
def function(name: str) -> Function:
    return of(bb, name)


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
    assert_nats(actual, of(reference, name)(log_probs))


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
    with in_float64():
        actual = np.asarray(function(jnp.asarray(log_probs)))
    assert actual.dtype == np.float64
    assert_nats(actual, of(reference, name)(log_probs), 1e-12)


def test_nan_stays_with_its_own_point(function: Function, make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    actual = function(log_probs.at[4, 1, 0].set(jnp.nan))
    others = np.arange(6) != 4
    assert np.isnan(actual[4])
    np.testing.assert_array_equal(actual[others], function(log_probs)[others])


@hypothesis.given(st.permutations(range(6)), st.permutations(range(4)), st.permutations(range(3)))
def test_order_of_points_samples_and_classes_does_not_matter(
    make_log_probs: MakeLogProbs, points: list[int], samples: list[int], classes: list[int]
):
    log_probs = make_log_probs(6, 4, 3)
    shuffled = log_probs[np.array(points)][:, np.array(samples)][:, :, np.array(classes)]
    for name in NAMES[:-1]:
        function = getattr(bb, name)
        assert_nats(function(shuffled), function(log_probs)[np.array(points)], ROUNDING)
    expected = bb.epig(log_probs, log_probs)[np.array(points)]
    assert_nats(bb.epig(shuffled, shuffled[::-1]), expected, ROUNDING)


@fused_reductions
@pytest.mark.parametrize("name", NAMES[:-1])
def test_the_predictions_are_not_copied(name: str):
    log_probs = jax.ShapeDtypeStruct((20_000, 100, 10), jnp.float32)
    assert temporary_bytes(getattr(bb, name), log_probs) < 4 * log_probs.size / 10


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_coarse_floats_are_refused_with_the_way_out(function: Function, dtype: jnp.dtype):
    with pytest.raises(TypeError, match=r"log_probs: dtype .*16 is too coarse.*check_log_probs"):
        function(jnp.zeros((2, 3, 1), dtype))


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
def test_an_empty_axis_is_refused(function: Function, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"log_probs: empty axis in shape .*\[N, K, C\]"):
        function(jnp.zeros(shape))
