"""Nearest neighbours among many points: `Neighbours`."""

import math

import numpy as np
from jaxtyping import Float, Int

from bbald_jax.extras import import_extra

#: Up to so many points every distance is computed.
_MOST_EXACT = 20_000
#: Beyond, so many of the lists that are nearest to a point are searched.
_NUM_PROBES = 16


class Neighbours:
    """The points among which neighbours are searched, by Euclidean distance.

    Up to 20,000 points the search is exact. Beyond, the points are put into sqrt(N) lists, by the
    nearest of as many centres (k-means), and the 16 lists nearest to a point are searched, which
    misses few of the nearest.

    Args:
      points: `[N, D]`, float32, finite.
      seed: of the centres; with it, the same neighbours on every run.

    Source: Douze et al., The Faiss library (2024), arXiv 2401.08281: `IndexFlatL2`, `IndexIVFFlat`.
    """

    def __init__(self, points: Float[np.ndarray, "N D"], *, seed: int):
        self._faiss = import_extra("faiss", extra="features", user="the search for neighbours")
        self._points = points
        num_points, num_features = points.shape
        self._index = self._faiss.IndexFlatL2(num_features)
        if num_points > _MOST_EXACT:
            num_lists = math.isqrt(num_points)
            index = self._faiss.IndexIVFFlat(self._index, num_features, num_lists)
            index.cp.seed, index.nprobe = seed, _NUM_PROBES
            index.train(points)
            self._index, self._centres = index, self._index  # else the centres would be freed
        self._index.add(points)

    def nearest(
        self, queries: Float[np.ndarray, "M D"], num_neighbours: int
    ) -> tuple[Int[np.ndarray, "M k"], Float[np.ndarray, "M k"]]:
        """The nearest points of each query, and their squared distances, from the nearest on.

        Args:
          queries: `[M, D]`, float32, finite.
          num_neighbours: k, at most N.

        Returns:
          `[M, k]` indices of points, and `[M, k]` squared distances, float64: computed anew from
          the differences, as those of the search are rounded to zero for near-copies.

        Raises:
          ValueError: a query so far away that its distances overflow.
        """
        _, indices = self._index.search(queries, num_neighbours)
        # The lists searched may hold fewer than k points.
        if (is_short := (indices < 0).any(axis=1)).any():
            exact = self._faiss.IndexFlatL2(queries.shape[1])
            exact.add(self._points)
            _, indices[is_short] = exact.search(queries[is_short], num_neighbours)
        if (indices < 0).any():
            row = int((indices < 0).any(axis=1).argmax())
            raise ValueError(f"row {row} is too far from all points; scale it as they are scaled")
        distances = np.empty(indices.shape)
        for column in range(num_neighbours):  # [M, k, D] would be k copies of the queries
            differences = queries - self._points[indices[:, column]]
            np.einsum(
                "md,md->m", differences, differences, dtype=np.float64, out=distances[:, column]
            )
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
