"""The iteration beside the dense float64 decomposition."""

import numpy as np
import pytest
import scipy.sparse as sparse

from bbald_jax.learning import eigenvectors
from bbald_jax.learning.eigenvectors import largest_eigenpairs

NUM_ROWS, NUM_PAIRS = 240, 12


@pytest.fixture
def iterate(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for large matrices."""
    monkeypatch.setattr(eigenvectors, "_MOST_DENSE", 0)


def ring(num_rows: int) -> sparse.csr_matrix:
    """A graph whose eigenvalues come in pairs, all but the first: cos(2 pi j / N)."""
    step = sparse.csr_matrix(np.roll(np.eye(num_rows), 1, axis=1))
    return sparse.csr_matrix((step + step.T) / 2)


@pytest.mark.usefixtures("iterate")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_iteration_finds_the_largest(seed: int):
    # Random weights on the ring and on chords: no eigenvalue is repeated.
    rng = np.random.default_rng(seed)
    chords = np.triu(rng.random((NUM_ROWS, NUM_ROWS)) * (rng.random((NUM_ROWS, NUM_ROWS)) < 0.02))
    weights = ring(NUM_ROWS).toarray() + chords + chords.T
    roots = np.sqrt(weights.sum(axis=0))
    dense = weights / roots / roots[:, None]
    values, vectors = largest_eigenpairs(sparse.csr_matrix(dense), NUM_PAIRS, seed=seed)
    expected, axes = np.linalg.eigh(dense)
    np.testing.assert_allclose(values, expected[::-1][:NUM_PAIRS], rtol=0, atol=1e-5)
    assert np.linalg.norm(dense @ vectors - vectors * values, axis=0).max() < 1e-3
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(NUM_PAIRS), atol=1e-9)
    assert np.abs((axes[:, ::-1][:, :3] * vectors[:, :3]).sum(axis=0)).min() > 0.9999


@pytest.mark.usefixtures("iterate")
def test_repeated_eigenvalues_are_all_found():
    # Three copies of a ring: 1 three times, then each cosine six times.
    matrix = sparse.csr_matrix(sparse.block_diag([ring(80)] * 3))
    values, _ = largest_eigenpairs(matrix, NUM_PAIRS, seed=0)
    expected = np.cos(2 * np.pi * np.array([0] * 3 + [1] * 6 + [2] * 3) / 80)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("iterate")
def test_the_same_seed_gives_the_same_bits_and_signs_follow_a_rule():
    matrix = ring(NUM_ROWS)
    values, vectors = largest_eigenpairs(matrix, NUM_PAIRS, seed=3)
    again = largest_eigenpairs(matrix, NUM_PAIRS, seed=3)
    np.testing.assert_array_equal(values, again[0])
    np.testing.assert_array_equal(vectors, again[1])
    assert np.all(vectors.max(axis=0) >= -vectors.min(axis=0))


def test_a_small_matrix_may_be_asked_for_all():
    matrix = ring(9)
    values, vectors = largest_eigenpairs(matrix, 9, seed=0)
    np.testing.assert_allclose(vectors * values @ vectors.T, matrix.toarray(), atol=1e-12)
    assert np.all(np.diff(values) <= 0)
