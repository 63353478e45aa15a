"""Features that know where the pool is dense: `graph_features`."""

import hashlib
from typing import Any, overload

import numpy as np
from jaxtyping import Float, Int

from bbald_jax.extras import import_extra
from bbald_jax.learning.eigenvectors import largest_eigenpairs
from bbald_jax.learning.neighbours import Neighbours
from bbald_jax.learning.progress import progress
from bbald_jax.validation import as_numpy, assert_positive

#: The eigenvalue, counted from the last one that is zero, below which eigenvectors count in full.
_KNEE = 10
#: No smaller than this: where the graph nearly falls into more parts than that, it would be zero.
_SMALLEST_TAU = 1e-4
#: Steps of an eigenvector that vary faster than the neighbours of an outside point can tell.
_SMALLEST_SHRINKAGE = 0.5
_TINY = np.finfo(np.float64).tiny


@overload
def graph_features(
    x: Any,
    outside: None = None,
    *,
    num_neighbours: int = 10,
    num_features: int = 100,
    seed: int = 0,
) -> Float[np.ndarray, "N D"]: ...
@overload
def graph_features(
    x: Any, outside: Any, *, num_neighbours: int = 10, num_features: int = 100, seed: int = 0
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]: ...
def graph_features(
    x: Any,
    outside: Any = None,
    *,
    num_neighbours: int = 10,
    num_features: int = 100,
    seed: int = 0,
) -> Any:
    """Spectral embedding of the pool's neighbour graph: points in one dense region are alike.

    With k neighbours of each point, w_ij = exp(-4 d_ij^2 / d_i^2) for those of i (d_i: the distance
    to the last of them) and 0 for others, and W = (w + w') / 2, degrees d = sum_j W_ij:

      I - D^-1/2 W D^-1/2 = V diag(lambda) V',  lambda in rising order from lambda_0 = 0
      phi_i = unit row of  V_ij d_i^-1/2 (lambda_j + tau)^-2,  j = 0 to D - 1
      tau = lambda_10, but at least 1e-4

    Where the graph falls into parts, lambda is 0 once for each, and tau is the tenth after the last
    of them; where there are more parts than D, V_ij d_i^-1/2 is random, one direction for each
    part. A point t outside has the same weights to its k nearest points of the pool (Nystroem):

      u_tj = sum_i w_ti V_ij d_i^-1/2 / (sum_i w_ti  max(1 - lambda_j, 1/2))

    Distances are between rows as they are given: first bring columns to one scale, and images to
    `image_features`. Points that are equal have equal features, and count once in the graph. What
    it is worth depends on the pool: few labels go far where classes are dense regions.

    Args:
      x: the pool, `[N, ...]`, flattened to rows; finite numbers.
      outside: `[M, ...]` with the same axes, or None; they do not change the features of the pool.
      num_neighbours: k; all other points, where there are fewer.
      num_features: D; as many as there are different points, where these are fewer.
      seed: of the search and of the eigenvectors: with it, the same features on one machine.

    Returns:
      `[N, D]` float32, rows of length 1; with `outside` that and `[M, D]`. Neighbours are exact up
      to 20,000 points (see `Neighbours`), eigenvectors to residuals of 1e-3 (see
      `largest_eigenpairs`). Memory beside that: 8 bytes a number in x, and 40 N (D + k).

    Raises:
      ValueError: NaN or infinite (it names the row), no points, axes that differ, sizes below 1.
      ModuleNotFoundError: faiss or scipy is missing; the message says what installs them.

    Source: Belkin and Niyogi, Using manifold structure for partially labelled classification
    (2002); powers of lambda + tau, as the scales of a Gaussian prior: Dunlop, Slepcev, Stuart,
    Thorpe, Large data and zero noise limits of graph-based semi-supervised learning algorithms
    (2018), arXiv 1805.09450; points outside: Bengio et al., Out-of-sample extensions for LLE,
    Isomap, MDS, eigenmaps, and spectral clustering (2003).
    """
    assert_positive(num_neighbours=num_neighbours, num_features=num_features)
    pool = _rows(x, "x")
    others = None if outside is None else _rows(outside, "outside")
    if others is not None and others.shape[1] != pool.shape[1]:
        raise ValueError(
            f"outside: {others.shape[1]} features a point, x has {pool.shape[1]}; "
            "both need the same axes"
        )
    # In units in which neither squares overflow nor differences are rounded away.
    with np.errstate(over="ignore", invalid="ignore"):
        centre = pool.mean(axis=0, dtype=np.float64).astype(pool.dtype)
        pool = pool - centre
    scale = np.abs(pool).max() or 1
    if not np.isfinite(scale):
        raise ValueError(f"x: numbers whose sum overflows {pool.dtype}; divide all by the largest")
    pool /= scale
    pool = pool.astype(np.float32, copy=False)
    pool += 0.0  # minus zero is zero
    points, place = _different(pool)
    with progress("steps", None) as advance:
        neighbours = Neighbours(points, seed=seed)
        adjacency, roots = _graph(neighbours, points, num_neighbours)
        advance()
        num_features = min(num_features, len(points))
        num_parts, part = _parts(adjacency)
        if num_parts > num_features:
            # All are solutions for lambda = 0 (and so is each part alone, but then D parts would
            # have features, and the others none).
            directions = np.random.default_rng(seed).normal(size=(num_parts, num_features))
            values, smooth = np.ones(num_features), directions[part]
        else:
            values, vectors = largest_eigenpairs(
                adjacency, num_features, seed=seed, advance=advance
            )
            smooth = vectors / roots[:, None]
        weights = _weights(values, num_parts)
        features = _unit(smooth * weights)[place].astype(np.float32)
        if others is None:
            return features
        others = ((others - centre) / scale).astype(np.float32, copy=False)
        try:
            indices, distances = neighbours.nearest(others, min(num_neighbours, len(points)))
        except ValueError as error:
            raise ValueError(f"outside: {error}") from error
        shares = _decayed(distances)
        shares /= shares.sum(axis=1, keepdims=True)
        near = np.zeros((len(others), num_features))
        for column in range(shares.shape[1]):
            near += shares[:, column, None] * smooth[indices[:, column]]
        return features, _unit(near / np.maximum(values, _SMALLEST_SHRINKAGE) * weights).astype(
            np.float32
        )


