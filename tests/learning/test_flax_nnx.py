"""What only nnx modules have: streams by name, and batch normalisation that stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx

from bbald_jax.learning.flax_nnx import nnx_model
from bbald_jax.learning.training import mc_dropout_learner

KEY = jax.random.key(0)


class Normalised(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, dropout_rate: float = 0.3) -> None:
        self.first, self.norm = nnx.Linear(2, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(dropout_rate, rngs=rngs)
        self.last = nnx.Linear(8, toy.NUM_CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.drop(self.norm(self.first(x))))


def trained(rngs: nnx.Rngs) -> Normalised:
    """As if loaded: its batch normalisation has seen data."""
    module = Normalised(rngs)
    module.norm.mean = nnx.BatchStat(jnp.full(8, 0.5))
    module.norm.var = nnx.BatchStat(jnp.full(8, 4.0))
    return module


def test_batch_normalisation_that_was_never_trained_is_refused():
    learner = mc_dropout_learner(nnx_model(Normalised), toy.RECIPE)
    with pytest.raises(ValueError, match=r"'norm' was never trained.*GroupNorm"):
        learner.init(KEY, jnp.zeros((1, 2)))


def test_batch_normalisation_stays_as_it_was_trained():
    model = nnx_model(trained)
    learner = mc_dropout_learner(model, toy.RECIPE._replace(max_epochs=1))
    x, y = toy.blobs(0, 30)
    start = learner.init(KEY, x)
    fitted = learner.fit(KEY, start, toy.labelled(x, y), toy.nothing())
    statistics = jax.tree.leaves(fitted["others"])
    assert [float(leaf[0]) for leaf in statistics] == [0.5, 4.0]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start["params"], fitted["params"])
    assert min(jax.tree.leaves(moved)) > 0
    # By its running statistics with a key too: nothing but the dropout differs.
    module = trained(nnx.Rngs(0))
    nnx.update(module, fitted["params"])
    module.eval()
    np.testing.assert_allclose(model.apply(fitted, x), module(x), rtol=0, atol=1e-6)
    without = nnx_model(lambda rngs: Normalised(rngs, 0.0))
    np.testing.assert_allclose(
        without.apply(fitted, x, KEY), model.apply(fitted, x), rtol=0, atol=1e-6
    )


class Attentive(nnx.Module):
    """Its only dropout is inside the attention, and draws from a stream of any name."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(
            2, 4, dropout_rate=0.5, decode=False, rngs=nnx.Rngs(rngs.masks())
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.attention(x).mean(axis=1)


def test_dropout_inside_attention_from_another_stream():
    model = nnx_model(Attentive)
    x = jax.random.normal(KEY, (3, 5, 4))
    x = x.at[2].set(x[0])
    params = model.init(KEY, x)
    one, other = (model.apply(params, x, jax.random.key(seed)) for seed in (1, 2))
    np.testing.assert_allclose(one[2], one[0], rtol=0, atol=1e-6)
    assert np.abs(one - other).max(axis=-1).min() > 1e-3
    # Without a key no dropout is on: what the module says of itself in evaluation mode.
    module = Attentive(nnx.Rngs(KEY))
    module.eval()
    np.testing.assert_allclose(model.apply(params, x), module(x), rtol=0, atol=1e-6)
