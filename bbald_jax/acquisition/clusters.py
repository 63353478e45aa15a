"""Distances between rows of features, and k-means: what the baselines on features stand on."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from bbald_jax.typing import Key

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)

# Squared distances below this share of the squared lengths are rounding.
ROUNDING = 1e-6
# Centres that are compared with all points at a time: [N, 64] distances.
_BLOCK = 64
# Steps of k-means at most: what a later one moves decides nothing here.
_STEPS = 30


def finite_features(
    features: Num[Array, "N D"],
) -> tuple[Float[Array, "N D"], Bool[Array, "N"]]:
    """Features, with rows of zeros for points that have none; and which points these are.

    A point has no features where one is NaN, or the square of its length no number.

    Raises:
      ValueError: another shape than `[N, D]` (at trace time).
    """
    shape = jnp.shape(features)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"features: shape {shape} is not [N, D], a row a point; pass x.reshape(len(x), -1)"
        )
    x = jnp.asarray(features)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    is_invalid = ~jnp.isfinite(jnp.sum(x**2, axis=1))
    return jnp.where(is_invalid[:, None], 0, x), is_invalid


def centred(x: Float[Array, "N D"], is_invalid: Bool[Array, "N"]) -> Float[Array, "N D"]:
    """Less the mean of the valid points, and 0 for the others.

    Distances do not depend on it, and are less of a difference between large numbers.
    """
    mean = jnp.sum(x, axis=0) / jnp.maximum(jnp.sum(~is_invalid), 1)
    return jnp.where(is_invalid[:, None], 0, x - mean)


def squared_distances(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
    """`|x|^2 + |y|^2 - 2 x.y`; 0 where that is rounding."""
    lengths = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)
    distances = lengths - 2 * matmul(x, y.T)
    return jnp.where(distances > ROUNDING * lengths, distances, 0)


def nearest(
    points: Float[Array, "N D"],
    centres: Float[Array, "M D"],
    order: Int[Array, "L"],
    count: Int[Array, ""],
) -> tuple[Float[Array, "N"], Int[Array, "N"]]:
    """The squared distance to the nearest of `centres[order[:count]]`, and its place in `order`.

    Infinity and 0 where there is none. Memory beside the input: 64 N floats.
    """
    order = jnp.pad(order, (0, -order.size % _BLOCK))

    def look(i: Int[Array, ""], found):
        least, index = found
        places = i * _BLOCK + jnp.arange(_BLOCK)
        distances = squared_distances(points, centres[order[places]])
        distances = jnp.where(places < count, distances, jnp.inf)
        here = jnp.min(distances, axis=1)
        # Not argmin, which is several times slower on a CPU.
        first = jnp.min(jnp.where(distances <= here[:, None], places, order.size), axis=1)
        return jnp.minimum(here, least), jnp.where(here < least, first, index).astype(jnp.int32)

    num_points = points.shape[0]
    start = jnp.full(num_points, jnp.inf, points.dtype), jnp.zeros(num_points, jnp.int32)
    return lax.fori_loop(0, -(-count // _BLOCK), look, start)


def draw_far(key: Key, squared: Float[Array, "N"], available: Bool[Array, "N"]) -> Int[Array, ""]:
    """An available point with a probability proportional to its squared distance.

    Uniformly where all distances are 0; 0 where no point is available.

    Source: k-means++, Arthur and Vassilvitskii (2007).
    """
    is_far = jnp.any(available & (squared > 0))
    logits = jnp.where(is_far, jnp.log(squared), 0)
    logits = jnp.where(available, logits, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def kmeans(
    key: Key,
    points: Float[Array, "N D"],
    is_valid: Bool[Array, "N"],
    count: Int[Array, ""],
    *,
    capacity: int,
) -> tuple[Int[Array, "N"], Float[Array, "M D"]]:
    """k-means from k-means++: seeds that are drawn far apart, then Lloyd's steps, at most 30.

    Args:
      key: draws the seeds.
      points: `[N, D]`.
      is_valid: `[N]`, the points that are clustered.
      count: `[]`, clusters, at most `capacity`.
      capacity: M (static).

    Returns:
      `[N]`, the cluster of each point, M where it is not valid; and `[M, D]`, the centres, of
      which `count` mean something. Each point is in the cluster of the nearest centre, and unless
      30 steps were too few, each centre is its cluster's mean. Memory beside the input: 64 N + M D
      floats. Time: O(N M D) a step.

    Source: Lloyd (1982); Arthur and Vassilvitskii (2007).
    """
    order = jnp.arange(capacity + -capacity % _BLOCK)  # whole blocks

    def seed(i: Int[Array, ""], found):
        squared, centres = found
        index = draw_far(jax.random.fold_in(key, i), squared, is_valid)
        distances = jnp.sum((points - points[index]) ** 2, axis=1)
        return jnp.minimum(squared, distances), centres.at[i].set(points[index])

    # With equal distances the first one is drawn uniformly.
    largest = jnp.full(len(points), jnp.finfo(points.dtype).max)
    centres = jnp.zeros((order.size, points.shape[1]), points.dtype)
    _, centres = lax.fori_loop(0, count, seed, (largest, centres))

    def assign(centres: Float[Array, "M D"]) -> Int[Array, "N"]:
        return jnp.where(is_valid, nearest(points, centres, order, count)[1], capacity)

    def move(centres: Float[Array, "M D"], clusters: Int[Array, "N"]) -> Float[Array, "M D"]:
        def to_mean(i: Int[Array, ""], centres: Float[Array, "M D"]):
            start = i * _BLOCK
            is_member = (clusters[:, None] == start + jnp.arange(_BLOCK)).astype(points.dtype)
            sizes = jnp.sum(is_member, axis=0)[:, None]
            old = lax.dynamic_slice_in_dim(centres, start, _BLOCK)
            means = matmul(is_member.T, points) / jnp.maximum(sizes, 1)
            moved = jnp.where(sizes > 0, means, old)
            return lax.dynamic_update_slice_in_dim(centres, moved, start, axis=0)

        return lax.fori_loop(0, -(-count // _BLOCK), to_mean, centres)

    def step(state):
        centres, clusters, _, i = state
        centres = move(centres, clusters)
        moved = assign(centres)
        return centres, moved, jnp.any(moved != clusters), i + 1

    start = (centres, assign(centres), jnp.asarray(True), jnp.int32(0))
    centres, clusters, *_ = lax.while_loop(lambda s: s[2] & (s[3] < _STEPS), step, start)
    return clusters, centres[:capacity]
