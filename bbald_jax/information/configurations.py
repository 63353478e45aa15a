"""Entropies of several labels at once: a weighted tree of class configurations.

A *configuration* m is one assignment of labels to the points chosen so far. It is kept as the
posterior that those labels would leave on the K samples, and as its own weight:

    w[m, k] = p(w_k | labels m)         each row normalised
    v[m]    = weight of m               its probability, while nothing has been left out

With `H(w[m])` the entropy of row m, the joint mutual information of the chosen points S is

    I[y_S; w] = log K - sum_m v[m] H(w[m])                  (prior entropy - expected posterior's)

never above log K, by construction. What one more point would add is in `gains.py`.

Adding a point gives every node C children: `q[m,c] = v[m] p(c | m)` and `w' ~ w p(c | w_k)`.
While they fit in the capacity M all are kept, and every number is exact for the K samples.
Beyond that they are thinned, and every number is an unbiased Monte-Carlo estimate; see `_thin`.

Rows are normalised again with every point, so no product of probabilities underflows, however
long the batch: a weight that rounds to zero belongs to a sample that its configuration rules out.

Source of the joint scores: Kirsch, van Amersfoort, Gal (2019), section 3.2; of the thinning:
Fearnhead and Clifford (2003), "On-line inference for hidden Markov models via particle filters".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.information.entropy import xlogx
from bbald_jax.masks import count, true_positions
from bbald_jax.tiling import tiling
from bbald_jax.typing import Key

#: A node with less remaining entropy, nats, is settled: gains are not computed any better, and its
#: mass, when it survives a thinning with what little priority it has, would magnify their rounding.
SETTLED = 1e-6


class Configurations(NamedTuple):
    """One level of the tree: the nodes in use lie first, in tree order; the others weigh zero.

    Attributes:
      weights: `[M, K]`, w[m, k], each row normalised.
      masses: `[M]`, v[m]. They sum to one only while the tree is exact and nothing is settled:
        never renormalise them.
      entropies: `[M]`, H(w[m]) in nats.
      mean: `[K]`, `sum_m v[m] w[m, k]`.
      size: `[]`, nodes in use.
      is_exact: `[]`, whether nothing with remaining entropy was ever left out.
    """

    weights: Float[Array, "M K"]
    masses: Float[Array, "M"]
    entropies: Float[Array, "M"]
    mean: Float[Array, "K"]
    size: Int[Array, ""]
    is_exact: Bool[Array, ""]


class Children(NamedTuple):
    """All labels of one more point, for every node: `q[m, c]` and the entropy of `w'[m, c, :]`."""

    masses: Float[Array, "M C"]
    entropies: Float[Array, "M C"]


def root(num_samples: int, capacity: int, dtype: jnp.dtype) -> Configurations:
    """The tree before any point is chosen: one node, the uniform posterior over K samples."""
    first = jnp.arange(capacity) == 0
    return Configurations(
        weights=jnp.full((capacity, num_samples), 1 / num_samples, dtype),
        masses=first.astype(dtype),
        entropies=jnp.where(first, jnp.log(jnp.asarray(num_samples, dtype)), 0),
        mean=jnp.full(num_samples, 1 / num_samples, dtype),
        size=jnp.ones((), jnp.int32),
        is_exact=jnp.ones((), bool),
    )


def remaining_entropy(nodes: Configurations | Children) -> Float[Array, ""]:
    """Expected entropy of the posterior that is left: `sum_m v[m] H(w[m])`, nats."""
    return jnp.sum(nodes.masses * nodes.entropies)


def branch(tree: Configurations, log_probs: Float[Array, "K C"]) -> Children:
    """The children of every node when one more point joins: masses and remaining entropies.

    p(c | m) = sum_k w[m,k] p(c | w_k)
    q[m,c] = v[m] p(c | m),   w'[m,c,k] = w[m,k] p(c | w_k) / p(c | m)

    Their weights `[M, C, K]` are never held at once: `extend` makes those that survive.
    """
    capacity, num_samples = tree.weights.shape
    probs = jnp.exp(log_probs).T
    num_classes = probs.shape[0]
    tile = min(capacity, max(1, tiling().children // (num_samples * num_classes)))
    nothing = jnp.zeros((capacity, num_classes), probs.dtype)

    def branch_tile(i, children):
        start = jnp.minimum(i * tile, capacity - tile)
        weights = lax.dynamic_slice_in_dim(tree.weights, start, tile)
        masses = lax.dynamic_slice_in_dim(tree.masses, start, tile)
        child_weights, predictive = _normalise(weights[:, None, :] * probs)
        return Children(
            lax.dynamic_update_slice_in_dim(
                children.masses, masses[:, None] * predictive, start, 0
            ),
            lax.dynamic_update_slice_in_dim(
                children.entropies, -jnp.sum(xlogx(child_weights), axis=-1), start, 0
            ),
        )

    num_tiles = -(-tree.size // tile)
    return lax.fori_loop(0, num_tiles, branch_tile, Children(nothing, nothing))


def _normalise(
    joint: Float[Array, "*nodes K"],
) -> tuple[Float[Array, "*nodes K"], Float[Array, "*nodes"]]:
    """Rows that sum to one, and their sums; an impossible row becomes uniform, its sum zero."""
    total = jnp.sum(joint, axis=-1)
    # Below the smallest normal number, quotients are no longer right.
    is_possible = total >= jnp.finfo(joint.dtype).tiny
    total = jnp.where(is_possible, total, 0)
    rows = joint / jnp.where(is_possible, total, 1)[..., None]
    return jnp.where(is_possible[..., None], rows, 1 / joint.shape[-1]), total


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

    survivors = true_positions(is_kept, size=capacity, fill_value=0)
    size = jnp.minimum(count(is_kept), capacity)
    in_use = jnp.arange(capacity) < size
    parents, labels = survivors // num_classes, survivors % num_classes
    weights, _ = _normalise(tree.weights[parents] * jnp.exp(log_probs).T[labels])
    masses = jnp.where(in_use, masses[survivors] / inclusion[survivors], 0)
    return Configurations(
        # An unused slot holds a child of node 0: harmless, as it weighs nothing.
        weights=weights,
        masses=masses,
        entropies=jnp.where(in_use, entropies[survivors], 0),
        # Not a matmul: on a CPU that sums row after row, and loses 1e-5 at M = 10,000.
        mean=jnp.sum(masses[:, None] * weights, axis=0),
        size=size,
        is_exact=tree.is_exact & fits,
    )


def _thin(
    key: Key, masses: Float[Array, "L"], entropies: Float[Array, "L"], capacity: int
) -> tuple[Float[Array, "L"], Bool[Array, "L"], Bool[Array, ""]]:
    """Choose at most `capacity` of L children by systematic resampling in tree order.

    A child's priority is what is still unknown there, `a = q H(w')`. Its inclusion probability
    is `pi = min(1, a / c)`, with c such that `sum pi = capacity`, and a survivor's mass becomes
    `q / pi`. So `sum v H(w)`, and with it the score, does not change but for rounding (each
    uncertain survivor carries exactly c), and any other weighted sum over the children is unbiased.
    Children of zero priority know the parameters: no label can tell them more, for good.

    Returns:
      Inclusion probabilities, the survivors, and whether all children with priority fit.

    Source: Fearnhead and Clifford (2003), with the priority in the place of the mass.
    """
    is_settled = entropies <= SETTLED
    priorities = jnp.where(is_settled, 0, masses * entropies)
    fits = count(priorities > 0) <= capacity

    # c by fixed-point iteration: each round moves the children above c to the certain ones and
    # spreads the rest of the capacity over the others, so c falls until no child changes sides.
    def spread(state):
        _, threshold, num_certain = state
        is_certain = priorities >= threshold
        rest = jnp.sum(jnp.where(is_certain, 0, priorities))
        num_now = count(is_certain)
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
