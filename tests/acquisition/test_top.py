"""From scores to a batch: order, ties, availability, and slots that stay unfilled."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import MakeLogProbs, assert_nats, fused_reductions, temporary_bytes
from hypothesis import strategies as st
from quick import run_quickly

import bbald_jax as bb
from bbald_jax.acquisition import top

ALL = jnp.ones(6, bool)


def mask(*available: int) -> jax.Array:
    return jnp.isin(jnp.arange(6), jnp.asarray(available, jnp.int32))


def select_top(
    scores: list[float], batch_size: int, available: jax.Array = ALL
) -> bb.CandidateBatch:
    return top.select_top(jnp.asarray(scores), batch_size=batch_size, available=available)


# --- masks


def test_points_with_nan_or_infinite_probabilities_are_invalid(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    log_probs = log_probs.at[1, 3, 0].set(jnp.nan).at[2, 0, 2].set(jnp.inf)
    log_probs = log_probs.at[4, 1, 1].set(-jnp.inf)  # impossible, and fine
    np.testing.assert_array_equal(np.flatnonzero(top.invalid_points(log_probs)), [1, 2])


def test_a_log_probability_whose_probability_overflows_is_invalid(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3).at[3, 0, 0].set(100.0)
    assert np.isinf(jnp.exp(log_probs[3, 0, 0]))
    np.testing.assert_array_equal(np.flatnonzero(top.invalid_points(log_probs)), [3])


def test_first_mentions_leave_out_padding_repeats_and_what_is_out_of_range():
    indices = jnp.asarray([3, -1, 0, 3, 6, -7, 5, 0, -1])
    expected = [True, False, True, False, False, False, True, False, False]
    np.testing.assert_array_equal(top.first_mentions(indices, 6), expected)


@pytest.mark.parametrize(
    ("pending", "left"),
    [
        ([], [0, 1, 3, 4, 5]),
        ([-1, -1], [0, 1, 3, 4, 5]),
        ([0, 5], [1, 3, 4]),
        ([4, 4, -1, 2], [0, 1, 3, 5]),
        ([6, -6, 100], [0, 1, 3, 4, 5]),
    ],
)
def test_pending_points_are_not_available(pending: list[int], left: list[int]):
    actual = top.without_pending(mask(0, 1, 3, 4, 5), jnp.asarray(pending, jnp.int32))
    np.testing.assert_array_equal(np.flatnonzero(actual), left)


def test_without_pending_points_nothing_changes():
    assert top.without_pending(ALL, None) is ALL


# --- top B


def test_top_scores_come_in_order():
    batch = select_top([0.1, 0.5, 0.3, 0.9, -1.0, 0.4], 3)
    np.testing.assert_array_equal(batch.indices, [3, 1, 5])
    assert_nats(batch.scores, [0.9, 0.5, 0.4], 1e-7)
    np.testing.assert_array_equal(batch.gains, batch.scores)
    assert batch.indices.dtype == jnp.int32
    np.testing.assert_array_equal(batch.diagnostics.is_exact, [True] * 3)


def test_of_equal_scores_the_lowest_index_comes_first():
    np.testing.assert_array_equal(select_top([1, 2, 2, 1, 2, 1.0], 5).indices, [1, 2, 4, 0, 3])


def test_with_a_key_equal_scores_come_in_an_order_that_the_key_decides():
    scores = jnp.asarray([1, 2 + 4e-7, 2, 1 - 4e-7, 2 - 4e-7, 1.0])
    batches = [
        top.select_top(scores, batch_size=4, available=ALL, key=jax.random.key(seed))
        for seed in range(30)
    ]
    orders = {tuple(batch.indices.tolist()) for batch in batches}
    assert {tuple(sorted(order[:3])) for order in orders} == {(1, 2, 4)}
    assert {order[0] for order in orders} == {1, 2, 4}
    assert {order[3] for order in orders} == {0, 3, 5}
    assert len(orders) > 10
    for batch in batches:
        np.testing.assert_array_equal(batch.scores, scores[batch.indices])


@hypothesis.given(
    st.lists(st.sampled_from([0.0, 0.1, 0.1 + 5e-7, 0.2, -np.inf]), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.integers(0, 2**31 - 1),
)
def test_with_a_key_the_scores_are_the_highest_up_to_rounding(
    scores: list[float], available: list[bool], seed: int
):
    array, is_available = jnp.asarray(scores), jnp.asarray(available)
    batch = top.select_top(array, batch_size=4, available=is_available, key=jax.random.key(seed))
    expected = top.select_top(array, batch_size=4, available=is_available)
    filled = np.asarray(batch.indices) >= 0
    assert filled.sum() == min(sum(available), 4)
    assert len(set(batch.indices[filled].tolist())) == filled.sum()
    assert all(available[i] for i in batch.indices[filled])
    assert_nats(batch.scores, expected.scores, 1e-6)


def test_only_available_points_are_chosen():
    batch = select_top([0.1, 0.5, 0.3, 0.9, -1.0, 0.4], 2, mask(0, 4))
    np.testing.assert_array_equal(batch.indices, [0, 4])


@pytest.mark.parametrize("batch_size", [3, 6, 9])
def test_slots_without_a_point_are_minus_one_with_no_gain_and_the_previous_score(batch_size: int):
    batch = select_top([0.1, 0.5, 0.3, 0.9, -1.0, 0.4], batch_size, mask(1, 5))
    empty = batch_size - 2
    np.testing.assert_array_equal(batch.indices, [1, 5] + [-1] * empty)
    assert_nats(batch.gains, [0.5, 0.4] + [0] * empty, 1e-7)
    assert_nats(batch.scores, [0.5, 0.4] + [0.4] * empty, 1e-7)


def test_more_slots_than_points():
    batch = select_top([0.1, 0.5, 0.3, 0.9, -1.0, 0.4], 8)
    np.testing.assert_array_equal(batch.indices, [3, 1, 5, 2, 0, 4, -1, -1])
    assert_nats(batch.scores[-3:], [-1, -1, -1])
    assert_nats(batch.gains[-3:], [-1, 0, 0])


def test_nothing_available_fills_nothing():
    batch = select_top([0.1, 0.5, 0.3, 0.9, -1.0, 0.4], 2, mask())
    np.testing.assert_array_equal(batch.indices, [-1, -1])
    np.testing.assert_array_equal(batch.scores, [0, 0])
    np.testing.assert_array_equal(batch.gains, [0, 0])


def test_a_score_of_minus_infinity_still_comes_before_what_is_not_available():
    batch = select_top([5.0, -np.inf, 5.0, 1.0, -np.inf, 5.0], 4, mask(1, 3, 4))
    np.testing.assert_array_equal(batch.indices, [3, 1, 4, -1])


def test_a_score_that_is_not_a_number_is_never_chosen_and_is_counted():
    batch = select_top([0.1, np.nan, 0.3, np.nan, -np.inf, np.inf], 6, mask(1, 2, 4, 5))
    np.testing.assert_array_equal(batch.indices, [5, 2, 4, -1, -1, -1])
    np.testing.assert_array_equal(batch.gains[3:], [0, 0, 0])
    assert batch.diagnostics.num_invalid == 2


@hypothesis.given(
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0]), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.integers(1, 8),
)
def test_top_is_the_stable_sort_of_the_available(
    scores: list[float], available: list[bool], batch_size: int
):
    batch = select_top(scores, batch_size, jnp.asarray(available))
    order = [n for n in np.argsort(-np.array(scores), kind="stable") if available[n]]
    expected = (order + [-1] * batch_size)[:batch_size]
    np.testing.assert_array_equal(batch.indices, expected)


def test_top_works_under_jit_and_vmap():
    scores = jnp.asarray([[3.0, 1, 2, 0, 0, 0], [0, 0, 0, 1.0, 2, 3]])
    available = jnp.stack([mask(1, 2), mask(5)])

    def select(scores: jax.Array, available: jax.Array) -> bb.CandidateBatch:
        return top.select_top(scores, batch_size=2, available=available)

    batch = jax.jit(jax.vmap(select))(scores, available)
    np.testing.assert_array_equal(batch.indices, [[2, 1], [5, -1]])
    np.testing.assert_array_equal(batch.scores, [[2, 1], [3, 3]])


# --- BALD


def test_bald_chooses_the_points_of_highest_mutual_information(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3, zeros=0.2)
    batch = bb.select_bald(log_probs, batch_size=6)
    expected = reference.mutual_information(log_probs)
    np.testing.assert_array_equal(batch.indices, np.argsort(-expected))
    assert_nats(batch.scores, np.sort(expected)[::-1])
    np.testing.assert_array_equal(batch.gains, batch.scores)
    assert batch.diagnostics.num_invalid == 0


def test_bald_chooses_copies_of_one_point(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    best = int(np.argmax(reference.mutual_information(log_probs)))
    copies = [n for n in range(6) if n != best][:2]
    log_probs = log_probs.at[jnp.asarray(copies)].set(log_probs[best])
    batch = bb.select_bald(log_probs, batch_size=3)
    np.testing.assert_array_equal(batch.indices, sorted([best, *copies]))


@pytest.mark.parametrize("place", [(0, 0), (7, 3), (15, 7), (slice(None), slice(None))])
def test_a_nan_anywhere_among_many_numbers_is_found(place, make_log_probs: MakeLogProbs):
    # XLA takes eight numbers and more at a time, and its maximum of them may be none of the NaN.
    log_probs = np.array(make_log_probs(64, 16, 8))
    log_probs[5][place] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(top.invalid_points(jnp.asarray(log_probs))), [5])


def test_bald_never_chooses_invalid_points_and_counts_them(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    broken = log_probs.at[0, 0, 0].set(jnp.nan).at[4].set(jnp.nan).at[5, 3, 2].set(jnp.inf)
    batch = bb.select_bald(broken, batch_size=4, available=mask(0, 1, 2, 3, 5))
    assert sorted(batch.indices.tolist()) == [-1, 1, 2, 3]
    assert np.all(np.isfinite(batch.scores))
    assert np.all(np.isfinite(batch.gains))
    assert batch.diagnostics.num_invalid == 3  # point 4 too, though it is not available


@fused_reductions
def test_bald_does_not_copy_the_predictions():
    log_probs = jax.ShapeDtypeStruct((20_000, 100, 10), jnp.float32)
    needed = temporary_bytes(lambda x: bb.select_bald(x, batch_size=10), log_probs)
    assert needed < 4 * log_probs.size / 10


def test_bald_without_jit_and_under_an_outer_jit(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    expected = bb.select_bald(log_probs, batch_size=3, available=mask(0, 2, 5))

    def select(log_probs: jax.Array) -> bb.CandidateBatch:
        return bb.select_bald(log_probs, batch_size=3, available=mask(0, 2, 5))

    outer = jax.jit(select)(log_probs)
    with jax.disable_jit():
        eager = select(log_probs)
    for actual in (outer, eager):
        np.testing.assert_array_equal(actual.indices, expected.indices)
        assert_nats(actual.scores, expected.scores, 1e-6)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_the_batch_size_must_be_positive(make_log_probs: MakeLogProbs, batch_size: int):
    message = f"batch_size: {batch_size} is not an integer of at least 1"
    with pytest.raises(ValueError, match=message):
        bb.select_bald(make_log_probs(6, 4, 3), batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        bb.select_random(jax.random.key(0), batch_size=batch_size, available=ALL)
    with pytest.raises(ValueError, match=message):
        bb.select_batchbald(jax.random.key(0), make_log_probs(6, 4, 3), batch_size=batch_size)


# In a process of its own, as the type checks of the tests would see these arguments first. A mask
# of the wrong shape or type would broadcast, or take 0 and 1 for False and True, without a word.
_WITHOUT_TYPE_CHECKS = """
import jax, jax.numpy as jnp, numpy as np, bbald_jax as bb
log_probs = jnp.log(jnp.full((6, 4, 3), 1 / 3))
bald = lambda mask: bb.select_bald(log_probs, batch_size=2, available=mask)
batchbald = lambda mask: bb.select_batchbald(
    jax.random.key(0), log_probs, batch_size=2, available=mask)
