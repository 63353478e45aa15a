"""2-BALD: the greedy batch of the brute force, at the edges, and beside BatchBALD."""

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
from bbald_jax.tiling import tiling

ALL = (0, 1, 2, 3, 4, 5)
# Six times one question whose answer says which of three samples is true.
COPIES = jnp.tile(jnp.log(jnp.eye(3))[None], (6, 1, 1))


def mask(*available: int) -> jax.Array:
    return jnp.isin(jnp.arange(6), jnp.asarray(available, jnp.int32))


def select(
    log_probs: jax.Array, available: tuple[int, ...] = ALL, pending: tuple[int, ...] = ()
) -> bb.CandidateBatch:
    """Four of six points; always with the same shapes, so that most tests share one compilation."""
    padded = jnp.asarray([*pending, -1, -1, -1][:3], jnp.int32)
    return bb.select_kbald(log_probs, batch_size=4, available=mask(*available), pending=padded)


def assert_is_greedy(
    batch: bb.CandidateBatch,
    log_probs: jax.Array,
    available: tuple[int, ...] = ALL,
    pending: tuple[int, ...] = (),
) -> None:
    """Each point has the best gain there is, given those before it, by the brute force."""
    indices = [i for i in batch.indices.tolist() if i >= 0]
    left = [n for n in available if n not in pending]
    assert len(indices) == min(len(left), batch.indices.size)
    chosen = list(pending)
    for i, index in enumerate(indices):
        gains = reference.kbald_gains(log_probs, chosen)
        assert_nats(batch.gains[i], gains[index])
        assert gains[index] > max(gains[left]) - 2e-6
        chosen.append(index)
        left.remove(index)
    assert_nats(batch.scores, np.cumsum(np.asarray(batch.gains, np.float64)))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param((6, 4, 3), {}, id="random"),
        pytest.param((6, 4, 3), {"zeros": 0.5}, id="zeros"),
        pytest.param((6, 4, 3), {"scale": 0.0}, id="flat"),
        pytest.param((6, 4, 3), {"scale": 200.0}, id="peaked"),
        pytest.param((6, 1, 3), {}, id="one-sample"),
        pytest.param((6, 4, 1), {}, id="one-class"),
        pytest.param((6, 30, 12), {}, id="many-classes"),
    ],
)
def test_equals_the_brute_force(make_log_probs: MakeLogProbs, shape: tuple, options: dict):
    log_probs = make_log_probs(*shape, **options)
    batch = bb.select_kbald(log_probs, batch_size=6)
    assert_is_greedy(batch, log_probs)
    assert sorted(batch.indices.tolist()) == list(range(6))
    assert batch.diagnostics.num_invalid == 0
    np.testing.assert_array_equal(batch.diagnostics.is_exact, [True] * 6)


def test_equals_the_greedy_batch_of_the_brute_force(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    batch = select(log_probs, (0, 2, 3, 4), pending=(5, 2, 5))
    indices, gains = reference.select_kbald(log_probs, 4, available=(0, 2, 3, 4), pending=(5, 2))
    np.testing.assert_array_equal(batch.indices, [*indices, -1])
    assert_nats(batch.gains, [*gains, 0])
    assert batch.scores[3] == batch.scores[2]


@hypothesis.given(
    strategies.log_probs(6, 4, 3),
    st.sets(st.sampled_from(ALL)),
    st.lists(st.integers(-1, 5), min_size=3, max_size=3),
)
def test_every_choice_is_greedy(log_probs: jax.Array, available: set[int], pending: list[int]):
    batch = select(log_probs, tuple(available), tuple(pending))
    conditions = tuple(dict.fromkeys(i for i in pending if i >= 0))
    assert_is_greedy(batch, log_probs, tuple(sorted(available)), conditions)


@hypothesis.given(st.permutations(range(6)))
def test_order_of_the_pool_does_not_matter(make_log_probs: MakeLogProbs, order: list[int]):
    log_probs = make_log_probs(6, 4, 3)
    batch, expected = select(log_probs[np.array(order)]), select(log_probs)
    np.testing.assert_array_equal(np.array(order)[batch.indices], expected.indices)


def test_two_points_are_those_of_batchbald(make_log_probs: MakeLogProbs):
    # Up to two labels the expansion is the joint mutual information itself.
    for seed in range(5):
        log_probs = make_log_probs(6, 4, 3, seed=seed)
        batch = select(log_probs)
        first = batch.indices[:2]
        assert first.tolist() == reference.select_batchbald(log_probs, 2)
        assert_nats(batch.scores[1], reference.joint_mutual_information(log_probs[first]))


def test_gains_fall_below_zero_and_the_batch_is_filled_all_the_same():
    # Each copy takes off its whole score for each one chosen before.
    batch = select(COPIES)
    assert_nats(batch.gains, np.log(3) * np.array([1, 0, -1, -2]))
    assert_nats(batch.scores, np.log(3) * np.array([1, 1, 0, -2]))


def test_of_equal_gains_the_lowest_index_comes_first_without_a_key():
    flat = jnp.full((6, 4, 3), -jnp.log(3.0))
    np.testing.assert_array_equal(select(flat, (1, 2, 4, 5)).indices, [1, 2, 4, 5])
    np.testing.assert_array_equal(select(COPIES, (2, 3, 5)).indices, [2, 3, 5, -1])


def test_points_that_are_not_numbers_are_neither_chosen_nor_conditions(
    make_log_probs: MakeLogProbs,
):
    log_probs = make_log_probs(6, 4, 3)
    broken = log_probs.at[1].set(jnp.nan).at[4, 0, 2].set(jnp.inf)
    batch = select(broken, pending=(1, 3))
    expected = select(log_probs, (0, 2, 5), pending=(3,))
    np.testing.assert_array_equal(batch.indices, expected.indices)
    assert_nats(batch.scores, expected.scores)
    assert batch.diagnostics.num_invalid == 2


def test_without_jit(make_log_probs: MakeLogProbs):
    log_probs, pending = make_log_probs(6, 4, 3), jnp.asarray([4, -1])
    expected = bb.select_kbald(log_probs, batch_size=2, pending=pending)
    with jax.disable_jit():
        eager = bb.select_kbald(log_probs, batch_size=2, pending=pending)
    np.testing.assert_array_equal(eager.indices, expected.indices)
    assert_nats(eager.scores, expected.scores)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_the_batch_size_must_be_positive(make_log_probs: MakeLogProbs, batch_size: int):
    with pytest.raises(ValueError, match=f"batch_size: {batch_size} is not an integer of at"):
        bb.select_kbald(make_log_probs(6, 4, 3), batch_size=batch_size)


def test_no_two_points_of_the_pool_meet_in_memory():
    num_points, num_samples = 100_000, 20
    log_probs = jax.ShapeDtypeStruct((num_points, num_samples, 10), jnp.float32)
    side = tiling().outcomes
    allowed = 4 * (side * (3 * side + 4 * num_samples) + 5 * num_points)
    actual = temporary_bytes(
        lambda x: bb.select_kbald(x, batch_size=10, pending=jnp.arange(5)), log_probs
    )
    assert actual < allowed < num_points**2 / 1000
