"""BatchBALD: the greedy joint selection, against the float64 brute force."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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
    in_float64,
    set_tiles,
    temporary_bytes,
    tile_bytes,
)
from hypothesis import strategies as st

import bbald_jax as bb
from bbald_jax.acquisition.certificate import SPENT

ROUNDING = 2e-6  # nats
KEY = jax.random.key(0)
BATCH_SIZE = 4
NUM_PENDING = 3


def mask(*available: int) -> jax.Array:
    return jnp.isin(jnp.arange(6), jnp.asarray(available, jnp.int32))


def select(
    log_probs: jax.Array,
    available: Sequence[int] = range(6),
    pending: Sequence[int] = (),
    key: jax.Array = KEY,
    num_configurations: int = 10_000,
) -> bb.CandidateBatch:
    """Of 6 points 4, with room for 3 pending ones: one compilation for most tests."""
    padded = [*pending, *[-1] * (NUM_PENDING - len(pending))]
    return bb.select_batchbald(
        key,
        log_probs,
        batch_size=BATCH_SIZE,
        num_configurations=num_configurations,
        available=mask(*available),
        pending=jnp.asarray(padded, jnp.int32),
    )


def assert_is_greedy(
    batch: bb.CandidateBatch,
    log_probs: jax.Array,
    available: Sequence[int] = range(6),
    pending: Sequence[int] = (),
) -> None:
    """Every slot is the best choice after those before it, to the library's tolerance."""
    candidates = set(available) - set(pending)
    chosen = list(dict.fromkeys(p for p in pending if 0 <= p < len(log_probs)))
    before = reference.joint_mutual_information(log_probs[jnp.asarray(chosen, jnp.int32)])
    score = 0.0
    for index, actual_gain, actual_score in zip(
        batch.indices.tolist(), batch.gains.tolist(), batch.scores.tolist(), strict=True
    ):
        if not candidates:
            assert (index, actual_gain) == (-1, 0)
            assert_nats(actual_score, score)
            continue
        expected = {n: reference.gain(log_probs, chosen, n) for n in candidates}
        assert index in candidates
        assert_nats(actual_gain, expected[index])
        assert expected[index] >= max(expected.values()) - 1e-5
        chosen.append(index)
        candidates.remove(index)
        score = reference.joint_mutual_information(log_probs[jnp.asarray(chosen)]) - before
        assert_nats(actual_score, score)


# --- the exact regime


@pytest.mark.parametrize(
    ("available", "pending"),
    [
        pytest.param(range(6), [], id="all"),
        pytest.param([0, 2, 3, 5], [], id="as-many-as-slots"),
        pytest.param([1, 4], [], id="too-few"),
        pytest.param([], [], id="none"),
        pytest.param(range(6), [2], id="one-pending"),
        pytest.param(range(6), [5, 0, 3], id="slots-left-over"),
        pytest.param([0, 1, 4], [2, 3], id="pending-and-not-available"),
        pytest.param([0, 1, 4], [0, 1, 4], id="everything-pending"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"zeros": 0.3}], ids=["random", "zeros"])
def test_equals_the_brute_force(
    make_log_probs: MakeLogProbs, available: Sequence[int], pending: list[int], options: dict
):
    log_probs = make_log_probs(6, 4, 3, **options)
    batch = select(log_probs, available, pending)
    is_available = [n in available for n in range(6)]
    expected = reference.select_batchbald(log_probs, BATCH_SIZE, is_available, pending)
    expected += [-1] * (BATCH_SIZE - len(expected))
    np.testing.assert_array_equal(batch.indices, expected)
    assert_is_greedy(batch, log_probs, available, pending)
    np.testing.assert_array_equal(batch.diagnostics.is_exact, [True] * BATCH_SIZE)
    assert batch.indices.dtype == jnp.int32
    assert batch.scores.dtype == batch.gains.dtype == jnp.float32


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 4, 3), id="one-point"),
        pytest.param((6, 1, 3), id="one-sample"),
        pytest.param((6, 4, 1), id="one-class"),
        pytest.param((4, 3, 9), id="many-classes"),
    ],
)
def test_axes_of_other_lengths(make_log_probs: MakeLogProbs, shape: tuple[int, int, int]):
    log_probs = make_log_probs(*shape, seed=3)
    # As many configurations as three points of nine classes need.
    batch = bb.select_batchbald(KEY, log_probs, batch_size=3, num_configurations=81)
    assert np.all(batch.diagnostics.is_exact)
    assert_is_greedy(batch, log_probs, range(shape[0]))


