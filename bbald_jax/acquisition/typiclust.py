"""TypiClust: the most typical point of each cluster that has no label yet."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from bbald_jax.acquisition.clusters import centred, finite_features, kmeans, squared_distances
from bbald_jax.acquisition.greedy import greedy
from bbald_jax.acquisition.top import first_mentions
from bbald_jax.typing import Available, CandidateBatch, Key, Pending
from bbald_jax.validation import assert_available, assert_labelled, assert_positive

# As in the paper.
_NEIGHBOURS = 20
_MOST_CLUSTERS = 500
_LEAST_MEMBERS = 5
# Of the points' root mean square length, added to a mean distance: copies are not infinitely
# typical.
_LEAST_DISTANCE = 1e-5
# Points that look for neighbours together, and points that are looked at together.
_ROWS, _COLUMNS = 128, 512


@partial(jax.jit, static_argnames="batch_size")
def select_typiclust(
    key: Key,
    features: Num[Array, "N D"],
    *,
    batch_size: int,
    labelled: Bool[Array, "N"] | None = None,
    available: Available | None = None,
    pending: Pending | None = None,
) -> CandidateBatch:
    """B points, each the most typical of the largest cluster without a label.

    typicality(n) = 1 / mean_j |x_n - x_j|    over its 20 nearest neighbours j in its cluster

    (half of the cluster, where that is less). k-means makes one cluster for each point that is
    labelled, pending or asked for, at most 500. The next cluster is always the one with the fewest
    labelled, pending or chosen points, the largest of these; clusters of fewer than 5 points come
    last.

    Args:
      key: draws the seeds of k-means, and draws among points that are typical within 1e-6.
      features: `[N, D]`; the distance is Euclidean, so their scale matters.
      batch_size: B, at least 1 (static); it may exceed N.
      labelled: `[N]` bool, points whose label is known; none by default.
      available: `[N]` bool, the points to choose from, of those that are not labelled; all of them
        by default. The others are clustered too.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        They are not returned.

    Returns:
      B slots, in order of acquisition; `gains` are the typicalities, in one over the unit of the
      features, `scores` their running sums. Points with a NaN are left out and counted in
      `diagnostics.num_invalid`. Memory beside the input: 3 N D + 70 N floats. Time: O(N L D) a step
      of k-means in L clusters, of which there are at most 30, and O(N m D) for the neighbours in
      clusters of m points.

    Raises:
      ValueError: `batch_size` below 1, or arrays whose shapes do not fit (at trace time).

    Source: Hacohen et al. (2022), arXiv 2202.02794. There a typicality is of those that are not
    chosen yet, and clusters are gone through in a fixed order: the same batch, as long as there
    are clusters without a label.
    """
    assert_positive(batch_size=batch_size)
    x, is_invalid = finite_features(features)
    x, num_points = centred(x, is_invalid), len(x)
    is_covered = assert_labelled(labelled, num_points)
    if pending is not None and pending.size:
        places = jnp.where(first_mentions(pending, num_points), pending, num_points)
        is_covered = is_covered.at[places].set(True, mode="drop")
    is_covered &= ~is_invalid

    capacity = min(_MOST_CLUSTERS, num_points)
    count = jnp.minimum(jnp.sum(is_covered) + batch_size, jnp.sum(~is_invalid))
    kmeans_key, tie_key = jax.random.split(key)
    clusters, centres = kmeans(
        kmeans_key, x, ~is_invalid, jnp.minimum(count, capacity), capacity=capacity
    )
    offsets = x - centres[jnp.minimum(clusters, capacity - 1)]
    typicality = _typicality(offsets, clusters, capacity, jnp.sqrt(jnp.mean(jnp.sum(x**2, axis=1))))

    def num_members(mask: Bool[Array, "N"]) -> Int[Array, "L"]:
        count = jnp.zeros(capacity, jnp.int32)
        return count.at[clusters].add(mask.astype(jnp.int32), mode="drop")

    sizes = num_members(~is_invalid)

    def gains_of(num_covered: Int[Array, "L"], available: Available):
        """The typicality of points in the next cluster; minus infinity in the others."""
        is_next = num_members(available) > 0
        # Each rule among those that the one before it leaves.
        for costs in (sizes < _LEAST_MEMBERS, num_covered, -sizes):
            costs = costs.astype(jnp.int32)
            is_next &= costs == jnp.min(jnp.where(is_next, costs, num_points))
        is_in_it = jnp.append(is_next, False)[clusters]
        return jnp.where(is_in_it, typicality, -jnp.inf), num_covered

    def cover(num_covered: Int[Array, "L"], index: Int[Array, ""], is_found: Bool[Array, ""]):
        return num_covered.at[clusters[index]].add(is_found.astype(jnp.int32), mode="drop")

    return greedy(
        num_members(is_covered),
        gains_of,
        cover,
        batch_size=batch_size,
        available=assert_available(available, num_points) & ~is_covered,
        pending=None,  # covered from the start
        is_invalid=is_invalid,
        is_exact=True,
        key=tie_key,
    )


def _typicality(
    offsets: Float[Array, "N D"],
    clusters: Int[Array, "N"],
    num_clusters: int,
    length: Float[Array, ""],
) -> Float[Array, "N"]:
    """`1 / (mean distance + 1e-5 length)` to the nearest neighbours in a cluster.

    Points are sorted by cluster, and each block of them looks through its clusters alone.

    Args:
      offsets: `[N, D]`, from the centre of each point's cluster: distances within a cluster, where
        all others are huge, are less of a difference between large numbers.
      clusters: `[N]`, `num_clusters` for points without one.
      num_clusters: L.
      length: of a point, as a unit.
    """
    num_points = len(clusters)
    order = jnp.argsort(clusters)
    padding = (0, -num_points % _ROWS + _COLUMNS)
    sorted_clusters = jnp.pad(clusters[order], padding, constant_values=num_clusters)
    points = jnp.pad(offsets[order], (padding, (0, 0)))
    sizes = jnp.zeros(num_clusters + 1, jnp.int32).at[clusters].add(1)
    ends = jnp.cumsum(sizes)
    starts = ends - sizes

    def look(first_row: Int[Array, ""]) -> Float[Array, "R"]:
        rows = first_row + jnp.arange(_ROWS)
        own = sorted_clusters[rows]
        block = lax.dynamic_slice_in_dim(points, first_row, _ROWS)
        first = starts[own[0]]
        # Points without a cluster, at the end, look for nothing.
        last = jnp.max(jnp.where(own < num_clusters, ends[own], 0))

        def join(i: Int[Array, ""], least: Float[Array, "R 20"]) -> Float[Array, "R 20"]:
            start = first + i * _COLUMNS
            columns = start + jnp.arange(_COLUMNS)
            # Beyond the end, a slice would begin earlier than it says.
            others = lax.dynamic_slice_in_dim(points, start, _COLUMNS)
            their = lax.dynamic_slice_in_dim(sorted_clusters, start, _COLUMNS)
            is_other = (own[:, None] == their) & (rows[:, None] != columns)
            distances = jnp.where(is_other, squared_distances(block, others), jnp.inf)
            both = jnp.concatenate([least, distances], axis=1)
            return -lax.top_k(-both, _NEIGHBOURS)[0]

        nothing = jnp.full((_ROWS, _NEIGHBOURS), jnp.inf, points.dtype)
        num_blocks = -(-jnp.maximum(last - first, 0) // _COLUMNS)
        least = jnp.sqrt(lax.fori_loop(0, num_blocks, join, nothing))
        num_neighbours = jnp.clip(sizes[own] // 2, 1, _NEIGHBOURS)[:, None]
        is_near = (jnp.arange(_NEIGHBOURS) < num_neighbours) & jnp.isfinite(least)
        mean = jnp.sum(jnp.where(is_near, least, 0), axis=1) / num_neighbours[:, 0]
        return jnp.where(jnp.any(is_near, axis=1), mean, jnp.inf)

    means = lax.map(look, jnp.arange(0, num_points, _ROWS)).ravel()[:num_points]
    # A point that is alone in its cluster has no neighbour, and no typicality.
    least = jnp.where(length > 0, _LEAST_DISTANCE * length, 1)
    return jnp.zeros(num_points, means.dtype).at[order].set(1 / (means + least))
