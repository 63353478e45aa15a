"""What one more point would add: exact on exact trees, the formula on any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import MakeLogProbs, assert_nats, set_tiles, temporary_bytes, tile_bytes
from hypothesis import given
from hypothesis import strategies as st
from trees import gains, gains_jit, gains_of_weights, random_tree, tree_of

from bbald_jax.information.configurations import root
from bbald_jax.information.gains import _fast_xlogx

ROUNDING = 2e-6  # nats

fast_xlogx = jax.jit(_fast_xlogx)


@pytest.mark.parametrize("num_chosen", [0, 1, 3])
@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_gains_on_an_exact_tree_equal_the_brute_force(
    make_log_probs: MakeLogProbs, num_chosen: int, zeros: float
):
    log_probs = make_log_probs(6, 4, 3, zeros=zeros)
    actual = gains_jit(tree_of(log_probs[:num_chosen], 27), log_probs)
    assert_nats(actual, reference.gains(log_probs, range(num_chosen)))


@pytest.mark.parametrize("size", [0, 1, 7, 20])
def test_gains_on_any_tree_follow_the_formula(make_log_probs: MakeLogProbs, size: int):
    log_probs = make_log_probs(6, 4, 3, zeros=0.2)
    tree = random_tree(20, 4, size)
    expected = gains_of_weights(tree, log_probs)
    assert_nats(gains_jit(tree, log_probs), expected, ROUNDING)


def test_gains_stay_precise_on_a_large_tree(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    tree = random_tree(100_000, 4, 100_000)
    assert_nats(gains_jit(tree, log_probs), gains_of_weights(tree, log_probs), ROUNDING)


def test_gains_of_copies_are_equal_wherever_they_stand(make_log_probs: MakeLogProbs):
    log_probs = jnp.tile(make_log_probs(1, 7, 10), (200, 1, 1))  # 4 blocks, the last moved back
    actual = gains_jit(random_tree(20, 7, 20), log_probs)
    assert len(np.unique(actual)) == 1


def test_nan_gains_stay_with_their_own_point(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    tree = random_tree(20, 4, 20)
    actual = gains_jit(tree, log_probs.at[2, 1, 0].set(jnp.nan))
    others = np.arange(6) != 2
    assert np.isnan(actual[2])
    np.testing.assert_array_equal(actual[others], gains_jit(tree, log_probs)[others])


@pytest.mark.parametrize("tile", [1, 7 * 3, 5 * 6 * 3])
@pytest.mark.parametrize("size", [0, 5, 20])
def test_gains_in_tiles_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, make_log_probs: MakeLogProbs, tile: int, size: int
):
    log_probs = make_log_probs(6, 4, 3)  # 20 configurations: singly, in 7s, and all with 4 points
    tree = random_tree(20, 4, size)
    set_tiles(monkeypatch, predictive=tile)
    actual = jax.jit(lambda tree, log_probs: gains(tree, log_probs))(tree, log_probs)
    assert_nats(actual, gains_of_weights(tree, log_probs), ROUNDING)


# --- the logarithm


@given(st.floats(0, 1, width=32))
def test_the_fast_logarithm_is_as_good_as_the_slow_one(x: float):
    expected = x * np.log(x) if x else 0.0
    assert abs(float(fast_xlogx(jnp.float32(x))) - expected) < 1e-7


def test_the_fast_logarithm_over_all_magnitudes():
    x = np.concatenate([np.logspace(-45, 0, 100_001), np.linspace(0, 1, 100_001)])
    x = np.minimum(x.astype(np.float32), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(x > 0, x * np.log(x.astype(np.float64)), 0)
    assert_nats(fast_xlogx(x), expected, 6e-8)
    assert fast_xlogx(jnp.float32(1)) == 0
    assert np.isnan(fast_xlogx(jnp.float32(np.nan)))


# --- memory


def test_memory_is_that_of_the_docstrings_not_of_every_point_times_every_configuration():
    num_points, num_samples, num_classes, capacity = 20_000, 4, 10, 10_000
    log_probs = jax.ShapeDtypeStruct((num_points, num_samples, num_classes), jnp.float32)
    tree = jax.eval_shape(lambda: root(num_samples, capacity, jnp.dtype(jnp.float32)))
    assert 4 * num_points * capacity * num_classes == 8e9  # the naive array

    stated = tile_bytes()
    assert temporary_bytes(gains, tree, log_probs) <= 2 * stated
