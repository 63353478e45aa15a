"""Models of every framework: one key is one function, and the loop runs with them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx

from bbald_jax import loop as loops
from bbald_jax.acquisition.functions import catalogue
from bbald_jax.learning import model as models
from bbald_jax.learning.equinox_modules import equinox_model
from bbald_jax.learning.flax_nnx import nnx_model
from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.mc_dropout import sample_mc_dropout
from bbald_jax.learning.model import Model
from bbald_jax.learning.recipes import Recipe
from bbald_jax.learning.training import mc_dropout_learner

eqx: Any = pytest.importorskip("equinox")

KEY = jax.random.key(0)
WIDTH = 16


class LinenNet(nn.Module):
    """Two dropout layers, one of them nested."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
            return nn.Dropout(0.3)(nn.tanh(nn.Dense(WIDTH)(x)), deterministic=deterministic)

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        x = nn.LayerNorm()(self.Block()(x, deterministic=deterministic))
        x = nn.Dropout(0.3)(x, deterministic=deterministic)
        return nn.Dense(toy.NUM_CLASSES)(x)


class HeldBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense, self.drop = nnx.Linear(2, WIDTH, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(jnp.tanh(self.dense(x)))


class HeldNet(nnx.Module):
    """The same: each dropout layer holds a random stream."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.block = HeldBlock(rngs)
        self.norm, self.drop = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(WIDTH, toy.NUM_CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.drop(self.norm(self.block(x))))


class CalledNet(nnx.Module):
    """The same: the random streams come with the call."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.drop = nnx.Linear(2, WIDTH, rngs=rngs), nnx.Dropout(0.3)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, toy.NUM_CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs) -> jax.Array:
        x = self.drop(jnp.tanh(self.first(x)), rngs=rngs)
        return self.last(self.drop(self.norm(x), rngs=rngs))


class EquinoxNet(eqx.Module):
    """The same, for one point."""

    first: Any
    norm: Any
    last: Any
    drop: Any

    def __init__(self, key: jax.Array) -> None:
        first_key, last_key = jax.random.split(key)
        self.first = eqx.nn.Linear(2, WIDTH, key=first_key)
        self.norm, self.drop = eqx.nn.LayerNorm(WIDTH), eqx.nn.Dropout(0.3)
        self.last = eqx.nn.Linear(WIDTH, toy.NUM_CLASSES, key=last_key)

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        first_key, last_key = jax.random.split(key)
        x = self.norm(self.drop(jnp.tanh(self.first(x)), key=first_key))
        return self.last(self.drop(x, key=last_key))


MODELS: dict[str, Callable[[], Model]] = {
    "linen": lambda: flax_model(LinenNet()),
    "nnx-held": lambda: nnx_model(HeldNet),
    "nnx-called": lambda: nnx_model(CalledNet),
    "equinox": lambda: equinox_model(EquinoxNet),
}
Adapted = tuple[Model, models.Params, jax.Array]


@pytest.fixture(scope="module", params=MODELS)
def adapted(request: pytest.FixtureRequest) -> Adapted:
    """A model, its parameters, and 70 points (more than a chunk), the last a copy of the first."""
    model = MODELS[request.param]()
    x = jax.random.normal(KEY, (70, 2))
    params = jax.jit(model.init)(KEY, x[:1])
    return model._replace(apply=jax.jit(model.apply)), params, x.at[69].set(x[0])


def test_a_key_is_one_function_whatever_the_chunks(adapted: Adapted):
    # To 1e-6: another number of rows may be another kernel.
    model, params, x = adapted
    logits = model.apply(params, x, KEY)
    assert logits.shape == (70, toy.NUM_CLASSES)
    np.testing.assert_allclose(logits[69], logits[0], rtol=0, atol=1e-6)
    pieces = [model.apply(params, half, KEY) for half in np.split(x, 2)]
    np.testing.assert_allclose(np.concatenate(pieces), logits, rtol=0, atol=1e-6)
    log_probs = sample_mc_dropout(KEY, model, params, x, num_samples=3)
    for k, key in enumerate(jax.random.split(KEY, 3)):
        expected = jax.nn.log_softmax(model.apply(params, x, key))
        np.testing.assert_allclose(log_probs[:, k], expected, rtol=0, atol=2e-6)


def test_k_keys_are_k_functions(adapted: Adapted):
    model, params, x = adapted
    samples = np.stack([model.apply(params, x, key) for key in jax.random.split(KEY, 4)])
    for k in range(4):
        assert np.abs(samples[k] - samples[k - 1]).max(axis=-1).min() > 1e-3
    np.testing.assert_array_equal(model.apply(params, x, jax.random.split(KEY, 4)[2]), samples[2])


def test_the_layers_draw_masks_of_their_own(adapted: Adapted):
    # The masks show in the gradients. With one mask for both layers of 16 units, the share of the
    # units that both keep would be 0.7.
    model, params, x = adapted

    def logit(params: models.Params, key: jax.Array) -> jax.Array:
        return model.apply(params, x[:1], key)[0, 0]

    gradients = jax.jit(jax.vmap(jax.grad(logit), in_axes=(None, 0)))(
        params, jax.random.split(KEY, 200)
    )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)]
    # Which units of the first layer get a gradient (of its kernel), and which the last one reads.
    kernels = {leaf.shape[1:]: leaf for leaf in leaves if leaf.ndim == 3}
    first = next(v for shape, v in kernels.items() if 2 in shape)
    last = next(v for shape, v in kernels.items() if toy.NUM_CLASSES in shape)
    first = np.moveaxis(first, first.shape.index(WIDTH), 1)
    last = np.moveaxis(last, last.shape.index(WIDTH), 1)
    kept = [np.abs(leaf).max(axis=2) > 0 for leaf in (first, last)]
    assert kept[0].shape == kept[1].shape == (200, WIDTH)
    for mask in kept:
        assert abs(mask.mean() - 0.7) < 0.05
    assert abs((kept[0] & kept[1]).mean() - 0.7**2) < 0.05


