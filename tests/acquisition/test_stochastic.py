"""Random batches: the exact probabilities of the draws, and scores without a logarithm."""

import itertools
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MakeLogProbs
from hypothesis import strategies as st

import bbald_jax as bb

NUM_KEYS = 20_000
KEYS = jax.random.split(jax.random.key(0), NUM_KEYS)
SCORES = jnp.asarray([0.1, 0.7, 0.0, 0.4, 0.2, 0.6])
ALL = (0, 1, 2, 3, 4, 5)
RANKS = np.array([5, 1, 6, 3, 4, 2])
WEIGHTS = {
    "power": np.asarray(SCORES, np.float64),
    "softmax": np.exp(np.asarray(SCORES, np.float64)),
    "softrank": 1 / RANKS,
}


def mask(available: tuple[int, ...]) -> jax.Array:
    return jnp.isin(jnp.arange(6), jnp.asarray(available, jnp.int32))


def perturb(name: str, key: jax.Array, scores: jax.Array, available: jax.Array) -> jax.Array:
    if name == "softrank":
        return bb.perturb_softrank(key, scores, available=available)
    return {"power": bb.perturb_power, "softmax": bb.perturb_softmax}[name](key, scores)


@partial(jax.jit, static_argnums=0)
def _draw(name: str, scores: jax.Array, available: jax.Array) -> jax.Array:
    @jax.vmap
    def select(key: jax.Array) -> jax.Array:
        perturbed = perturb(name, key, scores, available)
        return bb.select_top(perturbed, batch_size=6, available=available).indices

    return select(KEYS)


def draw(name: str, scores: jax.Array = SCORES, available: tuple[int, ...] = ALL) -> np.ndarray:
    """`[NUM_KEYS, 6]`, a batch for each key."""
    return np.asarray(_draw(name, scores, mask(available)))


def assert_frequencies(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """Within four standard deviations of a binomial; never, where the probability is 0."""
    expected = NUM_KEYS * probabilities
    tolerance = 4 * np.sqrt(expected * (1 - probabilities))
    assert np.all(np.abs(counts - expected) <= tolerance), (counts, expected)


@pytest.fixture(params=list(WEIGHTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_first_point_is_drawn_in_proportion_to_its_weight(name: str):
    counts = np.bincount(draw(name)[:, 0], minlength=6)
    assert_frequencies(counts, WEIGHTS[name] / WEIGHTS[name].sum())


def test_the_second_point_is_drawn_from_the_others(name: str):
    batches = draw(name)[:, :2]
    weights = WEIGHTS[name] / WEIGHTS[name].sum()
    for pair in itertools.permutations(range(6), 2):
        count = np.sum(np.all(batches == pair, axis=1))
        first, second = weights[list(pair)]
        probability = np.array([first * second / (1 - first)])
        assert_frequencies(np.array([count]), probability)


def test_points_that_are_not_available_change_nothing(name: str):
    available = (0, 3, 4)
    weights = np.zeros(6)
    if name == "softrank":
        weights[[0, 3, 4]] = [1 / 3, 1, 1 / 2]  # ranks among the available
    else:
        weights[list(available)] = WEIGHTS[name][list(available)]
    counts = np.bincount(draw(name, available=available)[:, 0], minlength=6)
    assert_frequencies(counts, weights / weights.sum())
    # Not even scores that are no numbers.
    broken = SCORES.at[jnp.asarray([1, 2, 5])].set(jnp.asarray([jnp.nan, jnp.inf, -jnp.inf]))
    np.testing.assert_array_equal(draw(name, broken, available), draw(name, available=available))


def test_power_takes_points_without_information_last_in_random_order():
    scores = jnp.asarray([0.0, 1e-6, -2e-7, 0.5, 0.0, -0.0])
    batches = draw("power", scores)
    assert set(batches[:, :2].ravel()) == {1, 3}
    for slot in range(2, 6):
        counts = np.bincount(batches[:, slot], minlength=6)[[0, 2, 4, 5]]
        assert_frequencies(counts, np.full(4, 1 / 4))
    assert np.all(np.isfinite(bb.perturb_power(KEYS[0], scores)))


def test_nothing_but_zeros_is_a_random_batch():
    counts = np.bincount(draw("power", jnp.zeros(6))[:, 0], minlength=6)
    assert_frequencies(counts, np.full(6, 1 / 6))


@hypothesis.given(
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, np.inf]), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_ranks_are_those_of_a_sort(scores: list[float], available: list[bool]):
    perturbed = bb.perturb_softrank(KEYS[0], jnp.asarray(scores), available=jnp.asarray(available))
    noise = jax.random.gumbel(jax.random.split(KEYS[0])[0], (6,))
    ranks = np.exp(np.asarray(noise - perturbed))[np.array(available, bool)]
    np.testing.assert_allclose(np.sort(ranks), np.arange(sum(available)) + 1, rtol=1e-5)
    by_rank = np.array(scores)[np.array(available, bool)][np.argsort(ranks)]
    assert np.all(by_rank[1:] <= by_rank[:-1])


def test_the_key_decides(name: str):
    one, again, other = (perturb(name, KEYS[i], SCORES, mask(ALL)) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)


def test_equals_itself_without_jit(name: str):
    with jax.disable_jit():
        eager = perturb(name, KEYS[0], SCORES, mask(ALL))
    jitted = jax.jit(lambda key: perturb(name, key, SCORES, mask(ALL)))(KEYS[0])
    np.testing.assert_allclose(eager, jitted, atol=1e-5)


def test_the_catalogue_perturbs_bald(name: str, make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(6, 4, 3)
    available = mask((0, 1, 3, 5))
    batch = bb.catalogue()[f"{name}-bald"].select(
        KEYS[3], bb.Inputs(log_probs), batch_size=3, available=available, pending=jnp.asarray([1])
    )
    available = mask((0, 3, 5))
    scores = perturb(name, KEYS[3], bb.mutual_information(log_probs), available)
    expected = bb.select_top(scores, batch_size=3, available=available)
    np.testing.assert_array_equal(batch.indices, expected.indices)
    np.testing.assert_allclose(batch.scores, expected.scores, atol=1e-5)


def test_of_equal_scores_each_has_the_better_rank_equally_often():
    equal = jnp.asarray([0.5, 0.7, 0.7 + 4e-7, 0.7 - 4e-7, 0.7, 0.1])
    first = draw("softrank", equal)[:, 0]
    counts = np.bincount(first, minlength=6)
    shares = np.array([1 / 5, *[(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4] * 4, 1 / 6])
    assert_frequencies(counts, shares / shares.sum())
