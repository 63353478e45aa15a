"""The tree of configurations: exact while they fit, unbiased when thinned."""

from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import MakeLogProbs, assert_nats, assert_unbiased, set_tiles, temporary_bytes
from hypothesis import strategies as st
from trees import branch_jit, extend_jit, gains, gains_jit, keys, random_tree, tree_of

from bbald_jax.information import configurations
from bbald_jax.information.configurations import Children, Configurations, branch, extend, root

ROUNDING = 2e-6  # nats
STANDARD_ERRORS = 4


# --- the tree


def test_the_root_knows_nothing():
    tree = root(5, 8, jnp.dtype(jnp.float32))
    assert_nats(configurations.remaining_entropy(tree), np.log(5), ROUNDING)
    assert tree.size == 1
    assert tree.is_exact
    np.testing.assert_array_equal(tree.masses, np.arange(8) == 0)
    assert_nats(np.asarray(tree.weights).sum(axis=1), np.ones(8), ROUNDING)


def test_children_are_the_joint_probabilities_and_the_posteriors(make_log_probs: MakeLogProbs):
    impossible = make_log_probs(1, 5, 3, zeros=0.6).at[:, :, 1].set(-jnp.inf)
    log_probs = jnp.concatenate([make_log_probs(2, 5, 3), impossible])
    children = branch_jit(tree_of(log_probs[:2], 9), log_probs[2])
    joint = reference.configuration_probs(log_probs)
    masses = joint.mean(axis=1)
    is_possible = masses > 0
    assert is_possible.sum() == 18
    assert_nats(children.masses.ravel(), masses, 1e-6)
    posteriors = joint[is_possible] / joint[is_possible].sum(axis=1, keepdims=True)
    entropies = np.asarray(children.entropies).ravel()
    assert_nats(entropies[is_possible], reference.entropy(posteriors), 1e-6)
    assert np.all(np.isfinite(entropies))


