"""Entropies of several labels at once: a weighted tree of class configurations.

A *configuration* m is one assignment of labels to the points chosen so far. It is kept as the
posterior that those labels would leave on the K samples, and as its own weight:

    w[m, k] = p(w_k | labels m)         each row normalised, kept in log space
    v[m]    = weight of m               its probability, while nothing has been left out

With `H(w[m])` the entropy of row m, the joint mutual information of the chosen points S is

    I[y_S; w] = log K - sum_m v[m] H(w[m])                  (prior entropy - expected posterior's)

never above log K, by construction. What one more point n would add is its mutual information
under each of those posteriors, averaged (the chain rule, I[y_S, y_n; w] - I[y_S; w]):

    gain(n) = sum_m v[m] ( H[ sum_k w[m,k] p(. | x_n, w_k) ] - sum_k w[m,k] H[ p(. | x_n, w_k) ] )

Adding a point gives every node C children: `q[m,c] = v[m] p(c | m)` and `w' ~ w p(c | w_k)`.
While they fit in the capacity M all are kept, and every number is exact for the K samples.
Beyond that they are thinned, and every number is an unbiased Monte-Carlo estimate; see `_thin`.

Source of the joint scores: Kirsch, van Amersfoort, Gal (2019), section 3.2; of the thinning:
Fearnhead and Clifford (2003), "On-line inference for hidden Markov models via particle filters".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.entropy import plogp, xlogx
from bbald_jax.typing import Key, LogProbs

#: A node with less remaining entropy, nats, is settled: gains are not computed any better, and its
#: mass, when it survives a thinning with what little priority it has, would magnify their rounding.
SETTLED = 1e-6

# Sizes of the tiles of work, in array elements, chosen so that a tile stays in the cache of one
# CPU core (the gain of a tile of 1024 configurations x 640 outcomes: 2.6 MB in float32).
_TILE_CONFIGURATIONS = 1024
_TILE_OUTCOMES = 640
_TILE_CHILDREN = 2**18


class Configurations(NamedTuple):
    """One level of the tree: the nodes in use lie first, in tree order; the others weigh zero.

    Attributes:
      log_weights: `[M, K]`, log w[m, k], each row normalised.
      masses: `[M]`, v[m]. They sum to one only while the tree is exact and nothing is settled:
        never renormalise them.
      entropies: `[M]`, H(w[m]) in nats.
      size: `[]`, nodes in use.
      is_exact: `[]`, whether nothing with remaining entropy was ever left out.
    """

    log_weights: Float[Array, "M K"]
    masses: Float[Array, "M"]
    entropies: Float[Array, "M"]
    size: Int[Array, ""]
    is_exact: Bool[Array, ""]


class Children(NamedTuple):
    """All labels of one more point, for every node: `q[m, c]` and the entropy of `w'[m, c, :]`."""

    masses: Float[Array, "M C"]
    entropies: Float[Array, "M C"]


def root(num_samples: int, capacity: int, dtype: jnp.dtype) -> Configurations:
    """The tree before any point is chosen: one node, the uniform posterior over K samples."""
    first = jnp.arange(capacity) == 0
    log_num_samples = jnp.log(jnp.asarray(num_samples, dtype))
    return Configurations(
        log_weights=jnp.full((capacity, num_samples), -log_num_samples),
        masses=first.astype(dtype),
        entropies=jnp.where(first, log_num_samples, 0),
        size=jnp.ones((), jnp.int32),
        is_exact=jnp.ones((), bool),
    )


def remaining_entropy(nodes: Configurations | Children) -> Float[Array, ""]:
    """Expected entropy of the posterior that is left: `sum_m v[m] H(w[m])`, nats."""
    return jnp.sum(nodes.masses * nodes.entropies)


class Candidates(NamedTuple):
    """What the gains of a pool are computed from, the same in every step.

    Attributes:
      probs: `[N, C, K]`, p(y=c | x_n, w_k): K last, as a matrix product wants it.
      entropies: `[N, K]`, H[p(. | x_n, w_k)] in nats.
    """

    probs: Float[Array, "N C K"]
    entropies: Float[Array, "N K"]


def candidates(log_probs: LogProbs) -> Candidates:
    """Probabilities and entropies of a pool: `N K (C + 1)` floats."""
    return Candidates(jnp.exp(jnp.swapaxes(log_probs, 1, 2)), -jnp.sum(plogp(log_probs), axis=-1))


class Posteriors(NamedTuple):
    """The weights of a tree as gains need them: not in log space, and their average.

    Attributes:
      weights: `[M, K]`, w[m, k].
      masses: `[M]`, v[m].
      mean: `[K]`, `sum_m v[m] w[m, k]`.
      size: `[]`, nodes in use.
    """

    weights: Float[Array, "M K"]
    masses: Float[Array, "M"]
    mean: Float[Array, "K"]
    size: Int[Array, ""]


def posteriors(tree: Configurations) -> Posteriors:
    """The weights of a tree, ready for `gains`."""
    weights = jnp.exp(tree.log_weights)
    # Not a matmul: on a CPU that sums row after row, and loses 1e-5 at M = 10,000.
    mean = jnp.sum(tree.masses[:, None] * weights, axis=0)
    return Posteriors(weights, tree.masses, mean, tree.size)


def gains(tree: Posteriors, pool: Candidates) -> Float[Array, "N"]:
    """What each point would add to the joint mutual information of those in the tree.

    gain(n) = sum_m v[m] ( H[ sum_k w[m,k] p(. | x_n, w_k) ] - sum_k w[m,k] H[ p(. | x_n, w_k) ] )

    Returns:
      `[N]`, nats; exact while the tree is. Zero when no configuration is left (K = 1, or all
      settled). Memory: one tile of `[configurations, points, C]`.
    """
    num_points, num_classes, _ = pool.probs.shape
    block = min(num_points, max(1, _TILE_OUTCOMES // num_classes))

    def evaluate_block(i, all_gains):
        start = jnp.minimum(i * block, num_points - block)
        probs = lax.dynamic_slice_in_dim(pool.probs, start, block)
        entropies = lax.dynamic_slice_in_dim(pool.entropies, start, block)
        conditional = jnp.matmul(entropies, tree.mean, precision=lax.Precision.HIGHEST)
        gain = _expected_predictive_entropy(tree, probs) - conditional
        return lax.dynamic_update_slice_in_dim(all_gains, gain, start, 0)

    num_blocks = -(-num_points // block)
    return lax.fori_loop(0, num_blocks, evaluate_block, jnp.zeros(num_points, pool.probs.dtype))


def _expected_predictive_entropy(
    tree: Posteriors, probs: Float[Array, "block C K"]
) -> Float[Array, "block"]:
    """`sum_m v[m] H[ sum_k w[m,k] p(. | x_n, w_k) ]`, a tile of configurations at a time."""
    block, num_classes, num_samples = probs.shape
    outcomes = probs.reshape(block * num_classes, num_samples)
    capacity = tree.masses.shape[0]
    tile = min(capacity, _TILE_CONFIGURATIONS)

    def add_tile(i, total):
        # The last tile is moved back to end with the array; what it repeats weighs nothing.
        start = jnp.minimum(i * tile, capacity - tile)
        is_new = start + jnp.arange(tile) >= i * tile
        masses = jnp.where(is_new, lax.dynamic_slice_in_dim(tree.masses, start, tile), 0)
        weights = lax.dynamic_slice_in_dim(tree.weights, start, tile)
        predictive = jnp.matmul(weights, outcomes.T, precision=lax.Precision.HIGHEST)
        return total - jnp.matmul(masses, xlogx(predictive), precision=lax.Precision.HIGHEST)

    num_tiles = -(-tree.size // tile)
    total = lax.fori_loop(0, num_tiles, add_tile, jnp.zeros(block * num_classes, probs.dtype))
    return jnp.sum(total.reshape(block, num_classes), axis=-1)


def branch(tree: Configurations, log_probs: Float[Array, "K C"]) -> Children:
    """The children of every node when one more point joins: masses and remaining entropies.

    q[m,c] = v[m] sum_k w[m,k] p(c | w_k),   w'[m,c,k] = w[m,k] p(c | w_k) / sum_k' ...

    Their weights `[M, C, K]` are never held at once: `extend` makes those that survive.
    """
    capacity, num_samples = tree.log_weights.shape
    num_classes = log_probs.shape[-1]
    tile = min(capacity, max(1, _TILE_CHILDREN // (num_samples * num_classes)))
    nothing = jnp.zeros((capacity, num_classes), log_probs.dtype)

    def branch_tile(i, children):
        start = jnp.minimum(i * tile, capacity - tile)
        log_weights = lax.dynamic_slice_in_dim(tree.log_weights, start, tile)
        log_joint = log_weights[:, None, :] + log_probs.T[None, :, :]
        # One exponential for both: with x_k = log joint - largest and s = sum_k exp(x_k),
        # log p(c | m) = largest + log s and H(w') = log s - sum_k exp(x_k) x_k / s.
        largest = jnp.max(log_joint, axis=-1)
        is_possible = largest > -jnp.inf
        centred = log_joint - jnp.where(is_possible, largest, 0)[..., None]
        total = jnp.where(is_possible, jnp.sum(jnp.exp(centred), axis=-1), 1)
        entropies = jnp.log(total) - jnp.sum(plogp(centred), axis=-1) / total
        conditional_mass = jnp.exp(largest) * total
        masses = lax.dynamic_slice_in_dim(tree.masses, start, tile)[:, None] * conditional_mass
        return Children(
            lax.dynamic_update_slice_in_dim(children.masses, masses, start, 0),
            lax.dynamic_update_slice_in_dim(children.entropies, entropies, start, 0),
        )

    num_tiles = -(-tree.size // tile)
    return lax.fori_loop(0, num_tiles, branch_tile, Children(nothing, nothing))


def _normalise(log_weights: Float[Array, "*nodes K"]) -> Float[Array, "*nodes K"]:
    """Rows that sum to one; a row without any mass (an impossible label) becomes uniform."""
    largest = jnp.max(log_weights, axis=-1, keepdims=True)
    centred = jnp.where(largest > -jnp.inf, log_weights - largest, 0)
    return jax.nn.log_softmax(centred, axis=-1)


def extend(
    key: Key, tree: Configurations, log_probs: Float[Array, "K C"], children: Children
) -> Configurations:
    """Add one point to the tree: keep all `children` while they fit, thin them when they do not.

    Args:
      key: for the thinning; not used while the children fit.
      tree: the nodes before.
      log_probs: `[K, C]`, the predictions of the point that joins.
      children: `branch(tree, log_probs)`.
    """
    capacity = tree.masses.shape[0]
    num_classes = log_probs.shape[-1]
    masses = children.masses.ravel()
    entropies = children.entropies.ravel()
    inclusion, is_kept, fits = _thin(key, masses, entropies, capacity)

    survivors = jnp.nonzero(is_kept, size=capacity, fill_value=0)[0]
    size = jnp.minimum(jnp.sum(is_kept), capacity).astype(jnp.int32)
    in_use = jnp.arange(capacity) < size
    parents, labels = survivors // num_classes, survivors % num_classes
    log_weights = _normalise(tree.log_weights[parents] + log_probs.T[labels])
    return Configurations(
        # An unused slot holds a child of node 0: harmless, as it weighs nothing.
        log_weights=log_weights,
        masses=jnp.where(in_use, masses[survivors] / inclusion[survivors], 0),
        entropies=jnp.where(in_use, entropies[survivors], 0),
        size=size,
        is_exact=tree.is_exact & fits,
    )


def _thin(
    key: Key, masses: Float[Array, "L"], entropies: Float[Array, "L"], capacity: int
) -> tuple[Float[Array, "L"], Bool[Array, "L"], Bool[Array, ""]]:
    """Choose at most `capacity` of L children by systematic resampling in tree order.

    A child's priority is what is still unknown there, `a = q H(w')`. Its inclusion probability
    is `pi = min(1, a / c)`, with c such that `sum pi = capacity`, and a survivor's mass becomes
    `q / pi`. So `sum v H(w)`, and with it the score, does not change at all (each uncertain
    survivor carries exactly c), and any other weighted sum over the children is unbiased.
    Children of zero priority know the parameters: no label can tell them more, for good.

    Returns:
      Inclusion probabilities, the survivors, and whether all children with priority fit.

    Source: Fearnhead and Clifford (2003), with the priority in the place of the mass.
    """
    is_settled = entropies <= SETTLED
    priorities = jnp.where(is_settled, 0, masses * entropies)
    fits = jnp.sum(priorities > 0) <= capacity

    # c by fixed-point iteration: each round moves the children above c to the certain ones and
    # spreads the rest of the capacity over the others, so c falls until no child changes sides.
    def spread(state):
        _, threshold, num_certain = state
        is_certain = priorities >= threshold
        rest = jnp.sum(jnp.where(is_certain, 0, priorities))
        num_now = jnp.sum(is_certain, dtype=jnp.int32)
        lower = jnp.minimum(threshold, rest / jnp.maximum(capacity - num_now, 1))
        # No place left: what remains is below the rounding of the sum.
        return num_certain, jnp.where(num_now < capacity, lower, threshold), num_now

    start = (jnp.int32(-1), jnp.sum(priorities) / capacity, jnp.int32(0))
    _, threshold, _ = lax.while_loop(lambda state: state[0] != state[2], spread, start)
    threshold = jnp.where(fits, 0, threshold)
    is_certain = (priorities > 0) & (priorities >= threshold)
    inclusion = jnp.where(is_certain, 1, priorities / jnp.where(threshold > 0, threshold, 1))

    # Systematic resampling: with u + cumsum(pi), a child survives when it crosses an integer. In
    # uint32, where 2^32 stands for one, that is a wrap-around: exact, however long the sum. (The
    # largest float32 below 2^32 in its place, so that no probability rounds up to a full turn.)
    steps = jnp.where(is_certain, 0, inclusion * (2.0**32 - 2.0**8)).astype(jnp.uint32)
    positions = jax.random.bits(key, (), jnp.uint32) + jnp.cumsum(steps, dtype=jnp.uint32)
    return inclusion, is_certain | (positions < steps), fits
