"""Trees of configurations to test on, and their gains, jitted once for all tests."""

import jax
import jax.numpy as jnp
import numpy as np
import reference

from bbald_jax.information.configurations import Configurations, branch, extend, root
from bbald_jax.information.gains import candidates
from bbald_jax.information.gains import gains as gains_of_candidates


def gains(tree: Configurations, log_probs: jax.Array) -> jax.Array:
    return gains_of_candidates(tree, candidates(log_probs))


branch_jit, extend_jit, gains_jit = jax.jit(branch), jax.jit(extend), jax.jit(gains)


def keys(num: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), num)


def tree_of(log_probs: jax.Array, capacity: int, seed: int = 0) -> Configurations:
    tree = root(log_probs.shape[1], capacity, log_probs.dtype)
    for key, point in zip(keys(len(log_probs), seed), log_probs, strict=True):
        tree = extend_jit(key, tree, point, branch_jit(tree, point))
    return tree


def random_tree(capacity: int, num_samples: int, size: int) -> Configurations:
    """Any weighted tree at all, `size` nodes of it in use; the masses do not sum to one."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(num_samples, 0.5), size=capacity)
    in_use = np.arange(capacity) < size
    masses = np.where(in_use, 0.8 * rng.dirichlet(np.ones(capacity)), 0)
    return Configurations(
        weights=jnp.asarray(weights, jnp.float32),
        masses=jnp.asarray(masses, jnp.float32),
        entropies=jnp.asarray(np.where(in_use, reference.entropy(weights), 0), jnp.float32),
        mean=jnp.asarray(masses @ weights, jnp.float32),
        size=jnp.asarray(size, jnp.int32),
        is_exact=jnp.asarray(False),
    )


def gains_of_weights(tree: Configurations, log_probs: jax.Array) -> np.ndarray:
    """The formula of the gain on any tree, in float64."""
    weights, probs = np.asarray(tree.weights, np.float64), reference.to_probs(log_probs)
    predictive = reference.entropy(np.einsum("mk,nkc->mnc", weights, probs))
    conditional = weights @ reference.entropy(probs).T
    return np.asarray(tree.masses, np.float64) @ (predictive - conditional)
