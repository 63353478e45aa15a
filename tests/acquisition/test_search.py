"""The search with bounds finds what a dense evaluation finds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_nats, in_float64
from hypothesis import given
from hypothesis import strategies as st
from pools import NUM_CLASSES, NUM_POINTS, NUM_SAMPLES, POOLS

import bbald_jax as bb
from bbald_jax.acquisition.search import best_gains
from bbald_jax.acquisition.ties import priorities
from bbald_jax.acquisition.warnings import num_informed
from bbald_jax.information.configurations import branch, extend, root
from bbald_jax.information.gains import candidates, gains
from bbald_jax.tiling import tiling

BATCH_SIZE = 8
CAPACITY = 320
KEY = jax.random.key(0)


ALL = jnp.ones(NUM_POINTS, bool)


def select(
    log_probs: jax.Array, seed: int, use_bounds: bool, available: jax.Array = ALL
) -> bb.CandidateBatch:
    return bb.select_batchbald(
        jax.random.key(seed),
        log_probs,
        batch_size=BATCH_SIZE,
        num_configurations=CAPACITY,
        available=available,
        use_bounds=use_bounds,
    )


def assert_same_up_to_ties(indices, gains, expected_indices, expected_gains):
    """The same points, until two gains differ by no more than their rounding, or are nothing."""
    for index, gain, expected_index, expected_gain in zip(
        indices, gains, expected_indices, expected_gains, strict=True
    ):
        # Where nothing is to be gained, a dense evaluation still finds its own rounding.
        if max(gain, expected_gain) <= 4e-6:
            return
        assert abs(gain - expected_gain) <= 2e-6
        if index != expected_index:
            return


def assert_same_selection(log_probs: jax.Array, seed: int):
    batch, dense = (select(log_probs, seed, use_bounds) for use_bounds in (True, False))
    assert_same_up_to_ties(batch.indices, batch.gains, dense.indices, dense.gains)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_the_selection_is_the_dense_one(pool, seed: int):
    assert_same_selection(pool(np.random.default_rng(seed)), seed)


@given(pool=st.sampled_from(POOLS), seed=st.integers(0, 2**31 - 1))
def test_the_selection_is_the_dense_one_on_any_pool(pool, seed: int):
    assert_same_selection(pool(np.random.default_rng(seed)), seed)


@given(pool=st.sampled_from(POOLS[:4]), seed=st.integers(0, 2**31 - 1))
def test_the_order_of_the_pool_does_not_matter(pool, seed: int):
    rng = np.random.default_rng(seed)
    log_probs = pool(rng)
    order = rng.permutation(NUM_POINTS)
    batch, permuted = select(log_probs, seed, True), select(log_probs[order], seed, True)
    # Once the samples are spent points are drawn at random, others in another order.
    remaining = batch.diagnostics.remaining_entropy.tolist()
    informed = num_informed(batch.scores.tolist(), remaining)
    assert_same_up_to_ties(
        order[permuted.indices][:informed],
        permuted.gains[:informed],
        batch.indices[:informed],
        batch.gains[:informed],
    )


def test_broken_points_change_nothing_for_the_others():
    # More of them than a block holds, in a tree that is searched with bounds.
    log_probs = POOLS[0](np.random.default_rng(3))
    broken = np.arange(0, NUM_POINTS, 3)
    assert len(broken) > tiling().block
    with_nan = jnp.asarray(log_probs).at[broken, 1].set(jnp.nan)
    batch = select(with_nan, 0, True)
    expected = select(log_probs, 0, True, ALL.at[broken].set(False))
    assert_same_up_to_ties(batch.indices, batch.gains, expected.indices, expected.gains)
    assert batch.diagnostics.num_invalid == len(broken)
    assert np.isfinite(batch.diagnostics.upper_bound)
    assert_nats(batch.diagnostics.certified_ratio, expected.diagnostics.certified_ratio)


def test_in_float64():
    with in_float64():
        log_probs = jnp.asarray(POOLS[0](np.random.default_rng(0)), jnp.float64)
        assert_same_selection(jax.nn.log_softmax(log_probs, axis=-1), 0)


@partial(jax.jit, static_argnames=("num_best", "use_bounds"))
def search_jit(
    log_probs, available, num_wanted, tolerance, enough, num_needed, key, *, num_best, use_bounds
):
    tree = jax.lax.fori_loop(
        0,
        5,
        lambda i, tree: extend(jax.random.key(i), tree, log_probs[i], branch(tree, log_probs[i])),
        root(NUM_SAMPLES, CAPACITY, log_probs.dtype),
    )
    pool = candidates(log_probs)
    found = best_gains(
        tree,
        pool,
        available,
        num_best=num_best,
        num_wanted=num_wanted,
        num_needed=num_needed,
        enough=enough,
        tolerance=tolerance,
        hint=jnp.full(log_probs.shape[0], jnp.inf),
        priority=priorities(key, jnp.arange(log_probs.shape[0])),
        use_bounds=use_bounds,
    )
    return found, gains(tree, pool), tree.size


def search(
    log_probs,
    available,
    num_wanted,
    tolerance,
    enough=jnp.inf,
    num_needed=1,
    *,
    key=KEY,
    num_best=10,
    use_bounds=True,
):
    # Always all arguments of the same types: most tests share one compilation.
    return search_jit(
        log_probs,
        available,
        jnp.int32(num_wanted),
        jnp.float32(tolerance),
        jnp.float32(enough),
        jnp.int32(num_needed),
        key,
        num_best=num_best,
        use_bounds=use_bounds,
    )


@pytest.fixture
def log_probs() -> jax.Array:
    return POOLS[0](np.random.default_rng(0))


@pytest.mark.parametrize("num_wanted", [1, 3, 10])
def test_as_many_as_wanted_are_the_right_ones(log_probs: jax.Array, num_wanted: int):
    found, exact, _ = search(log_probs, ALL, num_wanted, 0.0)
    expected = np.argsort(-np.asarray(exact), kind="stable")[:num_wanted]
    np.testing.assert_array_equal(found.indices[:num_wanted], expected)
    assert_nats(found.gains[:num_wanted], np.asarray(exact)[expected], 1e-6)


def test_when_enough_is_found_only_the_first_must_be_right(log_probs: jax.Array):
    _, exact, num_nodes = search(log_probs, ALL, 10, 0.0)
    largest = np.sort(np.asarray(exact))[::-1]
    enough = 0.5 * largest[:10].sum()
    found, _, _ = search(log_probs, ALL, 10, 0.0, enough)
    one, _, _ = search(log_probs, ALL, 1, 0.0)
    assert found.indices[0] == np.argmax(exact)
    assert found.gains.sum() >= enough
    assert found.work <= 2 * one.work + NUM_POINTS * num_nodes / 10


def test_when_enough_is_found_and_nothing_needed_the_search_is_over(log_probs: jax.Array):
    found, _, num_nodes = search(log_probs, ALL, 10, 0.0, 1e-3, num_needed=0)
    assert found.gains.sum() >= 1e-3
    assert found.work == tiling().block * num_nodes
    assert np.isinf(found.bounds).sum() == NUM_POINTS - tiling().block


def test_the_bounds_are_bounds(log_probs: jax.Array):
    available = ALL.at[::3].set(False)
    found, exact, _ = search(log_probs, available, 3, 0.0)
    assert np.all(np.asarray(found.bounds)[available] >= np.asarray(exact)[available] - 1e-6)
    assert np.all(np.asarray(found.bounds)[~available] == -np.inf)


def test_what_is_not_available_is_not_found(log_probs: jax.Array):
    best, _, _ = search(log_probs, ALL, 1, 0.0)
    found, exact, _ = search(log_probs, ALL.at[best.indices[0]].set(False), 1, 0.0)
    assert found.indices[0] == np.argsort(-np.asarray(exact), kind="stable")[1]


def test_fewer_candidates_than_asked_for(log_probs: jax.Array):
    available = jnp.zeros(NUM_POINTS, bool).at[jnp.array([7, 140])].set(True)
    found, _, _ = search(log_probs, available, 10, 0.0)
    assert set(found.indices[:2].tolist()) == {7, 140}
    assert np.all(np.asarray(found.gains[2:]) == -np.inf)


def test_a_tolerance_misses_no_more_than_it_says(log_probs: jax.Array):
    tolerance = 0.02
    exact_found, exact, _ = search(log_probs, ALL, 10, 0.0)
    found, _, _ = search(log_probs, ALL, 10, tolerance)
    assert found.work <= exact_found.work
    upper = np.sort(np.asarray(found.bounds))[-10:].sum()
    best = np.sort(np.asarray(exact))[-10:].sum()
    assert best - 1e-5 <= upper <= best + 10 * tolerance


def test_the_first_of_equals_is_found():
    log_probs = POOLS[4](np.random.default_rng(0))  # every point three times
    found, _, _ = search(log_probs, ALL, 3, 0.0)
    first = int(found.indices[0])
    third = NUM_POINTS // 3
    assert found.indices[:3].tolist() == [first, first + third, first + 2 * third]
    assert first < third


@pytest.mark.parametrize("use_bounds", [True, False])
def test_of_equals_the_key_chooses(use_bounds: bool):
    log_probs = POOLS[4](np.random.default_rng(0))  # every point three times
    third = NUM_POINTS // 3
    chosen, exact = [], np.zeros(0)
    for seed in range(12):
        key = jax.random.key(seed)
        found, exact, _ = search(log_probs, ALL, 1, 0.0, key=key, use_bounds=use_bounds)
        assert exact[found.chosen] >= np.max(exact) - 1e-6
        assert_nats(found.gain, np.max(exact), 1e-6)
        chosen.append(int(found.chosen))
    copies = {int(np.argmax(exact)) % third + copy * third for copy in range(3)}
    assert set(chosen) == copies


def test_where_nothing_is_to_be_gained_any_point_is_chosen():
    # In the type of the other tests' predictions, or it is compiled again.
    shape = (NUM_POINTS, NUM_SAMPLES, NUM_CLASSES)
    log_probs = jnp.full(shape, -np.log(NUM_CLASSES), jnp.float32)
    some = ALL.at[:100].set(False)
    keys = [jax.random.key(seed) for seed in range(20)]
    found = [search(log_probs, some, 1, 0.0, key=key)[0] for key in keys]
    chosen = np.array([each.chosen for each in found])
    assert chosen.min() >= 100
    assert len(set(chosen.tolist())) > 12
    assert max(float(each.gain) for each in found) <= 1e-5


def test_dense_work_is_every_point_on_every_node(log_probs: jax.Array):
    found, _, size = search(log_probs, ALL, 1, 0.0, use_bounds=False)
    block = tiling().block
    blocks = -(-NUM_POINTS // block) * block
    assert found.work == blocks * size
    # A million points on thousands of nodes are too many for int32.
    assert jnp.issubdtype(found.work.dtype, jnp.floating)


def test_bounds_save_work_on_a_larger_pool():
    log_probs = jnp.tile(POOLS[0](np.random.default_rng(1)), (20, 1, 1))
    log_probs = jax.nn.log_softmax(
        log_probs + 0.3 * jax.random.normal(KEY, log_probs.shape), axis=-1
    )
    available = jnp.ones(len(log_probs), bool)
    found, exact, size = search(log_probs, available, 1, 0.0, num_best=1)
    assert found.indices[0] == np.argmax(exact)
    assert found.work < 0.35 * len(log_probs) * size


def test_nothing_to_learn_is_no_work_without_end():
    shape = (NUM_POINTS, NUM_SAMPLES, NUM_CLASSES)
    log_probs = jnp.full(shape, -np.log(NUM_CLASSES), jnp.float32)
    batch = select(log_probs, 0, True)
    assert len(set(batch.indices.tolist())) == BATCH_SIZE
    assert_nats(batch.gains, np.zeros(BATCH_SIZE), 1e-5)
