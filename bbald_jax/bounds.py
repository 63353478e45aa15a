"""Upper bounds on gains, from configurations merged into groups.

The gain is an average of mutual informations, and mutual information is concave in the weights
over the K samples. So when the nodes of a group g are replaced by their average,

    V[g] = sum_{m in g} v[m],      W[g, :] = sum_{m in g} v[m] w[m, :] / V[g],

Jensen's inequality gives, for every point n,

    sum_{m in g} v[m] I[y_n; w | w[m]]  <=  V[g] I[y_n; w | W[g]].

The gain on the merged tree bounds the gain on the tree, at G/M of the cost. What is lost is at most
`sum_m v[m] KL(w[m] || W[g])` (data processing), so groups are formed to make that small.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bbald_jax.configurations import Configurations, root
from bbald_jax.entropy import plogp

# Rows that are assigned to groups at a time: [rows, G] similarities are held.
_TILE_ROWS = 512
_FRACTIONS = (4, 12, 40, 160)
_SMALL = 256


def ladder(tree: Configurations) -> list[Configurations]:
    """Ever coarser versions of `tree`, finest first, each merged from the one before.

    On an unsaturated pool the coarsest level rules out most points and the next nearly all, on a
    saturated one the two finest do. Empty where the tree is so
    small that bounds would cost more than they save.
    """
    capacity = tree.masses.shape[0]
    levels = []
    for fraction in _FRACTIONS if capacity > _SMALL else ():
        levels.append(merge(levels[-1] if levels else tree, capacity // fraction))
    return levels


def merge(tree: Configurations, num_groups: int) -> Configurations:
    """Average similar nodes into at most G groups; a tree that fits is returned as it is.

    Pivots stand at equal quantiles of `cumsum(v H(w))`, so that the groups share the remaining
    entropy evenly. Every node joins the pivot with the largest Bhattacharyya coefficient,
    `sum_k sqrt(w[m,k] w[pivot,k])` (a pivot may have zeros), and then, once, the group with the
    smallest `KL(w[m] || W[g])`, the measure of what merging loses. Without that second step a node
    of little mass can share a group with a nearly settled one of much mass, and lose all.

    Args:
      tree: M nodes.
      num_groups: G (static).

    Returns:
      A tree of capacity G. Its gains are upper bounds on those of `tree`.
    """
    if tree.masses.shape[0] <= num_groups:
        return tree

    def grouped() -> Configurations:
        priority = jnp.cumsum(tree.masses * tree.entropies)
        quantiles = (jnp.arange(num_groups) + 0.5) / num_groups * priority[-1]
        pivots = jnp.clip(jnp.searchsorted(priority, quantiles), 0, tree.size - 1)
        pivot_roots = jnp.exp(tree.log_weights[pivots] / 2)

        def regroup(i, state):
            directions, _ = state
            # First by sqrt(w), then by w itself: KL(w || W) = sum_k w log w - sum_k w log W is
            # least where the second sum is largest.
            groups = _group(tree, jnp.where(i == 0, 0.5, 1.0), directions)
            return jnp.maximum(groups.log_weights, _FLOOR), groups

        nothing = root(tree.log_weights.shape[1], num_groups, tree.masses.dtype)
        return lax.fori_loop(
            0, 2, regroup, (pivot_roots, nothing._replace(is_exact=tree.is_exact))
        )[1]

    def as_it_is() -> Configurations:
        return Configurations(
            *(leaf[:num_groups] for leaf in tree[:3]), size=tree.size, is_exact=tree.is_exact
        )

    return lax.cond(tree.size <= num_groups, as_it_is, grouped)


# log W of a group without any weight on sample k: finite, so that 0 * log W is 0.
_FLOOR = -60.0


def _group(
    tree: Configurations, power: Float[Array, ""], directions: Float[Array, "G K"]
) -> Configurations:
    """Average the nodes that share `argmax_g sum_k w[m,k]^power directions[g,k]`."""
    capacity, num_samples = tree.log_weights.shape
    num_groups = directions.shape[0]
    tile = min(capacity, _TILE_ROWS)

    def add_tile(i, sums):
        start = jnp.minimum(i * tile, capacity - tile)
        is_new = start + jnp.arange(tile) >= i * tile
        log_weights = lax.dynamic_slice_in_dim(tree.log_weights, start, tile)
        masses = jnp.where(is_new, lax.dynamic_slice_in_dim(tree.masses, start, tile), 0)
        likeness = jnp.exp(power * log_weights) @ directions.T
        # An argmax, in two reductions that a CPU can vectorise.
        is_best = likeness >= jnp.max(likeness, axis=-1, keepdims=True)
        groups = jnp.min(jnp.where(is_best, jnp.arange(num_groups), num_groups - 1), axis=-1)
        return sums.at[groups].add(masses[:, None] * jnp.exp(log_weights))

    nothing = jnp.zeros((num_groups, num_samples), directions.dtype)
    sums = lax.fori_loop(0, -(-tree.size // tile), add_tile, nothing)
    masses = jnp.sum(sums, axis=-1)
    # The groups that have members come first, so that the others cost nothing.
    size = jnp.sum(masses > 0).astype(jnp.int32)
    members = jnp.nonzero(masses > 0, size=num_groups, fill_value=0)[0]
    in_use = jnp.arange(num_groups) < size
    masses = jnp.where(in_use, masses[members], 0)
    weights = jnp.where(in_use[:, None], sums[members] / masses[:, None], 1 / num_samples)
    log_weights = jnp.log(weights)
    entropies = jnp.where(in_use, -jnp.sum(plogp(log_weights), axis=-1), 0)
    return Configurations(log_weights, masses, entropies, size, tree.is_exact)
