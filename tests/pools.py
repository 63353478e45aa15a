"""Pools on which a search with bounds has gone wrong, or could: `[N, K, C]` float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

NUM_POINTS, NUM_SAMPLES, NUM_CLASSES = 150, 12, 4


def _from_logits(logits: np.ndarray) -> jax.Array:
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32), axis=-1)


def _linear(rng: np.random.Generator, num_points: int = NUM_POINTS, scale: float = 1) -> np.ndarray:
    weights = rng.standard_normal((NUM_SAMPLES, 3, NUM_CLASSES))
    return scale * np.einsum("nd,kdc->nkc", rng.standard_normal((num_points, 3)), weights)


def random(rng: np.random.Generator) -> jax.Array:
    return _from_logits(_linear(rng))


def saturated(rng: np.random.Generator) -> jax.Array:
    return _from_logits(_linear(rng, scale=4))


def peaked(rng: np.random.Generator) -> jax.Array:
    return _from_logits(_linear(rng, scale=100))


def flat(rng: np.random.Generator) -> jax.Array:
    return _from_logits(_linear(rng, scale=0.2))


def copies_in_different_blocks(rng: np.random.Generator) -> jax.Array:
    return _from_logits(np.tile(_linear(rng, NUM_POINTS // 3), (3, 1, 1)))


def near_copies(rng: np.random.Generator) -> jax.Array:
    logits = np.tile(_linear(rng, NUM_POINTS // 3), (3, 1, 1))
    return _from_logits(logits + 1e-3 * rng.standard_normal(logits.shape))


def two_factors(rng: np.random.Generator) -> jax.Array:
    """Samples (i, j): half the points depend on i alone, half on j alone."""
    i, j = np.divmod(np.arange(NUM_SAMPLES), 4)
    logits = 2 * rng.standard_normal((2, NUM_POINTS // 2, NUM_SAMPLES, NUM_CLASSES))
    return _from_logits(np.concatenate([logits[0][:, i], logits[1][:, j]]))


def class_sorted(rng: np.random.Generator) -> jax.Array:
    logits = _linear(rng)
    return _from_logits(logits[np.argsort(logits.mean(axis=1).argmax(axis=-1), kind="stable")])


def one_sample_matters(rng: np.random.Generator) -> jax.Array:
    """All samples agree but one: the nodes are heavy and nearly settled, or light and not."""
    logits = np.repeat(_linear(rng)[:, :1], NUM_SAMPLES, axis=1)
    logits[:, 0] = _linear(rng)[:, 0]
    return _from_logits(logits)


POOLS: tuple[Callable[[np.random.Generator], jax.Array], ...] = (
    random,
    saturated,
    peaked,
    flat,
    copies_in_different_blocks,
    near_copies,
    two_factors,
    class_sorted,
    one_sample_matters,
)
