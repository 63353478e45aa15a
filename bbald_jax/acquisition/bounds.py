"""Upper bounds on gains, from configurations merged into groups.

The gain is an average of mutual informations, and mutual information is concave in the weights
over the K samples. So when the nodes of a group g are replaced by their average,

    V[g] = sum_{m in g} v[m],      W[g, :] = sum_{m in g} v[m] w[m, :] / V[g],

Jensen's inequality gives, for every point n,

    sum_{m in g} v[m] I[y_n; w | w[m]]  <=  V[g] I[y_n; w | W[g]].

The gain on the merged tree bounds the gain on the tree, at G/M of the cost, however the groups are
formed. What is lost is at most `sum_m v[m] KL(w[m] || W[g])` (data processing), so they are formed
to make that small:

- *Pivots* stand at equal quantiles of `cumsum(v H(w))`, so that the groups share the remaining
  entropy evenly. Every node joins the pivot with the largest Bhattacharyya coefficient,
  `sum_k sqrt(w[m,k] w[pivot,k])` (a pivot may have zeros).
- Then, once, every node joins the group with the smallest `KL(w[m] || W[g])`, the measure of what
  merging loses. Without that a node of little mass can share a group with a nearly settled one of
  much mass, and lose all.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.information.configurations import Configurations
from bbald_jax.information.entropy import xlogx
from bbald_jax.tiling import tiling

#: With this capacity or less, bounds cost more than they save.
SMALL = 256

_COARSEST = 160
_FRACTIONS = (4, 12, 40)
# Nodes in the order of the coarsest groups are compared with this many of the nearest pivots.
_WINDOW = 256
# log W of a group without any weight on sample k: finite, so that 0 * log W is 0.
_FLOOR = -60.0


def ladder(tree: Configurations) -> list[Configurations]:
    """Ever coarser versions of `tree`, finest first.

    Each level is evaluated only for what the coarser ones have not ruled out.

    Args:
      tree: of a capacity above `SMALL`.
    """
    capacity = tree.masses.shape[0]
    coarsest, groups = merge(tree, capacity // _COARSEST)
    # In the order of the coarsest groups like stands beside like, so that a node need not look far.
    order = jnp.argsort(jnp.where(jnp.arange(capacity) < tree.size, groups, capacity))
    level = tree._replace(
        weights=tree.weights[order], masses=tree.masses[order], entropies=tree.entropies[order]
    )
    levels = []
    for fraction in _FRACTIONS:
        level, _ = merge(level, capacity // fraction)
        levels.append(level)
    return [*levels, coarsest]


def merge(tree: Configurations, num_groups: int) -> tuple[Configurations, Int[Array, "M"]]:
    """Average similar nodes into at most G groups.

    Args:
      tree: M nodes. Beyond `_WINDOW` groups, nodes that are alike must stand near each other.
      num_groups: G (static), less than M.

    Returns:
      A tree of capacity G, whose gains are upper bounds on those of `tree`, and the group of every
      node. Nodes that fit are kept as they are.
    """
    priority = jnp.cumsum(tree.masses * tree.entropies)
    quantiles = (jnp.arange(num_groups) + 0.5) / num_groups * priority[-1]
    pivots = jnp.clip(jnp.searchsorted(priority, quantiles), 0, tree.size - 1)
    homes = jnp.clip(jnp.searchsorted(quantiles, priority), 0, num_groups - 1)

    by_pivot = _nearest(tree, jnp.sqrt(tree.weights), jnp.sqrt(tree.weights[pivots]), homes)
    masses, weights = _averages(tree, by_pivot, num_groups)
    # KL(w || W) = sum_k w log w - sum_k w log W is least where the second sum is largest.
    by_average = _nearest(tree, tree.weights, jnp.maximum(jnp.log(weights), _FLOOR), homes)
    groups = jnp.where(tree.size <= num_groups, jnp.arange(tree.masses.size), by_average)
    masses, weights = _averages(tree, groups, num_groups)

    # The groups that have members come first, so that the others cost nothing.
    size = jnp.sum(masses > 0).astype(jnp.int32)
    members = jnp.nonzero(masses > 0, size=num_groups, fill_value=0)[0]
    in_use = jnp.arange(num_groups) < size
    weights = weights[members]
    merged = Configurations(
        weights=weights,
        masses=jnp.where(in_use, masses[members], 0),
        entropies=jnp.where(in_use, -jnp.sum(xlogx(weights), axis=-1), 0),
        mean=tree.mean,
        size=size,
        is_exact=tree.is_exact,
    )
    return merged, groups


def _nearest(
    tree: Configurations,
    features: Float[Array, "M K"],
    directions: Float[Array, "G K"],
    homes: Int[Array, "M"],
) -> Int[Array, "M"]:
    """`argmax_g sum_k features[m,k] directions[g,k]`, over a window of groups about the home."""
    capacity = features.shape[0]
    num_groups = directions.shape[0]
    tile = min(capacity, tiling().rows)
    window = min(num_groups, _WINDOW)

    def assign_tile(i, groups):
        start = jnp.minimum(i * tile, capacity - tile)
        middle = (homes[start] + homes[start + tile - 1]) // 2
        first = jnp.clip(middle - window // 2, 0, num_groups - window)
        near = lax.dynamic_slice_in_dim(directions, first, window)
        likeness = near @ lax.dynamic_slice_in_dim(features, start, tile).T
        # An argmax, in two reductions that a CPU can vectorise (over the first axis).
        is_best = likeness >= jnp.max(likeness, axis=0)
        best = jnp.min(jnp.where(is_best, jnp.arange(window)[:, None], window - 1), axis=0)
        best = (first + best).astype(groups.dtype)  # int64 under jax_enable_x64
        return lax.dynamic_update_slice_in_dim(groups, best, start, 0)

    num_tiles = -(-tree.size // tile)
    return lax.fori_loop(0, num_tiles, assign_tile, jnp.zeros(capacity, jnp.int32))


def _averages(
    tree: Configurations, groups: Int[Array, "M"], num_groups: int
) -> tuple[Float[Array, "G"], Float[Array, "G K"]]:
    """Masses V[g] and weights W[g]; uniform, a home for stragglers, where a group is empty."""
    num_samples = tree.weights.shape[-1]
    weighted = tree.masses[:, None] * tree.weights
    sums = jnp.zeros((num_groups, num_samples), weighted.dtype)
    sums = sums.at[groups].add(weighted, mode="drop")
    masses = jnp.sum(sums, axis=-1)
    weights = sums / jnp.where(masses > 0, masses, 1)[:, None]
    return masses, jnp.where((masses > 0)[:, None], weights, 1 / num_samples)
