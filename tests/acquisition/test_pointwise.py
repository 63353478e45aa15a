"""Uncertainty scores, and EPIG: by hand, at the edges, by property, in memory."""

import inspect

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import strategies
from conftest import MakeLogProbs, assert_nats, set_tiles, temporary_bytes

import bbald_jax as bb
from bbald_jax import validation
from bbald_jax.tiling import tiling

ROUNDING = 2e-6


def test_two_samples_by_hand():
    # Mean predictions (0.5, 0.25, 0.25) and (0.6, 0.3, 0.1).
    probs = [[[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]], [[0.6, 0.3, 0.1]] * 2]
    log_probs = bb.from_probs(probs)
    assert_nats(bb.margin(log_probs), [-0.25, -0.3], 1e-6)
    assert_nats(bb.variation_ratio(log_probs), [0.5, 0.4], 1e-6)
    assert_nats(bb.mean_std(log_probs), [(0.25 + 0 + 0.25) / 3, 0], 1e-6)


@hypothesis.given(strategies.log_probs(3, 4, 3))
def test_scores_stay_within_their_bounds(log_probs: jax.Array):
    margin, ratio, std = bb.margin(log_probs), bb.variation_ratio(log_probs), bb.mean_std(log_probs)
    assert np.all((margin >= -1 - ROUNDING) & (margin <= 0))
    assert np.all((ratio >= -ROUNDING) & (ratio <= 1 - 1 / 3 + ROUNDING))
    assert np.all((std >= 0) & (std <= 0.5 + ROUNDING))


# --- EPIG


def test_labels_that_settle_each_other():
    # Both labels say which of three samples is true: all of log 3 is shared.
    votes = jnp.log(jnp.eye(3))[None]
    assert_nats(bb.epig(votes, votes), [np.log(3)], ROUNDING)


def test_labels_of_independent_factors_tell_nothing_about_each_other():
    # Samples (i, j): the pool depends on i alone, the first target on j alone, the second on i.
    i, j = np.divmod(np.arange(6), 3)
    on_i, on_j = jnp.log(jnp.eye(3))[i], jnp.log(jnp.eye(3))[j]
    actual = bb.epig(on_i[None], jnp.stack([on_j, on_i]))
    assert_nats(actual, [np.log(2) / 2], ROUNDING)
    assert_nats(bb.mutual_information(on_i[None]), [np.log(2)], ROUNDING)


def test_one_sample_tells_nothing_exactly(make_log_probs: MakeLogProbs):
    one = make_log_probs(6, 1, 5, zeros=0.2)
    np.testing.assert_array_equal(bb.epig(one, one), np.zeros(6))


@hypothesis.given(strategies.log_probs(4, 4, 3), strategies.log_probs(2, 4, 3))
def test_epig_is_at_least_zero_and_at_most_bald(log_probs: jax.Array, targets: jax.Array):
    actual = bb.epig(log_probs, targets)
    assert np.all(actual >= -ROUNDING)
    assert np.all(actual <= bb.mutual_information(log_probs) + ROUNDING)
    assert np.all(actual <= jnp.mean(bb.mutual_information(targets)) + ROUNDING)
    assert_nats(actual, reference.epig(log_probs, targets))


@hypothesis.given(strategies.log_probs(4, 4, 3))
def test_what_two_labels_share_is_symmetric(log_probs: jax.Array):
    shared = jnp.stack([bb.epig(log_probs, log_probs[j : j + 1]) for j in range(4)])
    assert_nats(shared, shared.T, ROUNDING)