for select in (bald, batchbald):
    for wrong in (jnp.ones(1, bool), jnp.ones((), bool), jnp.arange(6), jnp.ones((6, 1), bool)):
        try:
            select(wrong)
        except (AssertionError, TypeError, ValueError) as error:
            print("refused" if "available" in str(error) else error)
        else:
            print("accepted", wrong.dtype, wrong.shape)
six = np.eye(6, dtype=np.float32), np.ones(6, np.float32)
posterior = bb.GaussianPosterior(*six, *six, 3, six[1])
seen = [np.asarray(log_probs[:, 0]), np.eye(6, dtype=np.float32), np.zeros(6, bool)]
inputs = bb.Inputs(*2 * [np.asarray(log_probs)], *seen, posterior)
for function in bb.catalogue(num_configurations=10).values():
    batch = function.select(
        jax.random.key(0), inputs, batch_size=2,
        available=np.array([0, 1, 1, 1, 0, 0], bool), pending=np.array([3, -1]))
    print(sorted(batch.indices.tolist()))
"""


def test_masks_are_checked_and_may_be_numpy_arrays():
    result = run_quickly(_WITHOUT_TYPE_CHECKS)
    assert result.stdout.splitlines() == ["refused"] * 8 + ["[1, 2]"] * 21, result.stderr


def test_no_points_at_all_are_refused():
    nothing = jnp.zeros((0, 4, 3))
    with pytest.raises(ValueError, match="empty axis"):
        bb.select_bald(nothing, batch_size=2)
    with pytest.raises(ValueError, match="empty axis"):
        bb.select_batchbald(jax.random.key(0), nothing, batch_size=2)


# --- random


def random_batches(num_keys: int, batch_size: int, available: jax.Array) -> bb.CandidateBatch:
    keys = jax.random.split(jax.random.key(0), num_keys)

    def select(key: jax.Array) -> bb.CandidateBatch:
        return bb.select_random(key, batch_size=batch_size, available=available)

    return jax.vmap(select)(keys)


def test_random_chooses_every_ordered_pair_equally_often():
    indices = np.asarray(random_batches(6000, 2, mask(0, 2, 3, 5)).indices)
    pairs, counts = np.unique(indices, axis=0, return_counts=True)
    assert len(pairs) == 12
    assert not np.any(pairs[:, 0] == pairs[:, 1])
    assert set(pairs.ravel()) == {0, 2, 3, 5}
    # 500 expected, standard deviation 21.4.
    assert np.all(np.abs(counts - 500) < 4 * 21.4)


def test_random_without_enough_points_leaves_slots_unfilled():
    batches = random_batches(20, 3, mask(1, 4))
    np.testing.assert_array_equal(np.sort(batches.indices, axis=1), [[-1, 1, 4]] * 20)
    np.testing.assert_array_equal(batches.indices[:, 2], -1)
    np.testing.assert_array_equal(batches.gains[:, 2], 0)


def test_random_depends_on_the_key_alone():
    key = jax.random.key(3)
    one = bb.select_random(key, batch_size=6, available=ALL)
    again = bb.select_random(key, batch_size=6, available=ALL)
    np.testing.assert_array_equal(one.indices, again.indices)
    others = [
        bb.select_random(key, batch_size=6, available=ALL).indices.tolist()
        for key in jax.random.split(key, 4)
    ]
    assert len({tuple(indices) for indices in [*others, one.indices.tolist()]}) == 5
