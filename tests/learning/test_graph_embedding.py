"""Graph features beside a dense computation in float64, and the edges."""

from typing import Any

import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.learning import eigenvectors, neighbours

K, D = 10, 16


def reference(x: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The formulas of the docstring, for a pool of different points whose graph is in one part."""

    def weights(rows: np.ndarray, first: int) -> np.ndarray:
        squares = ((rows[:, None] - x) ** 2).sum(axis=-1)
        order = np.argsort(squares, axis=1)[:, first : first + K]
        near = np.take_along_axis(squares, order, 1)
        result = np.zeros_like(squares)
        np.put_along_axis(result, order, np.exp(-4 * near / near[:, -1:]), 1)
        return result

    within = weights(x, 1)  # the first is the point itself
    within = (within + within.T) / 2
    roots = np.sqrt(within.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(len(x)) - within / roots / roots[:, None])
    assert values[1] > 1e-6
    values, smooth = values[:D], vectors[:, :D] / roots[:, None]
    near = weights(outside, 0)
    near /= near.sum(axis=1, keepdims=True)
    scale = (values + values[10]) ** -2.0
    extended = near @ smooth / np.maximum(1 - values, 0.5)
    return unit(smooth * scale), unit(extended * scale)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 3))


@pytest.fixture
def as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched and decomposed as large pools are."""
    monkeypatch.setattr(eigenvectors, "_MOST_DENSE", 0)
    monkeypatch.setattr(neighbours, "_MOST_EXACT", 0)


def test_the_formulas(points: np.ndarray):
    x, outside = points[:160], points[160:]
    expected = np.concatenate(reference(x, outside))
    actual = np.concatenate(bb.graph_features(x, outside, num_features=D))
    assert actual.dtype == np.float32
    # Signs, and the axes of repeated eigenvalues, are arbitrary: inner products are not.
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=2e-4)


@pytest.mark.usefixtures("as_many")
def test_large_pools_have_the_same_features(points: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_NUM_PROBES", 14)  # of 12 lists: all
    monkeypatch.setattr(eigenvectors, "_TOLERANCE", 1e-6)
    x, outside = points[:160], points[160:]
    expected = np.concatenate(reference(x, outside))
    actual = np.concatenate(bb.graph_features(x, outside, num_features=D))
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-3)


@pytest.mark.usefixtures("as_many")
def test_the_same_seed_gives_the_same_bits(points: np.ndarray):
    first, others = bb.graph_features(points, points[:9] + 1, num_features=D, seed=1)
    np.testing.assert_array_equal(bb.graph_features(points, num_features=D, seed=1), first)
    # What is outside does not change the pool, and points outside not each other.
    again = bb.graph_features(points, points[4:9] + 1, num_features=D, seed=1)
    np.testing.assert_array_equal(again[0], first)
    np.testing.assert_allclose(again[1], others[4:], atol=1e-6)


def test_a_point_of_the_pool_as_one_outside_lands_near_itself(points: np.ndarray):
    pool, outside = bb.graph_features(points, points)
    similar = outside @ pool.T
    assert np.diag(similar).min() > 0.9
    assert np.mean(similar.argmax(axis=1) == np.arange(len(points))) > 0.8


def test_neither_place_nor_scale_nor_shape_matters(points: np.ndarray):
    expected = bb.graph_features(points[:160], num_features=D)
    moved = (1e-20 * (points[:160] + 7)).reshape(160, 1, 3, 1)
    actual = bb.graph_features(moved, num_features=D)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=2e-3)


def test_what_is_dense_is_alike():
    # Two rings, one within the other: no line parts them, and the graph falls into two parts.
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
    radius = 1 + 2 * (np.arange(300) % 2)
    x = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = bb.graph_features(x, num_features=2)
    similar = np.abs(features @ features.T)
    is_same = radius[:, None] == radius
    assert similar[is_same].min() > 0.999
    assert similar[~is_same].max() < 1e-3