@pytest.mark.parametrize(("num_points", "num_targets"), [(1, 8), (7, 1), (3, 3), (7, 8), (6, 4)])
def test_in_chunks_as_in_one(
    make_log_probs: MakeLogProbs,
    monkeypatch: pytest.MonkeyPatch,
    num_points: int,
    num_targets: int,
):
    log_probs, targets = make_log_probs(num_points, 4, 3), make_log_probs(num_targets, 4, 3, seed=1)
    expected = bb.epig(log_probs, targets)
    set_tiles(monkeypatch, outcomes=9)  # three points of three classes
    in_chunks = jax.jit(lambda *args: inspect.unwrap(bb.epig)(*args))
    assert_nats(in_chunks(log_probs, targets), expected, ROUNDING)


def test_more_classes_than_a_tile_is_wide(make_log_probs: MakeLogProbs):
    num_classes = tiling().outcomes + 10
    log_probs = make_log_probs(2, 3, num_classes)
    targets = make_log_probs(2, 3, num_classes, seed=1)
    probs, target_probs = reference.to_probs(log_probs), reference.to_probs(targets)
    joint = np.einsum("nkc,tkd->ntcd", probs, target_probs) / 3
    independent = np.einsum("nc,td->ntcd", probs.mean(axis=1), target_probs.mean(axis=1))
    expected = np.sum(joint * np.log(joint / independent), axis=(2, 3)).mean(axis=1)
    assert_nats(bb.epig(log_probs, targets), expected)


def test_many_targets_are_as_precise_as_one(make_log_probs: MakeLogProbs):
    # The same target again and again: the mean must not drift with T.
    log_probs, target = make_log_probs(5, 20, 4), make_log_probs(1, 20, 4, seed=1)
    many = jnp.tile(target, (3000, 1, 1))
    assert_nats(bb.epig(log_probs, many), bb.epig(log_probs, target), ROUNDING)


def test_targets_that_are_no_numbers_are_left_out_of_the_mean(make_log_probs: MakeLogProbs):
    log_probs, targets = make_log_probs(5, 4, 3), make_log_probs(4, 4, 3, seed=1)
    broken = targets.at[0, 2, 1].set(jnp.nan).at[2].set(jnp.inf)
    expected = bb.epig(log_probs, targets[jnp.asarray([1, 3])])
    assert_nats(bb.epig(log_probs, broken), expected, ROUNDING)
    np.testing.assert_array_equal(bb.epig(log_probs, jnp.full_like(targets, jnp.nan)), np.zeros(5))


@pytest.mark.parametrize(
    ("N", "T", "K", "C"), [(20_000, 2_000, 100, 10), (20_000, 2_000, 1_000, 3), (50, 50, 20, 1_000)]
)
def test_memory_of_epig_is_that_of_the_docstring(N: int, T: int, K: int, C: int):
    pool = jax.ShapeDtypeStruct((N, K, C), jnp.float32)
    targets = jax.ShapeDtypeStruct((T, K, C), jnp.float32)
    side = max(tiling().outcomes, C)
    allowed = 4 * side * (3 * side + 4 * K) + 4 * (N + T)
    assert temporary_bytes(bb.epig, pool, targets) < allowed
    assert allowed < 4 * N * T * C * C / 50


# --- shapes of targets


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 2), (0, 4, 3), (4, 3), (1, 2, 4, 3)])
def test_targets_of_another_shape_are_refused(shape: tuple[int, ...]):
    check = inspect.unwrap(validation.assert_target_log_probs)
    with pytest.raises(ValueError, match=r"target_log_probs: shape .* \[T, K, C\] = \[T, 4, 3\]"):
        check(jnp.zeros((6, 4, 3)), jnp.zeros(shape))


def test_the_number_of_targets_is_returned():
    assert validation.assert_target_log_probs(jnp.zeros((6, 4, 3)), jnp.zeros((2, 4, 3))) == 2


def test_targets_are_checked_at_trace_time(make_log_probs: MakeLogProbs):
    # The type checks of the tests see it first; without them it is a ValueError (above).
    with pytest.raises((ValueError, TypeError)):
        jax.eval_shape(bb.epig, make_log_probs(6, 4, 3), make_log_probs(2, 5, 3))
