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
from bbald_jax.masks import count
from bbald_jax.tiling import tiling

#: With this capacity or less, bounds cost more than they save.
SMALL = 256

#: The coarsest level has M / 160 nodes at most.
COARSEST = 160
#: Of M, how large each level is at most, in the order in which they are made.
FRACTIONS = (COARSEST, 4, 12, 40)
# Nodes are compared with all of the coarsest groups, up to so many; once they stand in the order of
# those, with as many of the nearest pivots, and no fewer than the least.
_LEAST_WINDOW, _MOST_WINDOW = 64, 256
# log W of a group without any weight on sample k: finite, so that 0 * log W is 0.
_FLOOR = -60.0


def ladder(tree: Configurations) -> Configurations:
    """Ever coarser versions of a tree of M nodes: M / 4, M / 12, M / 40 and M / 160 at most.

    All are made by one loop, and so in arrays of one size: compiled once.

    Args:
      tree: of a capacity above `SMALL`.

    Returns:
      The levels, stacked along a new first axis: the coarsest, then the others, finest first.
    """
    capacity = tree.masses.shape[0]
    sizes = [capacity // fraction for fraction in FRACTIONS]
    most = max(sizes)

    def add_level(level: Configurations, step):
        number, num_groups = step
        merged, groups = merge(level, num_groups, capacity=most)

        def sort() -> Configurations:
            """In the order of the coarsest groups like stands beside like: none looks far."""
            order = jnp.argsort(jnp.where(jnp.arange(capacity) < tree.size, groups, capacity))
            return level._replace(
                weights=level.weights[order],
                masses=level.masses[order],
                entropies=level.entropies[order],
            )

        def replace() -> Configurations:
            """Written over the nodes it was made of, so that the next level reads from there."""
            return Configurations(
                weights=level.weights.at[:most].set(merged.weights),
                masses=jnp.zeros_like(level.masses).at[:most].set(merged.masses),
                entropies=jnp.zeros_like(level.entropies).at[:most].set(merged.entropies),
                mean=merged.mean,
                size=merged.size,
                is_exact=merged.is_exact,
            )

        return lax.cond(number == 0, sort, replace), merged

    return lax.scan(add_level, tree, (jnp.arange(len(sizes)), jnp.asarray(sizes, jnp.int32)))[1]


def merge(
    tree: Configurations, num_groups: int | Int[Array, ""], *, capacity: int | None = None
) -> tuple[Configurations, Int[Array, "M"]]:
    """Average similar nodes into at most G groups.

    Args:
      tree: M nodes. Beyond `_LEAST_WINDOW` groups, nodes that are alike must stand near each other.
      num_groups: G, less than M.
      capacity: of the result (static), at least G; G itself by default, which is static then.

    Returns:
      A tree whose gains are upper bounds on those of `tree`, and the group of every node. Nodes
      that fit are kept as they are.
    """
    if capacity is None:
        capacity = int(num_groups)
    priority = jnp.cumsum(tree.masses * tree.entropies)
    # How many quantiles lie below, as they are evenly spaced.
    passed = jnp.ceil(priority / priority[-1] * num_groups - 0.5)
    passed = jnp.clip(jnp.nan_to_num(passed), 0, num_groups).astype(jnp.int32)
    homes = jnp.minimum(passed, num_groups - 1)
    # A node is the pivot of the first quantile that it passes; of any others nobody is, which
    # attract nobody, as copies of it that stand later would not.
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), passed[:-1]])
    nodes = jnp.arange(priority.size, dtype=jnp.int32)
    pivots = jnp.full(capacity, priority.size, jnp.int32)
    pivots = pivots.at[jnp.where(passed > before, before, capacity)].min(nodes, mode="drop")

    def assign_again(i, state):
        """First by pivot, then by the average of those that joined it."""
        directions, _, _, _ = state
        groups, masses, weights = _assign(tree, directions, homes, num_groups, is_first=i == 0)
        # KL(w || W) = sum_k w log w - sum_k w log W is least where the second sum is largest.
        return jnp.maximum(jnp.log(weights), _FLOOR), groups, masses, weights

    pivot_weights = tree.weights.at[pivots].get(mode="fill", fill_value=0)
    start = (
        jnp.sqrt(pivot_weights),
        jnp.zeros(tree.masses.size, jnp.int32),
        jnp.zeros(capacity, tree.masses.dtype),
        pivot_weights,
    )
    _, groups, masses, weights = lax.fori_loop(0, 2, assign_again, start)

    # The groups that have members come first, so that the others cost nothing.
    in_use = masses > 0
    size = count(in_use)
    # A sort takes less to compile than a cumulative sum. What stands after the members weighs zero.
    members = jnp.sort(jnp.where(in_use, jnp.arange(capacity, dtype=jnp.int32), capacity - 1))
    in_use = jnp.arange(capacity) < size
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


