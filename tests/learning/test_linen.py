"""The networks: what a key does, and many keys at once."""

import inspect
import itertools
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bbald_jax.learning import model as models
from bbald_jax.learning.convolution import Conv, max_pool
from bbald_jax.learning.linen import FactoredModule, flax_model
from bbald_jax.learning.model import Model
from bbald_jax.learning.networks import MLP, PaperCNN

KEY = jax.random.key(0)


class OwnNet(nn.Module):
    """A user's network: plain dropout on feature maps, which flax alone would mask point by point.

    The smallest that has it deep in a submodule, twice, and on more than one axis.
    """

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
            x = nn.tanh(nn.Conv(4, (3, 3))(x))
            x = nn.Dropout(0.3)(x, deterministic=deterministic)
            return nn.Dropout(0.1)(nn.tanh(nn.Conv(3, (3, 3))(x)), deterministic=deterministic)

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        x = self.Block()(x, deterministic=deterministic)
        x = nn.Dropout(0.5)(x.reshape(x.shape[0], -1), deterministic=deterministic)
        return nn.Dense(3)(x)


class OwnFactoredNet(FactoredModule):
    """A user's factored network, not like the paper's: dropout twice before one pooling."""

    num_classes: int
    dropout_rate: float = 0.5

    def setup(self) -> None:
        self.first, self.second, self.last = Conv(6, 3), Conv(5, 3), nn.Dense(self.num_classes)
        self.drop_first = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))
        self.drop_second = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))

    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        x = nn.relu(self.drop_first(self.first(x), deterministic=deterministic))
        x = self.drop_second(self.second(x), deterministic=deterministic)
        return self.last(max_pool(x).reshape(x.shape[0], -1))

    def masks(self) -> dict[str, jax.Array]:
        drops = {"first": (self.drop_first, 6), "second": (self.drop_second, 5)}
        return {
            name: drop(jnp.ones((1, 1, 1, channels)), deterministic=False)[0, 0, 0]
            for name, (drop, channels) in drops.items()
        }

    def apply_masks(self, x: jax.Array, masks: dict[str, jax.Array]) -> jax.Array:
        x = self.second(nn.relu(self.first(x)), masks["first"])
        x = jax.vmap(max_pool)(x) * masks["second"][:, None, None, None]
        return self.last(x.reshape(*x.shape[:2], -1))


NETWORKS = {
    "mlp": (MLP(3, hidden=(16, 8)), (4,)),
    "cnn": (PaperCNN(3), (16, 16, 1)),
    "own": (OwnNet(), (4, 4, 1)),
    "factored": (OwnFactoredNet(3), (8, 10, 2)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Model, models.Params, jax.Array]:
    """A network, its parameters, and nine points of which the last is a copy of the first."""
    module, shape = NETWORKS[request.param]
    model = flax_model(module)
    x = jax.random.normal(KEY, (9, *shape)).at[8].set(0)
    x = x.at[8].set(x[0])
    return model._replace(apply=jax.jit(model.apply)), jax.jit(model.init)(KEY, x[:1]), x


def test_a_key_is_one_function_for_all_points(network):
    model, params, x = network
    logits = model.apply(params, x, KEY)
    assert logits.shape == (9, 3)
    np.testing.assert_allclose(logits[8], logits[0], atol=1e-5)
    reverse = model.apply(params, x[::-1], KEY)
    np.testing.assert_allclose(reverse[::-1], logits, atol=1e-5)


def test_another_key_is_another_function(network):
    model, params, x = network
    one, other = (model.apply(params, x, jax.random.key(seed)) for seed in (1, 2))
    assert np.abs(one - other).max(axis=-1).min() > 1e-4


def test_without_a_key_nothing_is_dropped(network):
    model, params, x = network
    logits = model.apply(params, x)
    np.testing.assert_array_equal(model.apply(params, x), logits)
    assert np.abs(model.apply(params, x, KEY) - logits).max() > 1e-3


def test_dropout_keeps_the_mean():
    # One linear layer after the dropout: the logits are unbiased only if the rest is scaled up.
    model = flax_model(MLP(2, hidden=(64,), dropout_rate=0.3))
    x = jax.random.normal(KEY, (3, 5))
    params = model.init(KEY, x)
    keys = jax.random.split(KEY, 1000)
    samples = jax.jit(jax.vmap(model.apply, in_axes=(None, None, 0)))(params, x, keys)
    error = 5 * samples.std(axis=0) / np.sqrt(1000)
    assert np.all(np.abs(samples.mean(axis=0) - model.apply(params, x)) < error)
    assert error.max() < 0.2


def test_mlp_has_the_layers_it_is_given():
    model = flax_model(MLP(num_classes=7, hidden=(5, 4)))
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 3, 2, 1)))["params"]
    shapes = [layer["kernel"].shape for _, layer in sorted(params.items())]
    assert shapes == [(6, 5), (5, 4), (4, 7)]


