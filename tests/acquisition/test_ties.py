"""Priorities: an order that the key decides, the same wherever a part of the pool is looked at."""

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.ties import best, first_of_equals, priorities

KEYS = jax.random.split(jax.random.key(0), 3000)
ALL = jnp.ones(6, bool)


def test_no_two_points_have_the_same_priority():
    priority = np.asarray(priorities(KEYS[0], jnp.arange(1_000_000)))
    assert np.unique(priority).size == priority.size


def test_a_part_of_the_pool_sees_the_priorities_of_the_whole():
    whole = priorities(KEYS[0], jnp.arange(1000))
    np.testing.assert_array_equal(priorities(KEYS[0], jnp.arange(300, 500)), whole[300:500])


def test_every_one_of_equals_is_taken_equally_often():
    @jax.jit
    @jax.vmap
    def choose(key: jax.Array) -> jax.Array:
        return first_of_equals(ALL, priorities(key, jnp.arange(6)))

    counts = np.bincount(choose(KEYS), minlength=6)
    expected = KEYS.size / 6
    # 5 degrees of freedom: above 20.5 once in a thousand, and the keys are fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 20.5


def test_only_the_best_and_what_equals_it_within_rounding_is_taken():
    scores = jnp.asarray([0.5, 0.5 - 5e-7, 0.4, 0.5 - 2e-6, jnp.nan, 0.9])
    available = ALL.at[jnp.array([4, 5])].set(False)
    taken = {int(best(scores, available, priorities(key, jnp.arange(6)))) for key in KEYS[:30]}
    assert taken == {0, 1}
    assert best(scores, available, None) == 0
    assert best(scores.at[0].set(0.4), available, None) == 1