def _assign(
    tree: Configurations,
    directions: Float[Array, "G K"],
    homes: Int[Array, "M"],
    num_groups: int | Int[Array, ""],
    *,
    is_first: Array,
) -> tuple[Int[Array, "M"], Float[Array, "G"], Float[Array, "G K"]]:
    """Every node joins a group; then masses V[g] and weights W[g] of the groups.

    The group is `argmax_g sum_k features[m,k] directions[g,k]`, over a window of groups about the
    home, with the nodes' weights for features, or their square roots the first time. A group
    without members is uniform, a home for stragglers.
    """
    capacity, num_samples = tree.weights.shape
    most_groups = directions.shape[0]
    tile = min(capacity, tiling().rows)
    window = min(most_groups, max(_LEAST_WINDOW, min(_MOST_WINDOW, capacity // COARSEST)))
    # Where all nodes fit, each is a group of its own (the last time: the groups must be those).
    keeps_all = (tree.size <= num_groups) & ~is_first

    def assign_tile(i, state):
        groups, sums = state
        start = jnp.minimum(i * tile, capacity - tile)
        rows = start + jnp.arange(tile)
        weights = lax.dynamic_slice_in_dim(tree.weights, start, tile)
        middle = (homes[start] + homes[start + tile - 1]) // 2
        first = jnp.clip(middle - window // 2, 0, jnp.maximum(num_groups - window, 0))
        near = lax.dynamic_slice_in_dim(directions, first, window)
        likeness = near @ jnp.where(is_first, jnp.sqrt(weights), weights).T
        is_group = first + jnp.arange(window) < num_groups
        likeness = jnp.where(is_group[:, None], likeness, -jnp.inf)
        # An argmax, in two reductions that a CPU can vectorise (over the first axis).
        is_best = likeness >= jnp.max(likeness, axis=0)
        nearest = first + jnp.min(jnp.where(is_best, jnp.arange(window)[:, None], window), axis=0)
        nearest = jnp.where(keeps_all, rows, jnp.minimum(nearest, num_groups - 1))
        # The last tile is moved back to end with the array; what it repeats is counted once.
        masses = jnp.where(rows >= i * tile, lax.dynamic_slice_in_dim(tree.masses, start, tile), 0)
        return (
            # int64 under jax_enable_x64
            lax.dynamic_update_slice_in_dim(groups, nearest.astype(groups.dtype), start, 0),
            sums.at[nearest].add(masses[:, None] * weights, mode="drop"),
        )

    num_tiles = -(-tree.size // tile)
    start = (
        jnp.zeros(capacity, jnp.int32),
        jnp.zeros((most_groups, num_samples), tree.weights.dtype),
    )
    groups, sums = lax.fori_loop(0, num_tiles, assign_tile, start)
    masses = jnp.sum(sums, axis=-1)
    weights = sums / jnp.where(masses > 0, masses, 1)[:, None]
    return groups, masses, jnp.where((masses > 0)[:, None], weights, 1 / num_samples)
