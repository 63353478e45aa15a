"""Image features beside HOG and a singular value decomposition, and the edges."""

from typing import Any

import numpy as np
import pytest
from skimage.feature import hog
from sklearn.datasets import load_digits

import bbald_jax as bb
from bbald_jax.learning import image_embedding

LOADED: Any = load_digits()
DIGITS = (LOADED.images[:350] / 16).astype(np.float32)
FEW = DIGITS[:60]
D = 20


def reference(images: np.ndarray, outside: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """By `skimage`, and the axes in float64; images whose sides are multiples of a cell."""
    pool, others = (
        np.stack([hog(image.astype(np.float64), 9, (cell, cell), (2, 2)) for image in some])
        for some in (images, outside)
    )
    mean = pool.mean(axis=0)
    axes = np.linalg.svd(pool - mean, full_matrices=False)[2][:D]
    return (pool - mean) @ axes.T, (others - mean) @ axes.T


def assert_formula(images: np.ndarray, num_pool: int, cell: int) -> None:
    pool, outside = images[:num_pool], images[num_pool:]
    expected = np.concatenate(reference(pool, outside, cell))
    actual = np.concatenate(bb.image_features(pool, outside, num_features=D))
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=2e-3)


def test_the_formula_with_fewer_images_than_numbers_in_each():
    # 24 pixels, of three times as many, and a margin.
    images = DIGITS[:40].repeat(3, axis=1).repeat(3, axis=2)
    assert_formula(np.pad(images, ((0, 0), (2, 2), (2, 2))), num_pool=30, cell=4)


def test_the_formula_with_more_images_than_numbers_in_each():
    assert_formula(DIGITS, num_pool=340, cell=2)


def test_what_is_outside_does_not_change_the_pool():
    pool = bb.image_features(FEW[:40], num_features=D)
    both = bb.image_features(FEW[:40], FEW[30:], num_features=D)
    np.testing.assert_array_equal(both[0], pool)
    np.testing.assert_allclose(both[1][:10], pool[30:], atol=1e-5)


def test_axes_from_some_of_the_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_embedding, "_MOST_FITTED", 30)
    monkeypatch.setattr(image_embedding, "_CHUNK_SIZE", 7)
    pool, outside = bb.image_features(FEW, FEW, num_features=D)
    # All images are projected by the same axes, those that made them and the others.
    np.testing.assert_allclose(pool, outside, atol=1e-5)
    np.testing.assert_array_equal(bb.image_features(FEW, num_features=D), pool)
    assert np.abs(bb.image_features(FEW, num_features=D, seed=1) - pool).max() > 0.01


@pytest.mark.parametrize("shape", [(9, 13), (28, 28), (29, 64), (4, 4), (100, 8)])
def test_any_size_has_at_most_1764_numbers(shape: tuple[int, int]):
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    histograms = image_embedding._histograms(images[..., None], np.arange(3), lambda: None)
    assert 36 <= histograms.shape[1] <= 1764
    assert np.ptp(histograms, axis=0).max() > 0.01


def test_brightness_contrast_and_channels_drop_out():
    expected = bb.image_features(FEW, num_features=D)
    as_bytes = np.round(FEW * 160 + 40).astype(np.uint8)
    np.testing.assert_allclose(bb.image_features(as_bytes, num_features=D), expected, atol=1e-3)
    one = bb.image_features(FEW[..., None], num_features=D)
    np.testing.assert_array_equal(one, expected)
    # The steepest channel counts.
    colours = np.stack([0.2 * FEW, FEW, np.zeros_like(FEW)], axis=-1)
    np.testing.assert_allclose(bb.image_features(colours, num_features=D), expected, atol=1e-4)


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_fewer_images_than_features(num_images: int):
    pool, outside = bb.image_features(FEW[:num_images], FEW[:7])
    assert pool.shape == (num_images, max(1, num_images - 1))
    assert outside.shape == (7, max(1, num_images - 1))
    assert np.isfinite(outside).all()


def test_images_without_an_edge():
    pool = bb.image_features(np.ones((4, 8, 8)))
    np.testing.assert_allclose(pool, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "outside", "options", "message"),
    [
        (np.where(np.arange(3)[:, None, None] == 1, np.nan, FEW[:3]), None, {}, r"images\[1\]"),
        (FEW, np.full((2, 8, 8), np.inf), {}, r"outside\[0\]: NaN or infinite"),
        (FEW, FEW[:, :4], {}, r"outside: images of \(4, 8, 1\), those of the pool \(8, 8"),
        (np.zeros((2, 3, 32, 32)), None, {}, r"images: shape \(2, 3, 32, 32\).* channels last"),
        (np.zeros((2, 64)), None, {}, r"images: shape \(2, 64\), expected"),
        (np.zeros((0, 8, 8)), None, {}, r"images: shape \(0, 8, 8\)"),
        (np.full((2, 8, 8), "a"), None, {}, "images: dtype <U1"),
        (FEW, None, {"num_features": 0}, "num_features: 0 is not an integer"),
    ],
)
def test_errors_name_the_image_or_the_fix(images: Any, outside: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        bb.image_features(images, outside, **options)
