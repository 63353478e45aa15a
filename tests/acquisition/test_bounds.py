"""Merged configurations: their gains are upper bounds, and close ones."""

import jax
import numpy as np
import pytest
from conftest import assert_nats
from pools import NUM_SAMPLES, POOLS
from trees import gains_jit as gains

from bbald_jax.acquisition import bounds
from bbald_jax.information.configurations import Configurations, branch, extend, root

CAPACITY = 400


@jax.jit
def ladder(tree: Configurations) -> list[Configurations]:
    """All levels, finest first."""
    levels = bounds.ladder(tree)
    return [Configurations(*(leaf[i] for leaf in levels)) for i in (1, 2, 3, 0)]


@jax.jit
def tree_of(points: jax.Array) -> Configurations:
    return jax.lax.fori_loop(
        0,
        len(points),
        lambda i, tree: extend(jax.random.key(i), tree, points[i], branch(tree, points[i])),
        root(NUM_SAMPLES, CAPACITY, points.dtype),
    )


@pytest.mark.parametrize("num_points", [3, 6])
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)
def test_each_level_bounds_the_gains(pool, num_points: int):
    log_probs = pool(np.random.default_rng(0))
    tree = tree_of(log_probs[:num_points])
    exact = np.asarray(gains(tree, log_probs))
    levels = ladder(tree)
    sizes = [CAPACITY // fraction for fraction in (4, 12, 40, 160)]
    assert all(level.size <= size for level, size in zip(levels, sizes, strict=True))
    for level in levels:
        assert np.all(np.asarray(gains(level, log_probs)) >= exact - 1e-6)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)
def test_merging_keeps_mass_and_mean(pool):
    tree = tree_of(pool(np.random.default_rng(0))[:6])
    for level in ladder(tree):
        assert level.size <= level.masses.shape[0] < CAPACITY
        assert np.all(np.asarray(level.masses)[: int(level.size)] > 0)
        assert np.all(np.asarray(level.masses)[int(level.size) :] == 0)
        assert_nats(level.masses.sum(), tree.masses.sum(), 1e-6)
        assert_nats(level.masses @ level.weights, tree.mean, 1e-6)
        rows = level.weights.sum(axis=-1)
        assert_nats(rows, np.ones_like(rows), 1e-5)


def test_a_tree_that_fits_is_not_merged():
    tree = tree_of(POOLS[0](np.random.default_rng(0))[:3])  # 4^3 nodes at most
    assert tree.size <= CAPACITY // 4
    first, _ = bounds.merge(tree, CAPACITY // 4)
    assert first.size == tree.size
    size = int(tree.size)
    np.testing.assert_allclose(first.weights[:size], tree.weights[:size], rtol=1e-6)
    np.testing.assert_allclose(first.masses[:size], tree.masses[:size], rtol=1e-6)


def test_the_finest_level_is_close():
    log_probs = POOLS[0](np.random.default_rng(0))
    tree = tree_of(log_probs[:6])
    assert tree.size == CAPACITY
    exact = np.asarray(gains(tree, log_probs))
    excess = np.asarray(gains(ladder(tree)[0], log_probs)) - exact
    assert excess.mean() < 0.15 * exact.mean()


def test_few_distinct_nodes_merge_with_little_loss():
    point = POOLS[1](np.random.default_rng(0))[0]
    # The labels of copies of one point depend only on how often each was seen.
    log_probs = POOLS[0](np.random.default_rng(1))
    tree = tree_of(np.repeat(np.asarray(point)[None], 4, axis=0))
    distinct = len(np.unique(np.round(np.asarray(tree.weights)[: int(tree.size)], 5), axis=0))
    assert distinct <= 35 < CAPACITY // 4 < int(tree.size)
    # Not all of them have enough remaining entropy to become a pivot.
    merged = ladder(tree)[0]
    np.testing.assert_allclose(gains(merged, log_probs), gains(tree, log_probs), rtol=0.05)
