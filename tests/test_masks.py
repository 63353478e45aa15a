"""Positions where a mask is true, in an array of fixed size."""

import jax.numpy as jnp
import numpy as np
import pytest

from bbald_jax.masks import count, true_positions


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("where", [(), (0,), (1, 4, 5), (0, 1, 2, 3, 4, 5)])
def test_equals_nonzero(where: tuple[int, ...], size: int):
    mask = np.isin(np.arange(6), where)
    expected = jnp.nonzero(mask, size=size, fill_value=-1)[0]
    actual = true_positions(jnp.asarray(mask), size=size, fill_value=-1)
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == jnp.int32


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_counts_exactly(shape: tuple[int, ...]):
    mask = np.isin(np.arange(6).reshape(shape), (1, 4, 5))
    assert count(jnp.asarray(mask)) == 3
    assert count(jnp.zeros(shape, bool)) == 0
    assert count(jnp.asarray(mask)).dtype == jnp.int32