def test_the_paper_network_has_the_paper_layers():
    params = jax.eval_shape(flax_model(PaperCNN(10)).init, KEY, jnp.zeros((1, 28, 28, 1)))
    kernels = {leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) > 1}
    assert kernels == {(5, 5, 1, 32), (5, 5, 32, 64), (4 * 4 * 64, 128), (128, 10)}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 184_586


@pytest.fixture(scope="module")
def dropouts() -> list[tuple[np.ndarray, np.ndarray]]:
    """Input and output of each dropout layer of `PaperCNN`, in order, for one key and point."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def spy(next_method, args, kwargs, context):
        out = next_method(*args, **kwargs)
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            seen.append((np.asarray(args[0]), np.asarray(out)))
        return out

    module, x = PaperCNN(3), jax.random.normal(KEY, (1, 16, 16, 1))
    params = module.init(KEY, x, deterministic=True)
    with nn.intercept_methods(spy):
        module.apply(params, x, deterministic=False, rngs={"dropout": KEY})
    return seen


@pytest.mark.parametrize("layer", [0, 1])
def test_channel_dropout_drops_whole_channels(dropouts, layer: int):
    before, after = (array[0].reshape(-1, array.shape[-1]) for array in dropouts[layer])
    assert before.shape == [(12 * 12, 32), (2 * 2, 64)][layer]
    is_kept = (after != 0).any(axis=0)
    assert 0.2 < is_kept.mean() < 0.8
    np.testing.assert_allclose(after, 2 * before * is_kept, rtol=1e-6)


def test_dense_dropout_drops_units(dropouts):
    assert len(dropouts) == 3
    before, after = dropouts[2]
    assert before.shape == (1, 128)
    is_kept = after != 0
    assert 0.3 < is_kept.mean() < 0.7
    np.testing.assert_allclose(after, 2 * before * is_kept, rtol=1e-6)


def test_each_point_by_a_function_of_its_own():
    model = flax_model(PaperCNN(3))
    x = jnp.broadcast_to(jax.random.normal(KEY, (16, 16, 1)), (9, 16, 16, 1))
    params = model.init(KEY, x)
    assert model.apply_each is not None
    apply_each = jax.jit(model.apply_each)
    logits = apply_each(params, x, KEY)
    assert logits.shape == (9, 3)
    for shift in range(1, 9):
        assert np.abs(logits - np.roll(logits, shift, axis=0)).max(axis=-1).min() > 1e-4
    np.testing.assert_array_equal(apply_each(params, x, KEY), logits)
    assert np.abs(apply_each(params, x, jax.random.key(1)) - logits).max(axis=-1).min() > 1e-4


# --- many keys at once

FACTORED = {
    "paper-28x28": (PaperCNN, (28, 28, 1)),
    "paper-16x16": (PaperCNN, (16, 16, 1)),
    "own": (OwnFactoredNet, (8, 10, 2)),
}
KEYS = jax.random.split(KEY, 4)


def make_factored(name: str, dropout_rate: float) -> tuple[Model, models.Params, jax.Array]:
    """A factored network, any parameters (biases that are not zero), and three images."""
    module, shape = FACTORED[name]
    model = flax_model(module(3, dropout_rate))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)
    shapes = jax.eval_shape(model.init, KEY, x)
    params = jax.tree.map(lambda leaf: jnp.float32(0.1 * rng.normal(size=leaf.shape)), shapes)
    return model, params, x


def apply_all(model: Model, params: models.Params, x: jax.Array) -> jax.Array:
    """What `draw` stands for."""
    return jax.vmap(model.apply, in_axes=(None, None, 0), out_axes=1)(params, x, KEYS)


def apply_drawn(model: Model, params: models.Params, x: jax.Array) -> jax.Array:
    assert model.draw is not None
    return model.draw(params, KEYS)(x)


def assert_same_logits(actual, expected) -> None:
    """To rounding, relative to the largest."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


