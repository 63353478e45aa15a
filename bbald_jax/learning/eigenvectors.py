"""Eigenvectors of large sparse matrices, many at a time: `largest_eigenpairs`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

#: Up to so many rows all eigenvectors are computed, exactly: it takes a second.
_MOST_DENSE = 1000
#: Matrix products of the first sweep; each sweep has so many more than the one before it.
_DEGREE = 10
_MOST_SWEEPS = 12
#: Of the residual |A v - theta v|, for eigenvalues within [-1, 1].
_TOLERANCE = 1e-3


def largest_eigenpairs(
    matrix: Any, num_pairs: int, *, seed: int, advance: Callable[[], Any] = lambda: None
) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "N F"]]:
    """The largest eigenvalues of a symmetric matrix within [-1, 1], and their eigenvectors.

    Subspace iteration with F plus a fifth vectors. In each sweep a Chebyshev polynomial of A, which
    is at most 1 on [-1, cut] and grows fast above it, is applied to all of them; then come their
    eigenpairs within the space that they span (Rayleigh and Ritz), and the smallest eigenvalue is
    the next cut: never above the one it stands for. Repeated eigenvalues are found as often as
    they are there. (ARPACK, behind `scipy.sparse.linalg.eigsh`, keeps one vector after another
    orthogonal to all others, and takes longer for a hundred of them.)

    Args:
      matrix: `[N, N]`, `scipy.sparse`, float64, symmetric, with eigenvalues in [-1, 1].
      num_pairs: F, at most N.
      seed: of the vectors to begin with.
      advance: called after each sweep.

    Returns:
      `[F]`, in falling order, and `[N, F]`, orthonormal; float64. Residuals |A v - theta v| below
      1e-3, if 12 sweeps are enough for it (rounding only up to N = 1000 or 2 F, where the matrix is
      made dense): eigenvalues that are nearer to each other are not told apart. A sweep takes 12 F
      products with A more than the one before it. Signs are such that the entry of largest
      magnitude is positive. Memory beside the result: 40 N F bytes.

    Source: Zhou, Saad, Tiago, Chelikowsky, Self-consistent-field calculations using
    Chebyshev-filtered subspace iteration (2006), Journal of Computational Physics 219.
    """
    num_rows = matrix.shape[0]
    if num_rows <= max(_MOST_DENSE, 2 * num_pairs):
        values, vectors = np.linalg.eigh(matrix.toarray())
        advance()
        return values[: -num_pairs - 1 : -1], _signed(vectors[:, : -num_pairs - 1 : -1])
    num_vectors = num_pairs + max(5, num_pairs // 5)
    vectors = np.random.default_rng(seed).normal(size=(num_vectors, num_rows))
    values, cut = np.zeros(num_vectors), 0.0
    for sweep in range(_MOST_SWEEPS):
        step = partial(_filtered, matrix, cut=cut, degree=_DEGREE * (sweep + 1))
        with ThreadPoolExecutor() as threads:  # sparse products leave Python's lock alone
            vectors = np.stack([*threads.map(step, vectors)])
        vectors, image, values = _ritz(matrix, vectors)
        advance()
        residuals = image[:num_pairs] - vectors[:num_pairs] * values[:num_pairs, None]
        if np.linalg.norm(residuals, axis=1).max() <= _TOLERANCE:
            break
        cut = values[-1]
    return values[:num_pairs], _signed(vectors[:num_pairs].T)


def _ritz(matrix: Any, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvectors within the span of some rows, what A makes of them, and their eigenvalues."""
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sizes, axes = np.linalg.eigh(vectors @ vectors.T)
    is_sound = sizes > 1e-10 * sizes[-1]  # the others are rounding
    vectors = (axes[:, is_sound] / np.sqrt(sizes[is_sound])).T @ vectors
    image = np.stack([matrix @ vector for vector in vectors])
    within = vectors @ image.T
    values, rotation = np.linalg.eigh((within + within.T) / 2)
    return rotation.T[::-1] @ vectors, rotation.T[::-1] @ image, values[::-1]


def _filtered(matrix: Any, vector: np.ndarray, *, cut: float, degree: int) -> np.ndarray:
    """`T(A) v`: the Chebyshev polynomial of a degree, on [-1, cut], divided by its value at 1."""
    centre, half = (cut - 1) / 2, (cut + 1) / 2
    first = scale = half / (1 - centre)
    before, now = vector, (matrix @ vector - centre * vector) * (first / half)
    for _ in range(degree - 1):
        following = 1 / (2 / first - scale)
        product = matrix @ now
        product -= centre * now
        product *= 2 * following / half
        before = product - (scale * following) * before
        before, now, scale = now, before, following
    return now


def _signed(vectors: np.ndarray) -> np.ndarray:
    """An eigenvector's sign is arbitrary: the entry of largest magnitude becomes positive."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1, 1)