@hypothesis.given(
    strategies.log_probs(6, 4, 3),
    st.lists(st.integers(0, 5), max_size=6, unique=True),
    st.lists(st.integers(-1, 5), max_size=NUM_PENDING),
)
def test_whatever_the_predictions_the_choice_is_greedy(
    log_probs: jax.Array, available: list[int], pending: list[int]
):
    assert_is_greedy(select(log_probs, available, pending), log_probs, available, pending)


@hypothesis.given(strategies.log_probs(6, 4, 3))
def test_gains_never_grow_and_the_score_is_their_sum_and_at_most_log_k(log_probs: jax.Array):
    batch = select(log_probs)
    assert np.all(np.diff(batch.gains) <= ROUNDING)
    assert np.all(batch.gains >= -ROUNDING)
    assert np.all(batch.scores <= np.log(4) + ROUNDING)
    assert_nats(batch.scores, np.cumsum(np.asarray(batch.gains, np.float64)), 5e-6)


def test_greedy_keeps_its_promise_of_63_percent(make_log_probs: MakeLogProbs):
    for seed in range(5):
        log_probs = make_log_probs(6, 4, 3, seed=seed)
        score = float(select(log_probs).scores[-1])
        best = reference.best_score(log_probs, BATCH_SIZE)
        assert (1 - 1 / np.e) * best <= score <= best + 1e-5


@hypothesis.given(st.permutations(range(6)))
def test_the_order_of_the_pool_does_not_matter(
    make_log_probs: MakeLogProbs, permutation: list[int]
):
    log_probs = make_log_probs(6, 4, 3, seed=1)
    whole, shuffled = select(log_probs), select(log_probs[np.array(permutation)])
    np.testing.assert_array_equal(np.array(permutation)[shuffled.indices], whole.indices)
    assert_nats(shuffled.scores, whole.scores, ROUNDING)


def test_among_equal_gains_the_key_chooses(make_log_probs: MakeLogProbs):
    log_probs = jnp.tile(make_log_probs(1, 4, 3), (6, 1, 1))
    batches = [
        tuple(select(log_probs, [1, 2, 4, 5], key=jax.random.key(seed)).indices.tolist())
        for seed in range(40)
    ]
    assert {tuple(sorted(batch)) for batch in batches} == {(1, 2, 4, 5)}
    assert {batch[0] for batch in batches} == {1, 2, 4, 5}
    assert len(set(batches)) > 12


def test_avoids_the_copies_that_bald_chooses(make_log_probs: MakeLogProbs):
    votes = jnp.log(jnp.eye(3))
    one, other = votes[jnp.asarray([0, 0, 1, 1])], votes[jnp.asarray([0, 1, 0, 1])]
    weak = make_log_probs(1, 4, 3, scale=0.5)[0]
    # Three copies of one noiseless question, then weak ones, then another noiseless question.
    log_probs = jnp.stack([one, one, one, weak, weak, jnp.where(other > -1, -0.01, -20.0)])
    log_probs = jax.nn.log_softmax(log_probs)
    np.testing.assert_array_equal(bb.select_bald(log_probs, batch_size=3).indices, [0, 1, 2])
    batch = select(log_probs)
    assert set(batch.indices[:2].tolist()) in ({0, 5}, {1, 5}, {2, 5})
    assert_nats(batch.scores[1], np.log(4), 1e-4)


def test_the_first_point_is_that_of_bald(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3, seed=2)
    bald, batch = bb.select_bald(log_probs, batch_size=1), select(log_probs)
    assert batch.indices[0] == bald.indices[0]
    assert_nats(batch.scores[0], bald.scores[0], ROUNDING)
    assert_nats(batch.gains[0], bald.scores[0], ROUNDING)


def test_without_information_the_gains_and_scores_are_zero(make_log_probs: MakeLogProbs):
    one_sample = make_log_probs(6, 1, 3, zeros=0.3)
    for log_probs in (jnp.repeat(one_sample, 4, axis=1), jnp.zeros((6, 4, 3)) - np.log(3)):
        batch = select(log_probs)
        assert_nats(batch.gains, np.zeros(4), 1e-6)
        assert_nats(batch.scores, np.zeros(4), 1e-6)
        assert sorted(set(batch.indices.tolist()) - {-1}) == sorted(batch.indices.tolist())