def test_what_fits_is_kept_whole(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(3, 5, 3)
    tree = tree_of(log_probs, 30)
    joint = reference.configuration_probs(log_probs)
    assert tree.size == 27
    assert tree.is_exact
    assert_nats(tree.masses, [*joint.mean(axis=1), 0, 0, 0], 1e-6)
    assert_nats(tree.weights[:27], joint / joint.sum(axis=1, keepdims=True), 1e-6)
    expected = np.log(5) - reference.joint_mutual_information(log_probs)
    assert_nats(configurations.remaining_entropy(tree), expected)


def test_the_key_is_not_used_while_the_children_fit(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(3, 5, 3)
    one, other = tree_of(log_probs, 30, seed=0), tree_of(log_probs, 30, seed=1)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def thinned_trees(make_log_probs: MakeLogProbs) -> tuple[jax.Array, Configurations]:
    """Predictions, and 2,000 trees of 9 nodes for the 27 configurations of the first three."""
    log_probs = make_log_probs(5, 6, 3)
    tree = tree_of(log_probs[:2], 9)
    children = branch_jit(tree, log_probs[2])
    trees = jax.vmap(extend, (0, None, None, None))(keys(2000), tree, log_probs[2], children)
    return log_probs, trees


def test_thinning_fills_the_capacity_and_says_so(thinned_trees: tuple):
    _, trees = thinned_trees
    np.testing.assert_array_equal(trees.size, 9)
    assert not np.any(trees.is_exact)


def test_thinning_keeps_the_remaining_entropy(thinned_trees: tuple):
    log_probs, trees = thinned_trees
    remaining = jax.vmap(configurations.remaining_entropy)(trees)
    expected = np.log(6) - reference.joint_mutual_information(log_probs[:3])
    assert_nats(remaining, np.full(2000, expected), ROUNDING)


def test_thinning_keeps_the_total_mass_in_expectation_only(thinned_trees: tuple):
    _, trees = thinned_trees
    totals = trees.masses.sum(axis=1)
    assert totals.std() > 0.01  # renormalised masses would all sum to one
    assert_unbiased(totals, 1, 0.005)


def test_thinning_keeps_the_gains_in_expectation(thinned_trees: tuple):
    log_probs, trees = thinned_trees
    estimates = jax.jit(jax.vmap(gains, (0, None)))(trees, log_probs)
    assert_unbiased(estimates, reference.gains(log_probs, [0, 1, 2]), 0.002)


def test_survivors_carry_their_own_posterior(thinned_trees: tuple):
    log_probs, trees = thinned_trees
    joint = reference.configuration_probs(log_probs[:3])
    posteriors = joint / joint.sum(axis=1, keepdims=True)
    distances = np.abs(np.asarray(trees.weights[0])[:, None] - posteriors).max(axis=-1)
    assert_nats(distances.min(axis=1), np.zeros(9), 1e-6)
    assert np.all(np.diff(distances.argmin(axis=1)) > 0)  # in tree order, none twice
    entropies = reference.entropy(np.asarray(trees.weights[0], np.float64))
    assert_nats(trees.entropies[0], entropies, 1e-6)


def test_the_score_is_the_running_sum_of_the_gains(make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(8, 6, 3, zeros=0.2)
    tree, total = root(6, 12, log_probs.dtype), 0.0
    for key, point in zip(keys(8), log_probs, strict=True):
        total += float(gains_jit(tree, point[None])[0])
        children = branch_jit(tree, point)
        score = np.log(6) - float(configurations.remaining_entropy(children))
        assert_nats(total, score)
        tree = extend_jit(key, tree, point, children)
    assert not tree.is_exact


def test_settled_children_are_dropped_for_good():
    # After the first label one sample is left: nothing else can be learned.
    certain = jnp.log(jnp.eye(3))
    unsure = jnp.log(jnp.full((3, 3), 1 / 3))
    tree = tree_of(jnp.stack([certain, unsure]), 9)
    assert tree.size == 0
    assert tree.is_exact
    np.testing.assert_array_equal(tree.masses, 0)
    np.testing.assert_array_equal(gains_jit(tree, certain[None]), [0])


def test_settled_children_take_no_place():
    # Class 0 identifies sample 0; the two others leave two samples. 3^2 labels, 4 unsettled.
    point = jnp.log(jnp.asarray([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0.4, 0.6]]))
    tree = tree_of(jnp.stack([point, point]), 4)
    assert tree.size == 4
    assert tree.is_exact
    assert_nats(tree.masses.sum(), 2 / 3, ROUNDING)


def test_once_thinned_a_tree_is_never_exact_again(thinned_trees: tuple):
    _, trees = thinned_trees
    tree = jax.tree.map(lambda leaf: leaf[0], trees)
    settled = Children(masses=jnp.ones((9, 3)), entropies=jnp.zeros((9, 3)))
    tree = extend_jit(keys(1)[0], tree, jnp.zeros((6, 3)), settled)
    assert tree.size == 0
    assert not tree.is_exact


# --- the choice of the survivors


def exact_inclusion(priorities: np.ndarray, capacity: int) -> np.ndarray:
    """`min(1, a / c)` with `sum = capacity`, c by trying how many are certain."""
    order = np.sort(priorities)[::-1]
    for num_certain in range(capacity):
        c = order[num_certain:].sum() / (capacity - num_certain)
        if order[num_certain] < c:
            return np.minimum(1, priorities / c)
    raise AssertionError("everything fits")


thin_jit = jax.jit(configurations._thin, static_argnames="capacity")

PRIORITIES = [
    pytest.param(np.arange(1.0, 11.0), id="linear"),
    pytest.param(2.0 ** -np.arange(10), id="halving"),
    pytest.param(np.ones(10), id="equal"),
    pytest.param(np.array([5.0, 0, 1, 0, 1, 1, 1, 1, 0.5, 0.5]), id="some-settled"),
    pytest.param(np.array([1e-3, 1e3, 1, 1, 1e-3, 1, 1, 2, 1, 1e-3]), id="uneven"),
]


@pytest.mark.parametrize("priorities", PRIORITIES)
def test_inclusion_probabilities_are_the_stated_ones(priorities: np.ndarray):
    masses, entropies = jnp.asarray(priorities / 2, jnp.float32), jnp.full(10, 2.0)
    entropies = jnp.where(priorities > 0, entropies, 0)
    inclusion, _, fits = thin_jit(keys(1)[0], masses, entropies, capacity=4)
    expected = exact_inclusion(priorities, 4)
    assert not fits
    assert_nats(inclusion, expected, 1e-6)
    assert_nats(inclusion.sum(), 4, 1e-5)


@pytest.mark.parametrize("priorities", PRIORITIES)
def test_children_survive_as_often_as_their_inclusion_probability_says(priorities: np.ndarray):
    masses = jnp.asarray(priorities, jnp.float32)
    entropies = jnp.where(priorities > 0, 1.0, 0.0)
    num_keys = 4000
    thin = partial(configurations._thin, capacity=4)
    _, is_kept, _ = jax.jit(jax.vmap(thin, (0, None, None)))(keys(num_keys), masses, entropies)
    expected = exact_inclusion(priorities, 4)
    frequencies = np.asarray(is_kept).mean(axis=0)
    error = np.sqrt(expected * (1 - expected) / num_keys)
    assert np.all(np.abs(frequencies - expected) <= STANDARD_ERRORS * error + 1e-7)
    np.testing.assert_array_equal(is_kept.sum(axis=1), 4)


def test_what_is_settled_but_for_rounding_takes_no_place():
    entropies = jnp.asarray([1e-8, 1.0, 0.0, 1e-9, 2.0, 0.5])
    inclusion, is_kept, fits = thin_jit(keys(1)[0], jnp.ones(6), entropies, capacity=3)
    np.testing.assert_array_equal(is_kept, [False, True, False, False, True, True])
    np.testing.assert_array_equal(inclusion[is_kept], 1)
    assert fits


def check_survivors(priorities: np.ndarray, capacity: int) -> None:
    """At most `capacity` survive, and together they carry all the priority."""
    masses, entropies = jnp.asarray(priorities, jnp.float32), jnp.ones(len(priorities))
    inclusion, is_kept, _ = thin_jit(keys(1)[0], masses, entropies, capacity=capacity)
    kept = np.asarray(is_kept)
    carried = (np.asarray(masses, np.float64)[kept] / np.asarray(inclusion)[kept]).sum()
    assert kept.sum() <= capacity
    np.testing.assert_allclose(carried, np.asarray(masses, np.float64).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "priorities",
    [
        # As many heavy ones as fit; the rest is below the rounding of their sum.
        [1e-9, 1.0, 1.0, 1.0, 1.0, 1e-9],
        [1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2, 0.1],
        [1e-12, 1.0, 1e-2, 1e-4, 1e-6, 1e-16],
        # One more than fits.
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [1e-9, 1.0, 1.0, 1.0, 1.0, 1.0],
    ],
)
def test_survivors_fit_when_the_priorities_are_far_apart(priorities: list[float]):
    check_survivors(np.array(priorities), 4)


@hypothesis.given(
    st.lists(st.integers(-30, 0), min_size=12, max_size=12),
    st.lists(st.floats(1, 2, exclude_max=True), min_size=12, max_size=12),
)
def test_survivors_fit_whatever_the_priorities(exponents: list[int], factors: list[float]):
    check_survivors(np.array(factors) * 10.0 ** np.array(exponents), 4)


def test_of_a_large_tree_exactly_the_capacity_survives():
    # Where a float32 running sum would have lost count.
    rng = np.random.default_rng(0)
    masses = jnp.asarray(rng.exponential(size=200_000), jnp.float32)
    inclusion, is_kept, _ = thin_jit(keys(1)[0], masses, jnp.ones(200_000), capacity=20_000)
    assert is_kept.sum() == 20_000
    carried = np.asarray(masses, np.float64)[is_kept] / np.asarray(inclusion)[is_kept]
    np.testing.assert_allclose(carried.sum(), np.asarray(masses, np.float64).sum(), rtol=1e-5)


# --- tiles and memory


@pytest.mark.parametrize("tile", [1, 7 * 4 * 3])
@pytest.mark.parametrize("size", [0, 5, 20])
def test_children_in_tiles_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, make_log_probs: MakeLogProbs, tile: int, size: int
):
    point = make_log_probs(1, 4, 3, zeros=0.2)[0]
    tree = random_tree(20, 4, size)
    whole = branch_jit(tree, point)
    set_tiles(monkeypatch, children=tile)
    tiled = jax.jit(lambda tree, point: branch(tree, point))(tree, point)
    in_use = np.arange(20) < size
    assert_nats(tiled.masses, whole.masses, 1e-7)
    assert_nats(tiled.entropies[in_use], whole.entropies[in_use], ROUNDING)


def test_children_weights_are_never_held_at_once():
    num_samples, num_classes, capacity = 1000, 10, 5000
    tree = jax.eval_shape(lambda: root(num_samples, capacity, jnp.dtype(jnp.float32)))
    point = jax.ShapeDtypeStruct((num_samples, num_classes), jnp.float32)
    children = jax.eval_shape(branch, tree, point)
    key = jax.eval_shape(lambda: jax.random.key(0))
    naive = 4 * capacity * num_classes * num_samples  # 200 MB
    assert temporary_bytes(branch, tree, point) < naive / 10
    assert temporary_bytes(extend, key, tree, point, children) < naive / 4
