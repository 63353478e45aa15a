"""The certificate against the best batch there is."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import strategies
from conftest import MakeLogProbs, assert_nats

import bbald_jax as bb
from bbald_jax.acquisition.certificate import BOUNDS, certify

NUM_POINTS, BATCH_SIZE = 12, 3


def select(log_probs: jax.Array, **options) -> bb.CandidateBatch:
    return bb.select_batchbald(jax.random.key(0), log_probs, batch_size=BATCH_SIZE, **options)


def optimum(log_probs: jax.Array, pending: tuple[int, ...] = ()) -> float:
    """The highest joint mutual information of any batch, given the pending points."""
    others = [n for n in range(NUM_POINTS) if n not in pending]
    before = reference.joint_mutual_information(log_probs[jnp.asarray(pending, jnp.int32)])
    return max(
        reference.joint_mutual_information(log_probs[jnp.asarray([*pending, *batch])]) - before
        for batch in itertools.combinations(others, BATCH_SIZE)
    )


@pytest.mark.parametrize("scale", [0.3, 2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_lies_between_score_and_bound(
    make_log_probs: MakeLogProbs, seed: int, scale: float
):
    log_probs = make_log_probs(NUM_POINTS, 6, 2, seed=seed, scale=scale)
    batch = select(log_probs)
    best = optimum(log_probs)
    assert float(batch.scores[-1]) <= best + 1e-5
    assert best <= float(batch.diagnostics.upper_bound) + 1e-5
    ratio = float(batch.scores[-1]) / float(batch.diagnostics.upper_bound)
    assert_nats(batch.diagnostics.certified_ratio, ratio, 1e-6)
    assert 1 - 1 / np.e < ratio <= 1


@hypothesis.settings(max_examples=8)
@hypothesis.given(log_probs=strategies.log_probs(NUM_POINTS, 3, 2))
def test_the_optimum_lies_between_score_and_bound_on_any_pool(log_probs: jax.Array):
    batch = select(log_probs)
    best = optimum(log_probs)
    assert float(batch.scores[-1]) <= best + 1e-5
    assert best <= float(batch.diagnostics.upper_bound) + 1e-5


def test_given_pending_points(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(NUM_POINTS, 6, 2, seed=5)
    batch = select(log_probs, pending=jnp.array([4, -1]))
    best = optimum(log_probs, (4,))
    assert float(batch.scores[-1]) <= best + 1e-5
    assert best <= float(batch.diagnostics.upper_bound) + 1e-5
    remaining = np.log(6) - reference.joint_mutual_information(log_probs[jnp.array([4])])
    assert_nats(batch.diagnostics.remaining_entropy, remaining - np.asarray(batch.scores))


def test_each_bound_can_be_the_active_one(make_log_probs: MakeLogProbs):
    def active(log_probs: jax.Array) -> str:
        return BOUNDS[int(select(log_probs).diagnostics.active_bound)]

    assert active(make_log_probs(NUM_POINTS, 2, 2, scale=10)) == "prior entropy"
    # Each point tells one bit of its own, and there are no others.
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    independent = jnp.log(jnp.asarray([bits.T * 0.8 + 0.1, 0.9 - bits.T * 0.8]))
    independent = jnp.moveaxis(independent, 0, -1).astype(jnp.float32)
    assert active(jnp.concatenate([independent, independent * 0 + jnp.log(0.5)])) in BOUNDS[1:]
    copies = jnp.tile(independent[:1], (NUM_POINTS, 1, 1))
    assert active(copies) == "score plus next gains"


def test_the_bound_is_the_least_of_the_three():
    first, last = jnp.array([1.0, 0.5]), jnp.array([0.25, -jnp.inf])
    certificate = certify(jnp.float32(2), jnp.float32(1), first, last)
    assert certificate.upper_bound == 1.25
    assert BOUNDS[int(certificate.active_bound)] == "score plus next gains"
    assert certify(jnp.float32(1.125), jnp.float32(1), first, last).active_bound == 0
    assert certify(jnp.float32(2), jnp.float32(1), first * 0.75, last).active_bound == 1


def test_rounding_is_not_divided_by_rounding():
    first, last = jnp.full(10, 1.5e-6), jnp.full(10, 1e-6)
    for score in (-2e-6, 0.0, 1e-6):
        assert certify(jnp.float32(3), jnp.float32(score), first, last).certified_ratio == 1
    # Beyond that a ratio may be small, but not negative.
    some = certify(jnp.float32(3), jnp.float32(-1e-6), first * 100, jnp.full(10, 1e-3))
    assert some.upper_bound > 1e-3
    assert some.certified_ratio == 0


def test_nothing_to_know_is_certified(make_log_probs: MakeLogProbs):
    batch = select(make_log_probs(NUM_POINTS, 1, 2))
    assert batch.diagnostics.upper_bound == 0
    assert batch.diagnostics.certified_ratio == 1
    assert batch.diagnostics.effective_configurations == 0


def test_effective_configurations_count_equal_shares(make_log_probs: MakeLogProbs):
    # Two equally probable labels that tell equally much leave two equal nodes.
    log_probs = jnp.log(jnp.asarray([[[0.8, 0.2], [0.2, 0.8]]], jnp.float32))
    batch = bb.select_batchbald(jax.random.key(0), log_probs, batch_size=1)
    assert_nats(batch.diagnostics.effective_configurations, 2, 1e-5)
