"""Entropies of one variable: by hand, at the edges, and by property."""

import inspect

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import strategies
from conftest import MakeLogProbs, assert_nats

import bbald_jax as bb
from bbald_jax import validation
from bbald_jax.information import entropy

ROUNDING = 2e-6  # nats: two float32 entropies and their difference


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


def test_plogp_of_the_logarithm_and_xlogx_of_the_number_agree():
    p = jnp.asarray([0.0, 1e-30, 0.25, 1.0])
    expected = [0.0, 0.0, 0.25 * np.log(0.25), 0.0]
    assert_nats(entropy.plogp(jnp.log(p)), expected, 1e-7)
    assert_nats(entropy.xlogx(p), expected, 1e-7)


def test_shapes_are_asserted_without_the_type_checks_of_the_tests():
    assert_log_probs = inspect.unwrap(validation.assert_log_probs)
    assert assert_log_probs(jnp.zeros((4, 3, 2))) == (4, 3, 2)
    with pytest.raises(ValueError, match="expected 3"):
        assert_log_probs(jnp.zeros((4, 3)))
