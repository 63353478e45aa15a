"""Neighbours beside all distances in float64."""

import numpy as np
import pytest

from bbald_jax.learning import neighbours
from bbald_jax.learning.neighbours import Neighbours

POINTS = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
ALL = ((QUERIES[:, None].astype(np.float64) - POINTS) ** 2).sum(axis=-1)


def test_the_nearest_of_few_points_are_exact():
    indices, distances = Neighbours(POINTS, seed=0).nearest(QUERIES, 7)
    np.testing.assert_array_equal(indices, np.argsort(ALL, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(ALL, axis=1)[:, :7], rtol=1e-6)


def test_the_nearest_of_many_are_found_in_lists(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_MOST_EXACT", 100)
    monkeypatch.setattr(neighbours, "_NUM_PROBES", 12)
    search = Neighbours(POINTS, seed=0)
    indices, distances = search.nearest(QUERIES, 7)
    assert np.mean(indices == np.argsort(ALL, axis=1)[:, :7]) > 0.95
    np.testing.assert_allclose(distances, np.take_along_axis(ALL, indices, 1), rtol=1e-6)
    np.testing.assert_array_equal(Neighbours(POINTS, seed=0).nearest(QUERIES, 7)[0], indices)


def test_lists_that_are_too_short_are_made_up_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_MOST_EXACT", 100)
    monkeypatch.setattr(neighbours, "_NUM_PROBES", 1)
    # 20 lists of about 20 points: none holds 200.
    indices, _ = Neighbours(POINTS, seed=0).nearest(QUERIES, 200)
    np.testing.assert_array_equal(np.sort(indices), np.sort(np.argsort(ALL, axis=1)[:, :200]))


def test_near_copies_have_their_distances():
    # In float32, |x|^2 - 2 x y + |y|^2 is rounded to about 1e-5 here.
    points = 10 + 1e-5 * np.arange(6, dtype=np.float32)[:, None] ** 2
    _, distances = Neighbours(points.astype(np.float32), seed=0).nearest(points[:1], 2)
    expected = np.diff(np.sort(np.square(points.astype(np.float64) - points[0, 0]).ravel())[:2])
    np.testing.assert_allclose(distances[0], [0, *expected], rtol=1e-6)


def test_overflow_is_an_error():
    with pytest.raises(ValueError, match="row 1 is too far"):
        Neighbours(POINTS, seed=0).nearest(np.array([[0] * 5, [1e30] * 5], np.float32), 3)