def test_more_slots_than_points_of_which_all_are_available_and_none_pending_by_default(
    make_log_probs: MakeLogProbs,
):
    log_probs = make_log_probs(6, 4, 3)
    batch = bb.select_batchbald(KEY, log_probs, batch_size=8, num_configurations=3**5)
    four = select(log_probs)
    np.testing.assert_array_equal(batch.indices[:4], four.indices)
    assert_nats(batch.scores[:4], four.scores, ROUNDING)
    assert sorted(batch.indices[:6].tolist()) == list(range(6))
    np.testing.assert_array_equal(batch.indices[6:], [-1, -1])
    np.testing.assert_array_equal(batch.gains[6:], [0, 0])
    np.testing.assert_array_equal(batch.scores[6:], [batch.scores[5]] * 2)
    assert_nats(batch.scores[5], reference.joint_mutual_information(log_probs))


# --- pending points


@pytest.mark.parametrize(
    "pending",
    [[2, 2, 4], [2, -1, 4], [-1, 2, 4], [4, 2, -1]],
    ids=["repeated", "padded-between", "padded-before", "other-order"],
)
def test_pending_points_are_a_set(make_log_probs: MakeLogProbs, pending: list[int]):
    log_probs = make_log_probs(6, 4, 3)
    expected, actual = select(log_probs, pending=[2, 4]), select(log_probs, pending=pending)
    np.testing.assert_array_equal(actual.indices, expected.indices)
    assert_nats(actual.scores, expected.scores, ROUNDING)
    assert not {2, 4} & set(actual.indices.tolist())