def _rows(values: Any, name: str) -> np.ndarray:
    """`[N, D]`, float32 or float64, finite."""
    array = as_numpy(values, name)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{name}: shape {array.shape}, expected [N, D] or [N, H, W, c], none 0")
    if array.dtype.kind not in "fbiu" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: dtype {array.dtype} does not hold real numbers; pass floats")
    rows = array.reshape(len(array), -1)
    is_small = np.result_type(rows, np.float32) == np.float32
    rows = rows.astype(np.float32 if is_small else np.float64, copy=False)
    # One sum a row instead of a mask of the whole: NaN and infinity stay in it.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(rows.sum(axis=1, dtype=np.float64)))
    for row in suspects:
        if not np.isfinite(rows[row]).all():
            raise ValueError(f"{name}[{row}]: NaN or infinite; mend the point, or leave it out")
    return rows


def _different(rows: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, "N"]]:
    """The rows that differ, in the order in which they come, and which of them each row is."""
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    place = np.array([first.setdefault(digest, len(first)) for digest in digests])
    if len(first) == len(rows):
        return rows, place
    _, where = np.unique(place, return_index=True)
    return rows[where], place


def _graph(
    neighbours: Neighbours, points: np.ndarray, num_neighbours: int
) -> tuple[Any, Float[np.ndarray, "N"]]:
    """`D^-1/2 W D^-1/2`, sparse `[N, N]`, and the roots of the degrees."""
    sparse = import_extra("scipy.sparse", extra="features", user="bb.graph_features")
    num_points = len(points)
    if num_points == 1:
        return sparse.csr_matrix(np.ones((1, 1))), np.ones(1)
    # One more, for a point itself: it may not be the first, or among near-copies not be there.
    k = min(num_neighbours, num_points - 1)
    indices, distances = neighbours.nearest(points, k + 1)
    is_other = indices != np.arange(num_points)[:, None]
    is_other[is_other.all(axis=1), -1] = False
    indices, distances = indices[is_other], distances[is_other].reshape(num_points, k)
    starts = np.arange(num_points + 1) * k
    weights = sparse.csr_matrix(
        (_decayed(distances).ravel(), indices, starts), shape=(num_points, num_points)
    )
    weights = (weights + weights.T) / 2
    roots = np.sqrt(np.asarray(weights.sum(axis=1)).ravel())
    inverse = sparse.diags_array(1 / roots)
    return sparse.csr_matrix(inverse @ weights @ inverse), roots


def _decayed(distances: Float[np.ndarray, "M k"]) -> Float[np.ndarray, "M k"]:
    """Weights of squared distances, the last of which is the largest: from 1 down to e^-4."""
    return np.exp(-4 * distances / np.maximum(distances[:, -1:], _TINY))


def _parts(adjacency: Any) -> tuple[int, Int[np.ndarray, "N"]]:
    """How many parts the graph falls into, and which of them each point is in."""
    csgraph = import_extra("scipy.sparse.csgraph", extra="features", user="bb.graph_features")
    return csgraph.connected_components(adjacency, directed=False)


def _weights(values: Float[np.ndarray, "D"], num_parts: int) -> Float[np.ndarray, "D"]:
    """`(lambda_j + tau)^-2`, of eigenvalues 1 - lambda_j."""
    eigenvalues = np.maximum(1 - values, 0)
    knee = min(num_parts + _KNEE, len(values)) - 1
    return (eigenvalues + max(eigenvalues[knee], _SMALLEST_TAU)) ** -2


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