def test_more_parts_than_features_and_than_the_knee():
    # 20 parts of 12 points, far from each other: lambda is 0 twenty times.
    rng = np.random.default_rng(0)
    part = np.repeat(np.arange(20), 12)
    x = rng.normal(size=(240, 2)) + 1000 * part[:, None]
    few, many = (bb.graph_features(x, num_features=n, num_neighbours=5) for n in (12, 40))
    for features in (few, many):
        assert np.isfinite(features).all()
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    # With fewer features than parts, a part has its own direction.
    similar = few @ few.T
    assert similar[part[:, None] == part].min() > 0.9999
    assert similar[part[:, None] != part].max() < 0.95
    similar = many @ many.T
    # What varies within a part is in the features too: tau is no zero's.
    within = similar[part[:, None] == part]
    assert np.abs(similar[part[:, None] != part]).max() < 1e-3
    assert 0 < within.min() < 0.999


def test_equal_points_have_equal_features_and_count_once(points: np.ndarray):
    expected = bb.graph_features(points[:60], num_features=D)
    # More copies than neighbours; minus zero is zero.
    order = np.concatenate([np.arange(60), np.repeat([5, 7], 20)])
    actual = bb.graph_features(points[order], num_features=D)
    np.testing.assert_array_equal(actual[60:80], actual[[5] * 20])
    similar = actual[:60] @ actual[:60].T
    np.testing.assert_allclose(similar, expected @ expected.T, atol=1e-3)
    zeros = bb.graph_features(np.array([[0.0, 1], [-0.0, 1], [1, 0], [-1, -2]]))
    np.testing.assert_array_equal(zeros[0], zeros[1])


@pytest.mark.parametrize("num_points", [1, 2, 3, 11])
def test_fewer_points_than_neighbours_or_features(num_points: int, points: np.ndarray):
    pool, outside = bb.graph_features(points[:num_points], points[:2])
    assert pool.shape == (num_points, num_points)
    assert outside.shape == (2, num_points)
    assert np.isfinite(outside).all()
    np.testing.assert_allclose(np.linalg.norm(pool, axis=1), 1, rtol=1e-5)


def test_points_that_are_all_equal():
    pool, outside = bb.graph_features(np.ones((7, 2)), np.zeros((3, 2)))
    np.testing.assert_array_equal(pool, np.ones((7, 1)))
    np.testing.assert_array_equal(outside, np.ones((3, 1)))


@pytest.mark.parametrize(
    ("x", "outside", "options", "message"),
    [
        ([[0.0], [np.nan]], None, {}, r"x\[1\]: NaN or infinite"),
        ([[0.0], [1.0]], [[1.0], [2.0], [-np.inf]], {}, r"outside\[2\]: NaN or infinite"),
        ([[1e300, 1e308], [1e308, 1e308], [0, np.inf]], None, {}, r"x\[2\]: NaN or infinite"),
        ([[1e308], [1.5e308]], None, {}, "x: numbers whose sum overflows float64"),
        ([0.0, 1.0], None, {}, r"x: shape \(2,\), expected \[N, D\]"),
        (np.zeros((0, 3)), None, {}, r"x: shape \(0, 3\)"),
        ([["a"], ["b"]], None, {}, "x: dtype <U1 does not hold real numbers"),
        ([[0.0], [1.0]], [[0.0, 1.0]], {}, "outside: 2 features a point, x has 1"),
        ([[0.0], [1.0]], [[1e30]], {}, "outside: row 0 is too far"),
        ([[0.0], [1.0]], None, {"num_neighbours": 0}, "num_neighbours: 0 is not an integer"),
        ([[0.0], [1.0]], None, {"num_features": 1.5}, "num_features: 1.5 is not an integer"),
    ],
)
def test_errors_name_the_row_or_the_fix(x: Any, outside: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        # beartype sees annotations before the function sees the sizes.
        getattr(bb.graph_features, "__wrapped__", bb.graph_features)(x, outside, **options)