def test_pending_points_out_of_range_are_none_at_all(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    jax.tree.map(
        np.testing.assert_array_equal,
        select(log_probs, pending=[6, -2, 1000]),
        select(log_probs),
    )


def test_what_is_pending_changes_what_is_best():
    # Two noiseless questions; a copy of the pending one is worthless, the other is not.
    votes = jnp.log(jnp.eye(3))
    one, other = votes[jnp.asarray([0, 0, 1, 1])], votes[jnp.asarray([0, 1, 0, 1])]
    log_probs = jnp.stack([one, one, one, one, one, other])
    batch = select(log_probs, pending=[3])
    assert batch.indices[0] == 5
    assert set(batch.indices[1:].tolist()) < {0, 1, 2, 4}
    assert_nats(batch.gains, [np.log(2), 0, 0, 0], ROUNDING)


def test_four_and_then_four_more_are_eight(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(14, 6, 2, seed=1)
    function = partial(bb.select_batchbald, KEY, log_probs, batch_size=8, num_configurations=2**7)
    eight = function(pending=jnp.full(4, -1))
    more = function(pending=eight.indices[:4])
    assert np.all(eight.diagnostics.is_exact)
    np.testing.assert_array_equal(more.indices[:4], eight.indices[4:])
    assert_nats(eight.scores[3] + more.scores[:4], eight.scores[4:])
    assert_nats(more.gains[:4], eight.gains[4:])


# --- what is broken, and where the peers break


def test_invalid_points_are_never_chosen_and_are_counted(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    broken = log_probs.at[0, 0, 0].set(jnp.nan).at[3].set(jnp.nan).at[5, 3, 2].set(jnp.inf)
    batch = select(broken, [0, 1, 2, 4, 5])
    healthy = select(log_probs, [1, 2, 4])
    np.testing.assert_array_equal(batch.indices, healthy.indices)
    np.testing.assert_array_equal(batch.scores, healthy.scores)
    np.testing.assert_array_equal(batch.gains, healthy.gains)
    assert batch.diagnostics.num_invalid == 3
    assert healthy.diagnostics.num_invalid == 0


def test_invalid_pending_points_tell_nothing(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3).at[0, 0, 0].set(jnp.nan).at[5, 3, 2].set(jnp.inf)
    batch = select(log_probs, pending=[0, 2, 5])
    expected = select(log_probs, pending=[2])
    np.testing.assert_array_equal(batch.indices, expected.indices)
    np.testing.assert_array_equal(batch.scores, expected.scores)
    assert batch.diagnostics.num_invalid == 2


def test_a_point_whose_probability_overflows_is_never_chosen(make_log_probs: MakeLogProbs):
    # Logits passed for log-probabilities: exp(100) is infinite in float32.
    log_probs = make_log_probs(6, 4, 3).at[3, 0, 0].set(100.0)
    batch = select(log_probs)
    assert 3 not in batch.indices
    assert np.all(np.isfinite(batch.scores))
    assert batch.diagnostics.num_invalid == 1


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        pytest.param({"scale": 60.0}, np.log(8), id="peaked"),
        pytest.param({"scale": 1e-3}, 1e-3, id="flat"),
        pytest.param({"scale": 60.0, "zeros": 0.5}, np.log(8), id="zeros"),
    ],
)
def test_long_batches_stay_finite(make_log_probs: MakeLogProbs, options: dict, largest: float):
    log_probs = make_log_probs(60, 8, 10, **options)
    batch = bb.select_batchbald(KEY, log_probs, batch_size=50, num_configurations=100)
    assert len(set(batch.indices.tolist())) == 50
    assert np.all(np.isfinite(batch.gains))
    assert np.all(np.isfinite(batch.scores))
    assert np.all(batch.scores <= largest + ROUNDING)
    assert_nats(batch.scores, np.cumsum(np.asarray(batch.gains, np.float64)), 50 * ROUNDING)


def test_spent_samples_end_in_zero_gains_not_in_nan(make_log_probs: MakeLogProbs):
    votes = jnp.log(jnp.eye(4))[:, :3] * jnp.ones((6, 1, 1))  # sample 3 has no class at all
    votes = jnp.where(jnp.arange(4)[:, None] == 3, jnp.log(jnp.eye(3)[0]), votes)
    batch = select(votes)
    assert_nats(batch.gains[1:], np.zeros(3), ROUNDING)
    assert_nats(batch.scores, np.full(4, reference.entropy(np.array([0.5, 0.25, 0.25]))), ROUNDING)
    assert len(set(batch.indices.tolist()) & set(range(6))) == 4


def test_spent_samples_draw_the_rest_at_random(make_log_probs: MakeLogProbs):
    # Three samples, told apart by a few points of many.
    log_probs = make_log_probs(200, 3, 3, scale=1.0)
    choose = partial(bb.select_batchbald, log_probs=log_probs, batch_size=40, num_configurations=9)
    batches = [choose(jax.random.key(seed)) for seed in range(20)]
    remaining = np.array([batch.diagnostics.remaining_entropy for batch in batches])
    assert (remaining[:, 0] > SPENT).all() and (remaining[:, 20] < SPENT).all()
    assert all(len(set(batch.indices.tolist())) == 40 for batch in batches)
    # 400 draws from all of the pool: by gains they would be the same 20 in each batch.
    rest = np.array([batch.indices[20:] for batch in batches])
    assert len(set(rest.ravel().tolist())) > 120
    assert abs(rest.mean() - 99.5) < 4 * np.sqrt((200**2 - 1) / 12 / rest.size)


# --- thinned


def thinned(log_probs: jax.Array, key: jax.Array = KEY) -> bb.CandidateBatch:
    return select(log_probs, key=key, num_configurations=10)


def test_says_which_scores_are_exact(make_log_probs: MakeLogProbs):
    # 10 configurations hold the 9 of two points: the third score is exact, the fourth is not.
    batch = thinned(make_log_probs(6, 4, 3))
    np.testing.assert_array_equal(batch.diagnostics.is_exact, [True, True, True, False])
    exact = select(make_log_probs(6, 4, 3))
    np.testing.assert_array_equal(batch.indices[:3], exact.indices[:3])
    assert_nats(batch.scores[:3], exact.scores[:3], ROUNDING)
    assert abs(batch.scores[3] - exact.scores[3]) > ROUNDING


def test_thinned_scores_are_unbiased_when_the_choice_is_forced(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    keys = jax.random.split(KEY, 500)

    def scores(key: jax.Array) -> jax.Array:
        return select(log_probs, [1, 2, 4, 5], [0, 3], key, num_configurations=10).scores

    everything = np.asarray(jax.vmap(scores)(keys), np.float64)
    chosen = reference.joint_mutual_information(log_probs)
    pending = reference.joint_mutual_information(log_probs[jnp.asarray([0, 3])])
    error = everything[:, -1].std() / np.sqrt(500)
    assert 0 < error < 0.01
    assert abs(everything[:, -1].mean() - (chosen - pending)) < 4 * error


def test_thinned_scores_are_the_sum_of_the_gains_and_at_most_log_k(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3, zeros=0.2)
    for key in jax.random.split(KEY, 20):
        batch = thinned(log_probs, key)
        assert_nats(batch.scores, np.cumsum(np.asarray(batch.gains, np.float64)), 5e-6)
        assert np.all(batch.scores <= np.log(4) + ROUNDING)


def test_thinning_depends_on_the_key_alone(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    jax.tree.map(np.testing.assert_array_equal, thinned(log_probs), thinned(log_probs))
    other = thinned(log_probs, jax.random.key(1))
    assert thinned(log_probs).scores[3] != other.scores[3]


def test_an_exact_selection_does_not_depend_on_the_key(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    jax.tree.map(
        np.testing.assert_array_equal,
        select(log_probs, pending=[1]),
        select(log_probs, pending=[1], key=jax.random.key(1)),
    )


# --- transformations


def test_without_jit(
    make_log_probs: MakeLogProbs, quickly_compiled: Callable[[], AbstractContextManager[None]]
):
    log_probs = make_log_probs(6, 4, 3)
    # Every operation is a program: in each there is nothing to optimise.
    with jax.disable_jit(), quickly_compiled():
        eager = bb.select_batchbald(
            KEY, log_probs, batch_size=2, num_configurations=9, pending=jnp.asarray([3])
        )
    expected = select(log_probs, pending=[3])
    np.testing.assert_array_equal(eager.indices, expected.indices[:2])
    assert_nats(eager.scores, expected.scores[:2], ROUNDING)
    assert_nats(eager.gains, expected.gains[:2], ROUNDING)


def test_two_pools_under_jit_and_vmap_are_the_two_single_calls(make_log_probs: MakeLogProbs):
    keys = jax.random.split(KEY, 2)
    pools = jnp.stack([make_log_probs(6, 4, 3, seed=seed) for seed in (4, 5)])
    both = jax.jit(jax.vmap(lambda key, pool: thinned(pool, key)))(keys, pools)
    for i in range(2):
        single = thinned(pools[i], keys[i])
        np.testing.assert_array_equal(both.indices[i], single.indices)
        assert_nats(both.scores[i], single.scores, ROUNDING)
        assert_nats(both.gains[i], single.gains, ROUNDING)


def test_is_float64_under_x64():
    logits = np.random.default_rng(0).normal(size=(6, 4, 3))
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    with in_float64():
        batch = bb.select_batchbald(
            jax.random.key(0),
            jnp.asarray(log_probs),
            batch_size=3,
            num_configurations=10,
            pending=jnp.asarray([2, -1]),
        )
        scores, indices = np.asarray(batch.scores), np.asarray(batch.indices)
    assert scores.dtype == np.float64
    assert indices.dtype == np.int32
    pending = reference.joint_mutual_information(log_probs[[2]])
    expected = reference.joint_mutual_information(log_probs[[2, *indices[:2]]]) - pending
    assert_nats(scores[1], expected, 1e-12)


def test_in_tiles_equals_the_whole(monkeypatch: pytest.MonkeyPatch, make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    whole = thinned(log_probs)
    set_tiles(monkeypatch, predictive=7 * 4 * 3, children=36, rows=3, block=2)
    # Past the cache of the compiled function: the sizes are read when tracing.
    monkeypatch.setattr(bb, "select_batchbald", inspect.unwrap(bb.select_batchbald))
    tiled = jax.jit(lambda log_probs: thinned(log_probs))(log_probs)
    np.testing.assert_array_equal(tiled.indices, whole.indices)
    assert_nats(tiled.scores, whole.scores, ROUNDING)
    assert_nats(tiled.gains, whole.gains, ROUNDING)


def test_memory_is_that_of_the_docstring_not_of_every_point_times_every_configuration():
    num_points, num_samples, num_classes, capacity = 20_000, 4, 10, 10_000
    assert 4 * num_points * capacity * num_classes == 8e9  # the naive array
    stated = 4 * num_points * num_samples * (num_classes + 1)
    stated += 4 * 6 * capacity * (num_samples + num_classes) + tile_bytes()
    log_probs = jax.ShapeDtypeStruct((num_points, num_samples, num_classes), jnp.float32)
    pending = jax.ShapeDtypeStruct((10,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def function(key: jax.Array, log_probs: jax.Array, pending: jax.Array) -> bb.CandidateBatch:
        return bb.select_batchbald(
            key, log_probs, batch_size=10, num_configurations=capacity, pending=pending
        )

    assert temporary_bytes(function, key, log_probs, pending) <= 2 * stated


def test_the_number_of_configurations_must_be_positive(make_log_probs: MakeLogProbs):
    with pytest.raises(ValueError, match="num_configurations: 0 is not an integer of at least 1"):
        bb.select_batchbald(KEY, make_log_probs(6, 4, 3), batch_size=2, num_configurations=0)
