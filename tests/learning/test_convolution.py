"""The convolution and the pooling written for speed: the functions and gradients of flax's."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import temporary_bytes
from jax import lax

from bbald_jax.learning.convolution import Conv, conv, conv_masked, max_pool, max_pool_forward

KEY = jax.random.key(0)
FEATURES = 4


def parametrize(cases: list[tuple[int, int]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, indirect=True, ids=str)


#: Input channels and kernel size; the gradient of one channel is a case of its own.
ALL = parametrize([(1, 3), (1, 5), (3, 3), (3, 5)])
TWO = parametrize([(1, 5), (3, 3)])


def laxs_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def assert_close(actual, expected) -> None:
    """To rounding, relative to the largest number."""

    def check(one, other):
        atol = 1e-5 * max(1, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)

    jax.tree.map(check, actual, expected)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> tuple[jax.Array, jax.Array]:
    """Images that are not square, and a kernel."""
    channels, size = request.param
    return normal(2, 9, 7, channels), normal(size, size, channels, FEATURES, seed=1)


def gradients(convolve: Callable, x: jax.Array, kernel: jax.Array):
    """The result (what is differentiated is computed by other code) and both gradients."""

    def loss(x: jax.Array, kernel: jax.Array):
        y = convolve(x, kernel)
        return jnp.sin(y).sum(), y  # not linear: the gradient differs at every pixel

    (dx, dkernel), y = jax.grad(loss, (0, 1), has_aux=True)(x, kernel)
    return y, dx, dkernel


@ALL
def test_it_is_the_convolution_of_lax(case):
    assert_close(conv(*case), laxs_conv(*case))


@ALL
def test_its_gradients_are_those_of_lax(case):
    actual, expected = (jax.jit(partial(gradients, f))(*case) for f in (conv, laxs_conv))
    assert_close(actual, expected)


@TWO
def test_its_gradients_are_those_of_lax_without_jit(case):
    assert_close(gradients(conv, *case), jax.jit(partial(gradients, laxs_conv))(*case))


@TWO
def test_its_gradients_are_those_of_lax_under_vmap(case):
    # An ensemble: each network has its kernel and its images.
    ensemble = [jnp.stack([array, 0.5 - array, 2 * array]) for array in case]
    actual, expected = (
        jax.jit(jax.vmap(partial(gradients, f)))(*ensemble) for f in (conv, laxs_conv)
    )
    assert_close(actual, expected)


@TWO
def test_its_gradients_are_those_of_lax_in_a_loop(case):
    # Where training calls it: each step's kernel comes from the gradient of the one before.
    x, kernel = case

    def descend(convolve: Callable):
        def step(kernel: jax.Array, scale: jax.Array):
            y, dx, dkernel = gradients(convolve, scale * x, kernel)
            return kernel - 0.01 * dkernel, (y, dx)

        return lax.scan(step, kernel, jnp.array([0.5, 1, -0.2]))

    assert_close(descend(conv), descend(laxs_conv))


@pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 3)])
def test_the_layer_is_that_of_flax(channels: int, size: int):
    ours = Conv(FEATURES, size)
    flaxs = nn.Conv(FEATURES, (size, size), padding="VALID")
    x = normal(2, 9, 7, channels)
    params = ours.init(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, params, flaxs.init(KEY, x))

    params["params"]["bias"] = jnp.arange(1.0, FEATURES + 1)
    assert_close(ours.apply(params, x), flaxs.apply(params, x))

    def gradient(module: nn.Module):
        loss = lambda params, x: jnp.sin(jnp.asarray(module.apply(params, x))).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1)))(params, x)

    assert_close(gradient(ours), gradient(flaxs))


def some_masks(channels: int) -> jax.Array:
    """Any real numbers, with a mask that keeps nothing and one that keeps all."""
    masks = normal(6, channels).at[0].set(0).at[1].set(1)
    assert (masks[2:] < 0).any()
    return masks.at[2, 0].set(0)


@ALL
def test_masked_channels_are_convolved_as_one_mask_after_the_other(case):
    x, kernel = case
    masks = some_masks(x.shape[-1])
    expected = np.stack([laxs_conv(x * mask, kernel) for mask in masks])
    assert_close(conv_masked(x, kernel, masks), expected)
    assert_close(jax.jit(conv_masked)(x, kernel, masks), expected)


@TWO
def test_masked_channels_under_vmap(case):
    xs, kernels = (jnp.stack([array, 0.5 - array]) for array in case)
    masks = some_masks(xs.shape[-1])
    function = jax.jit(conv_masked)
    expected = [function(x, kernel, masks) for x, kernel in zip(xs, kernels, strict=True)]
    actual = jax.jit(jax.vmap(conv_masked, in_axes=(0, 0, None)))(xs, kernels, masks)
    assert_close(actual, np.stack(expected))


def test_the_memory_of_masked_channels_does_not_grow_with_the_masks():
    x, kernel = jnp.zeros((2, 12, 12, 32)), jnp.zeros((5, 5, 32, 64))
    few, many = (temporary_bytes(conv_masked, x, kernel, jnp.zeros((K, 32))) for K in (20, 200))
    assert many < 1.2 * few
    assert many < 4 * (200 * 2 * 8 * 8 * 64) / 3  # a third of the result


def test_a_masked_layer_adds_its_bias_once():
    layer = Conv(FEATURES, 3)
    x = normal(2, 9, 7, 3)
    params = layer.init(KEY, x)
    params["params"]["bias"] = jnp.arange(1.0, FEATURES + 1)
    masks = some_masks(3)
    expected = [np.asarray(layer.apply(params, x * mask)) for mask in masks]
    actual = layer.apply(params, x, masks)
    assert_close(actual, np.stack(expected))
    # Under the mask that keeps nothing the bias is all there is.
    np.testing.assert_array_equal(
        np.asarray(actual)[0], jnp.broadcast_to(jnp.arange(1.0, 5), (2, 7, 5, 4))
    )


def test_max_pool_and_its_gradient_are_those_of_flax():
    x = normal(2, 6, 4, 3)  # no two numbers are equal
    weights = normal(2, 3, 2, 3, seed=1)

    def flaxs(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (2, 2), strides=(2, 2))

    np.testing.assert_array_equal(max_pool(x), flaxs(x))
    ours, theirs = (jax.grad(lambda x, f=f: (weights * f(x)).sum())(x) for f in (max_pool, flaxs))
    np.testing.assert_array_equal(ours, theirs)
    assert np.count_nonzero(ours) == weights.size


def test_max_pool_leaves_out_the_rest_of_an_odd_side():
    x = normal(2, 7, 5, 3)
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), strides=(2, 2)))


@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_max_pool_forward_is_max_pool_under_any_leading_axes(leading, size):
    x = normal(*leading, *size, 3)
    each = x.reshape(-1, *size, 3)
    expected = nn.max_pool(each, (2, 2), strides=(2, 2)).reshape(
        *leading, *(n // 2 for n in size), 3
    )
    np.testing.assert_array_equal(max_pool_forward(x), expected)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float16, jnp.int32])
def test_images_of_another_dtype_are_promoted_as_by_flax(dtype):
    x = (10 * normal(2, 9, 7, 1)).astype(dtype)
    ours, theirs = Conv(FEATURES), nn.Conv(FEATURES, (5, 5), padding="VALID")
    params = ours.init(KEY, x)
    actual, expected = (jnp.asarray(module.apply(params, x)) for module in (ours, theirs))
    assert actual.dtype == expected.dtype == jnp.float32
    assert_close(actual, expected)