def test_without_a_key_it_is_deterministic(adapted: Adapted):
    model, params, x = adapted
    logits = model.apply(params, x)
    np.testing.assert_array_equal(model.apply(params, x), logits)
    assert np.abs(model.apply(params, x, KEY) - logits).max() > 1e-3


def test_gradients_reach_all_parameters(adapted: Adapted):
    model, params, x = adapted

    def loss(params: models.Params) -> jax.Array:
        return jnp.mean(model.apply(params, x, KEY)[:, :2] ** 2 * jnp.array([1.0, 3.0]))

    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert sum(leaf.size for leaf in gradients) == 3 * WIDTH + 2 * WIDTH + (WIDTH + 1) * 3
    assert all(np.abs(leaf).max() > 0 for leaf in gradients)


def test_other_keys_make_other_parameters(adapted: Adapted):
    model, params, x = adapted
    other = jax.jit(model.init)(jax.random.key(1), x[:1])
    kernels = [
        (one, two)
        for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True)
        if one.ndim == 2
    ]
    assert len(kernels) == 2
    assert all(np.abs(one - two).min() > 0 for one, two in kernels)


@pytest.mark.parametrize("name", MODELS)
def test_two_rounds_of_the_loop(name: str):
    recipe = Recipe("short", 16, 0.02, steps_per_epoch=60, max_epochs=1)
    learner = mc_dropout_learner(MODELS[name](), recipe)
    x, y = toy.blobs(0, 60)
    data = loops.Data(x, y, toy.nothing(), *toy.blobs(1, 60))
    loop = loops.Loop(learner, catalogue()["bald"], batch_size=4, num_samples=8, capacity=14)
    state = loops.init(KEY, y, num_classes=toy.NUM_CLASSES, initial_per_class=2)
    rounds = [measured for _, measured, _ in loops.run(loop, state, data, num_rounds=2)]
    assert [int(measured.num_labelled) for measured in rounds] == [6, 10, 14]
    assert int(rounds[-1].evaluation.num_correct) > 48
