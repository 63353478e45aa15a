"""Comparison with what batchbald_redux computes in float64 (see tests/golden)."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbald_jax as bb

GOLDEN = json.loads((Path(__file__).parent / "golden" / "batchbald_redux.json").read_text())
TOLERANCE = 1e-5  # nats
BATCH_SIZE = 3

Case = dict[str, Any]


@pytest.fixture(params=GOLDEN["cases"])
def case(request: pytest.FixtureRequest) -> Case:
    return GOLDEN["cases"][request.param]


@pytest.fixture
def log_probs(case: Case) -> jax.Array:
    return jnp.asarray(case["log_probs"], jnp.float32)


def assert_nats(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def num_clear_choices(case: Case) -> int:
    """Returns how many greedy choices precede the first that rounding could change."""
    gaps = case["batchbald_gaps"]
    close = (step for step, gap in enumerate(gaps) if gap is not None and gap <= TOLERANCE)
    return next(close, len(gaps))


def test_predictive_entropy(case: Case, log_probs: jax.Array):
    assert_nats(bb.predictive_entropy(log_probs), case["predictive_entropy"])


def test_conditional_entropy(case: Case, log_probs: jax.Array):
    assert_nats(bb.conditional_entropy(log_probs), case["conditional_entropy"])


def test_mutual_information(case: Case, log_probs: jax.Array):
    assert_nats(bb.mutual_information(log_probs), case["bald"])


def test_joint_entropy(case: Case, log_probs: jax.Array):
    # Points of which the label is certain add nothing: they stand in for the points that a prefix
    # leaves out, so that all prefixes have one shape and are compiled once.
    certain = jnp.where(jnp.arange(log_probs.shape[2]) == 0, 0.0, -jnp.inf)
    points = np.arange(len(log_probs))[:, None, None]
    prefixes = [jnp.where(points <= last, log_probs, certain) for last in range(len(log_probs))]
    assert_nats([bb.joint_entropy(prefix) for prefix in prefixes], case["joint_entropy"])


def test_select_bald(case: Case, log_probs: jax.Array):
    batch = bb.select_bald(log_probs, batch_size=BATCH_SIZE)
    bald = np.asarray(case["bald"])
    best = np.sort(bald)[::-1][:BATCH_SIZE]
    assert_nats(batch.scores, best)
    assert len(np.unique(batch.indices)) == BATCH_SIZE
    # By value: points with equal scores may come in any order.
    assert_nats(bald[np.asarray(batch.indices)], best)


def test_select_batchbald(case: Case, log_probs: jax.Array):
    batch = bb.select_batchbald(
        jax.random.key(0), log_probs, batch_size=BATCH_SIZE, num_configurations=10_000
    )
    assert_nats(batch.scores, case["batchbald_scores"])
    assert len(np.unique(batch.indices)) == BATCH_SIZE
    # By predictions: either of two copies of a point is right.
    clear = num_clear_choices(case)
    predictions = np.asarray(case["log_probs"])
    np.testing.assert_array_equal(
        predictions[np.asarray(batch.indices)[:clear]],
        predictions[case["batchbald_indices"][:clear]],
    )
