"""The networks: what a key does, and the layers that are written for speed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bbald_jax import models
from bbald_jax.models import MLP, ConvByPatches, Model, PaperCNN, flax_model

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


NETWORKS = {
    "mlp": (MLP(3, hidden=(16, 8)), (4,)),
    "cnn": (PaperCNN(3), (16, 16, 1)),
    "own": (OwnNet(), (4, 4, 1)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Model, models.Params, jax.Array]:
    """A network, its parameters, and nine points of which the last is a copy of the first."""
    module, shape = NETWORKS[request.param]
    model = flax_model(module)
    x = jax.random.normal(KEY, (9, *shape)).at[8].set(0)
    x = x.at[8].set(x[0])
    return Model(model.init, jax.jit(model.apply)), model.init(KEY, x[:1]), x


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
    kernels = sorted(leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 2)
    # 5x5x1 -> 32, 5x5x32 -> 64, then 4x4x64 -> 128 -> 10.
    assert kernels == sorted([(25, 32), (25 * 32, 64), (4 * 4 * 64, 128), (128, 10)])
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


def test_conv_by_patches_is_a_convolution():
    x = jax.random.normal(KEY, (2, 9, 7, 3))
    module = ConvByPatches(4)
    params = module.init(KEY, x)
    (dense,) = params["params"].values()
    bias = jnp.arange(4.0)
    params = {"params": {"Dense_0": {"kernel": dense["kernel"], "bias": bias}}}
    kernel = dense["kernel"].reshape(5, 5, 3, 4)
    expected = lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    actual = np.asarray(module.apply(params, x))
    np.testing.assert_allclose(actual, expected + bias, atol=1e-5)


def test_conv_by_patches_starts_like_a_convolution():
    x = jnp.zeros((1, 12, 12, 8))
    ours, flaxs = (
        max(jax.tree.leaves(module.init(KEY, x)), key=jnp.size)  # the other is the bias
        for module in (ConvByPatches(64), nn.Conv(64, (5, 5)))
    )
    assert ours.size == flaxs.size
    np.testing.assert_allclose(ours.std(), flaxs.std(), rtol=0.05)


def test_max_pool_is_that_of_flax():
    x = jax.random.normal(KEY, (2, 6, 4, 3))
    expected = nn.max_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(models._max_pool(x), expected)
