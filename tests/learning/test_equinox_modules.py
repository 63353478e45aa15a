"""What an equinox module may not hold, and life without equinox."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bbald_jax.learning.equinox_modules import equinox_model

eqx: Any = pytest.importorskip("equinox")

KEY = jax.random.key(0)


def test_batch_normalisation_is_refused():
    model = equinox_model(lambda key: eqx.nn.BatchNorm(3, "batch", mode="batch"))
    with pytest.raises(ValueError, match=r"^BatchNorm\.\w+: a layer that keeps state.*GroupNorm"):
        model.init(KEY, jnp.zeros((1, 3)))


class Permuted(eqx.Module):
    order: jax.Array

    def __init__(self, key: jax.Array) -> None:
        self.order = jax.random.permutation(key, 3)


def test_arrays_that_no_gradient_reaches_are_refused():
    with pytest.raises(ValueError, match=r"^Permuted\.order: no gradient reaches.*int32.*tuple"):
        equinox_model(Permuted).init(KEY, jnp.zeros((1, 3)))


def test_without_equinox_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match=r"^equinox is not installed.*bbald_jax\[equinox\]'$"):
        equinox_model(Permuted)
