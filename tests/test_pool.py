"""The pool: asking and telling, padding that must change nothing, and the initial split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbald_jax import pool as pools
from bbald_jax.pool import LABELLED, PENDING, SKIPPED, UNLABELLED, Pool


@pytest.fixture
def empty() -> Pool:
    return pools.init_pool(5)


@pytest.fixture(params=[False, True], ids=["eager", "jit"])
def functions(request: pytest.FixtureRequest):
    return map(jax.jit, (pools.ask, pools.tell)) if request.param else (pools.ask, pools.tell)


def test_a_new_pool_is_unlabelled(empty: Pool):
    assert empty.status.tolist() == [UNLABELLED] * 5
    assert empty.labels.tolist() == [-1] * 5
    assert pools.available(empty).all()
    assert pools.num_labelled(empty) == 0


def test_ask_then_tell(empty: Pool, functions):
    ask, tell = functions
    asked = ask(empty, jnp.array([3, 1]))
    assert asked.status.tolist() == [UNLABELLED, PENDING, UNLABELLED, PENDING, UNLABELLED]
    assert asked.labels.tolist() == [-1] * 5
    told = tell(asked, jnp.array([1, 3]), jnp.array([7, 8]))
    assert told.status.tolist() == [UNLABELLED, LABELLED, UNLABELLED, LABELLED, UNLABELLED]
    assert told.labels.tolist() == [-1, 7, -1, 8, -1]
    assert pools.num_labelled(told) == 2


@pytest.mark.parametrize("index", [-1, 5, 1000])
def test_padding_changes_nothing(empty: Pool, functions, index: int):
    ask, tell = functions
    indices = jnp.array([index, 2, index])
    asked = ask(empty, indices)
    assert np.flatnonzero(asked.status == PENDING).tolist() == [2]
    told = tell(asked, indices, jnp.array([9, 4, 9]))
    assert told.labels.tolist() == [-1, -1, 4, -1, -1]
    assert told.status.tolist() == [UNLABELLED, UNLABELLED, LABELLED, UNLABELLED, UNLABELLED]


def test_only_unlabelled_points_are_available():
    status = jnp.array([UNLABELLED, PENDING, LABELLED, SKIPPED], jnp.int8)
    pool = Pool(status, jnp.array([-1, -1, 0, -1]))
    assert pools.available(pool).tolist() == [True, False, False, False]


@pytest.mark.parametrize("capacity", [2, 3, 5])
def test_gathered_examples_are_those_labelled(empty: Pool, capacity: int):
    x = 10 * jnp.arange(5.0)[:, None]
    pool = pools.tell(empty, jnp.array([4, 0]), jnp.array([6, 3]))
    labelled = pools.gather_labelled(pool, x, capacity=capacity)
    assert labelled.x.shape == (capacity, 1)
    assert labelled.y.shape == (capacity,)
    assert labelled.num_examples == 2
    examples = zip(labelled.x[:2, 0].tolist(), labelled.y[:2].tolist(), strict=True)
    assert sorted(examples) == [(0, 3), (40, 6)]


def test_gathering_nothing(empty: Pool):
    labelled = pools.gather_labelled(empty, jnp.ones((5, 2)), capacity=3)
    assert labelled.num_examples == 0
    assert labelled.x.shape == (3, 2)


def test_points_that_are_out_are_not_gathered(empty: Pool):
    pool = pools.ask(empty, jnp.array([0, 1]))
    assert pools.gather_labelled(pool, jnp.ones((5, 2)), capacity=3).num_examples == 0


CLASSES = jnp.asarray(np.random.default_rng(0).integers(4, size=60), jnp.int32)


def initial_split(seed: int, num_per_class: int, classes: jax.Array = CLASSES) -> np.ndarray:
    key = jax.random.key(seed)
    indices = pools.initial_split(key, classes, num_classes=4, num_per_class=num_per_class)
    assert indices.dtype == jnp.int32
    return np.asarray(indices)


@pytest.mark.parametrize("num_per_class", [1, 2, 5])
def test_initial_split_is_balanced(num_per_class: int):
    indices = initial_split(0, num_per_class)
    assert len(set(indices.tolist())) == 4 * num_per_class
    assert CLASSES[indices].tolist() == np.repeat(np.arange(4), num_per_class).tolist()


def test_initial_split_comes_from_the_key():
    assert initial_split(0, 3).tolist() == initial_split(0, 3).tolist()
    assert initial_split(0, 3).tolist() != initial_split(1, 3).tolist()


def test_initial_split_reaches_every_member():
    classes = jnp.array([0, 1, 0, 2, 3, 0])
    first = {initial_split(seed, 1, classes)[0].item() for seed in range(40)}
    assert first == {0, 2, 5}


def test_initial_split_of_nothing():
    assert initial_split(0, 0).shape == (0,)


@pytest.mark.parametrize("num_per_class", [2, 3, 8])  # 8 is more than there are points
def test_initial_split_marks_what_is_missing(num_per_class: int):
    classes = jnp.array([0, 1, 3, 1, 0, 3, 0])  # nothing of class 2
    indices = initial_split(0, num_per_class, classes).reshape(4, num_per_class)
    for wanted, row in enumerate(indices):
        members = np.flatnonzero(np.asarray(classes) == wanted)
        assert (row >= 0).sum() == min(num_per_class, members.size)
        assert set(row[row >= 0].tolist()) <= set(members.tolist())
        assert len(set(row[row >= 0].tolist())) == (row >= 0).sum()


def test_no_label_leaves_the_point_as_it_is():
    asked = pools.ask(pools.init_pool(4), jnp.array([1, 2]))
    told = pools.tell(asked, jnp.array([1, 2]), jnp.array([-1, 0]))
    assert told.status.tolist() == [0, 1, 2, 0]
    assert told.labels.tolist() == [-1, -1, 0, -1]


def test_pending_points_are_listed():
    pool = pools.ask(pools.init_pool(5), jnp.array([4, -1, 2]))
    assert pools.pending_indices(pool, capacity=3).tolist() == [2, 4, -1]


def test_skipped_points_are_neither_pending_nor_available():
    pool = pools.skip(pools.ask(pools.init_pool(4), jnp.array([1, 2])), jnp.array([-1, 2]))
    assert pool.status.tolist() == [UNLABELLED, PENDING, SKIPPED, UNLABELLED]
    assert pools.pending_indices(pool, capacity=2).tolist() == [1, -1]
    assert pools.available(pool).tolist() == [True, False, False, True]