# The rate changes the masks, the size of the images what is done with them.
@pytest.mark.parametrize(
    ("name", "dropout_rate"),
    [
        *itertools.product(["paper-16x16", "own"], [0.0, 0.3, 0.9]),
        *itertools.product(FACTORED, [0.5]),
    ],
)
def test_drawn_together_is_drawn_one_by_one(name: str, dropout_rate: float):
    model, params, x = make_factored(name, dropout_rate)
    expected = jax.jit(partial(apply_all, model))(params, x)
    assert expected.shape == (3, 4, 3)
    assert_same_logits(jax.jit(partial(apply_drawn, model))(params, x), expected)
    if dropout_rate > 0:
        assert np.abs(expected - np.roll(expected, 1, axis=1)).max(axis=-1).min() > 1e-3


@pytest.mark.parametrize("name", ["paper-16x16", "own"])
def test_drawn_together_without_jit(name: str):
    model, params, x = make_factored(name, 0.3)
    assert_same_logits(apply_drawn(model, params, x), jax.jit(partial(apply_all, model))(params, x))


@pytest.mark.parametrize("name", ["paper-16x16", "own"])
def test_an_ensemble_is_drawn_together(name: str):
    model, params, x = make_factored(name, 0.5)
    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.7 * leaf]), params)
    one_by_one, together = (
        jax.jit(jax.vmap(partial(function, model), in_axes=(0, None)))(ensemble, x)
        for function in (apply_all, apply_drawn)
    )
    assert_same_logits(together, one_by_one)
    assert np.abs(together[0] - together[1]).max() > 0.1


class Normalised(nn.Module):
    """What flax models often have, and no loop here would update."""

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        return nn.Dense(3)(nn.BatchNorm(use_running_average=deterministic)(x))


class Flat(nn.Module):
    """One number a point, as for regression."""

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        return nn.Dense(1)(x)[:, 0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (MLP, "MLP is a class: pass an instance, such as MLP"),
        (
            nnx.Dropout(0.5),
            "Dropout is an nnx module: pass a function that makes one to bb.nnx_model",
        ),
        (nnx.Linear, "Linear is an nnx module: pass a function that makes one"),
        (len, "is no flax linen module: pass an instance of a subclass of flax.linen.Module"),
    ],
)
def test_what_is_no_instance_of_a_linen_module_is_refused(module: Any, message: str):
    # Unwrapped: in tests, its annotation would refuse them first.
    with pytest.raises(ValueError, match=f"flax_model: .*{message}"):
        inspect.unwrap(flax_model)(module)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Normalised(), "Normalised has the variables batch_stats .* use nn.LayerNorm or nn.Group"),
        (Flat(), r"Flat gives \(2,\) for 2 points; return logits \[n, C\]"),
    ],
)
def test_a_module_that_cannot_serve_is_refused_before_it_is_trained(module: Any, message: str):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(flax_model(module).init, KEY, jnp.zeros((2, 4)))


def test_only_a_factored_module_draws_together():
    assert flax_model(PaperCNN(3)).draw is not None
    # Of another module nobody knows that it draws a mask for each point of a minibatch.
    for module in (MLP(3), OwnNet()):
        model = flax_model(module)
        assert model.draw is model.apply_each is None
