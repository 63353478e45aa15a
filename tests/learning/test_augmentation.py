"""Deformed images: by how much, about where, each in its own way.

An image that holds at every pixel its own row and column is turned by a deformation into a map of
where each new pixel was read.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbald_jax.learning.augmentation import Augmentation, augment

KEY = jax.random.key(0)
# Floats: with an integer among the amounts the program would be compiled anew.
NOTHING = Augmentation(shift=0.0, rotation=0.0, scale=0.0, shear=0.0, elastic=0.0)
ALL = Augmentation(shift=0.1, rotation=0.3, scale=0.2, shear=0.2, elastic=0.05)
SIDE = np.array([24, 18])
CENTRE = (SIDE - 1) / 2

SHAPES = [(3, 8, 8, 1), (2, 9, 7, 3)]


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def coordinates(num_images: int) -> np.ndarray:
    """Copies of the image of its own rows and columns `[num_images, 24, 18, 2]`."""
    image = np.stack(np.meshgrid(*map(np.arange, SIDE), indexing="ij"), axis=-1)
    return np.broadcast_to(image, (num_images, *image.shape)).astype(np.float32)


#: One program a shape, for all amounts.
deform = jax.jit(augment)

#: Pixels so far from the edge that nothing beyond it is read.
INNER = (slice(None), slice(7, -7), slice(7, -7))


def inner_sources(num_images: int, **amounts: float) -> tuple[np.ndarray, np.ndarray]:
    """Inner pixels and where each image read them, from the centre: `[n, 10, 4, 2]` both."""
    x = coordinates(num_images)
    sources = np.asarray(deform(KEY, jnp.asarray(x), NOTHING._replace(**amounts)))
    return x[INNER] - CENTRE, sources[INNER] - CENTRE


def assert_reaches(drawn: np.ndarray, amount: float) -> None:
    """Uniform from minus to plus the amount, as far as the ends and the mean tell."""
    assert np.abs(drawn).max() < amount * 1.0001
    assert drawn.max() > 0.9 * amount
    assert drawn.min() < -0.9 * amount
    assert np.abs(drawn.mean()) < 0.2 * amount


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_shape_and_dtype_are_kept(shape: tuple[int, ...], dtype: type):
    x = normal(*shape).astype(dtype)
    deformed = jax.eval_shape(deform, KEY, x, ALL)
    assert (deformed.shape, deformed.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_amounts_of_zero_change_nothing(shape: tuple[int, ...]):
    x = normal(*shape)
    np.testing.assert_allclose(deform(KEY, x, NOTHING), x, atol=1e-5)


@pytest.mark.parametrize("name", Augmentation._fields)
def test_each_image_is_deformed_in_its_own_way_by_each_amount(name: str):
    x = jnp.broadcast_to(normal(8, 8, 1), (3, 8, 8, 1))
    deformed = np.asarray(deform(KEY, x, NOTHING._replace(**{name: 0.2})))
    for i in range(3):
        assert np.abs(deformed[i] - x[0]).max() > 1e-3
        assert np.abs(deformed[i] - deformed[i - 1]).max() > 1e-3


def test_the_deformation_comes_from_the_key():
    x = normal(3, 8, 8, 1)
    deformed = deform(KEY, x, ALL)
    np.testing.assert_array_equal(deform(KEY, x, ALL), deformed)
    assert np.abs(deform(jax.random.key(1), x, ALL) - deformed).max() > 0.1


def test_all_channels_of_an_image_are_deformed_alike():
    x = jnp.repeat(normal(2, 9, 7, 1), 3, axis=-1)
    deformed = deform(KEY, x, ALL)
    np.testing.assert_array_equal(deformed, jnp.repeat(deformed[..., :1], 3, axis=-1))


@pytest.mark.parametrize("much", [1, 10])
def test_no_value_is_made_up(much: float):
    # Between the pixels bilinear, beyond the edge the nearest: no zeros come in.
    x = 5 + normal(2, 9, 7, 3)
    low, high = (f(x, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    for seed in range(20):
        amount = Augmentation(*(much * amount for amount in ALL))
        deformed = deform(jax.random.key(seed), x, amount)
        assert np.all(deformed >= low - 1e-5)
        assert np.all(deformed <= high + 1e-5)


def test_a_shift_moves_every_pixel_by_the_same_fraction_of_the_sides():
    pixels, sources = inner_sources(200, shift=0.2)
    moved = sources - pixels
    np.testing.assert_allclose(moved, moved[:, :1, :1] + 0 * moved, atol=1e-4)
    for axis in (0, 1):
        assert_reaches(moved[:, 0, 0, axis], 0.2 * SIDE[axis])
    assert np.abs(np.corrcoef(moved[:, 0, 0].T)[0, 1]) < 0.3  # each axis by its own


def test_a_rotation_turns_about_the_centre():
    pixels, sources = inner_sources(200, rotation=0.4)
    before, after = (points[..., 0] + 1j * points[..., 1] for points in (pixels, sources))
    turned = after / before
    np.testing.assert_allclose(np.abs(turned), 1, atol=1e-4)
    angle = np.angle(turned)
    np.testing.assert_allclose(angle, angle[:, :1, :1] + 0 * angle, atol=1e-4)
    assert_reaches(angle[:, 0, 0], 0.4)


def test_a_scale_enlarges_and_shrinks_about_the_centre():
    pixels, sources = inner_sources(200, scale=0.3)
    factor = sources / pixels
    np.testing.assert_allclose(factor, factor[:, :1, :1, :1] + 0 * factor, atol=1e-4)
    assert_reaches(np.log(factor[:, 0, 0, 0]), 0.3)


def test_a_shear_moves_along_the_rows_and_keeps_the_centre():
    pixels, sources = inner_sources(200, shear=0.5)
    np.testing.assert_allclose(sources[..., 1], pixels[..., 1], atol=1e-4)
    tangent = (sources - pixels)[..., 0] / pixels[..., 1]
    np.testing.assert_allclose(tangent, tangent[:, :1, :1] + 0 * tangent, atol=1e-4)
    assert_reaches(tangent[:, 0, 0], 0.5)


def test_the_centre_of_an_odd_image_stays_where_only_shift_and_elastic_are_nothing():
    x = normal(2, 9, 7, 3)
    deformed = deform(KEY, x, ALL._replace(shift=0.0, elastic=0.0))
    np.testing.assert_allclose(deformed[:, 4, 3], x[:, 4, 3], atol=1e-4)
    assert np.abs(deformed - x).max() > 0.5


def test_an_elastic_deformation_is_smooth_and_as_large_as_it_says():
    pixels, sources = inner_sources(200, elastic=0.05)
    moved = (sources - pixels) / SIDE
    assert np.abs(moved.mean(axis=0)).max() < 0.01
    # The amount at the nodes; between them, interpolation averages some of it away.
    deviation = moved.std(axis=0)
    assert deviation.min() > 0.5 * 0.05
    assert 0.8 * 0.05 < deviation.max() < 1.15 * 0.05
    step = np.diff(moved, axis=1).std()
    assert 0.1 * 0.05 < step < 0.5 * 0.05  # neither one shift for all nor noise


def test_points_that_are_no_images_are_refused():
    message = "augmentation needs images [n, height, width, channels]"
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        augment(KEY, jnp.zeros((4, 7)), ALL)
    assert "(7,)" in str(error.value)
    assert "take a recipe without augmentation" in str(error.value)
