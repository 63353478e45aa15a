"""The pool: one status per point, in arrays of fixed size; asking and telling are pure functions.

Every function that takes `indices` leaves out -1, the mark of an unfilled slot. Capacities are
static, so that nothing is compiled again as labels come in.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.typing import Key

UNLABELLED, PENDING, LABELLED, SKIPPED = range(4)


class Pool(NamedTuple):
    """The state of N points.

    Attributes:
      status: `[N]` int8: `UNLABELLED`, `PENDING` (asked, no answer yet), `LABELLED` or `SKIPPED`
        (nobody could label it, or it is kept out).
      labels: `[N]` int32, the label told, -1 where there is none.
    """

    status: Int[Array, "N"]
    labels: Int[Array, "N"]


class Labelled(NamedTuple):
    """Labelled examples in a buffer of fixed capacity; the first `num_examples` rows are real.

    Attributes:
      x: `[capacity, ...]`.
      y: `[capacity]` int32; what lies behind `num_examples` is not to be read.
      num_examples: `[]` int32.
    """

    x: Float[Array, "capacity ..."]
    y: Int[Array, "capacity"]
    num_examples: Int[Array, ""]


def init_pool(num_points: int) -> Pool:
    """N points, none labelled."""
    return Pool(jnp.full(num_points, UNLABELLED, jnp.int8), jnp.full(num_points, -1, jnp.int32))


def available(pool: Pool) -> Bool[Array, "N"]:
    """True for the points that may be asked for: neither pending, labelled nor skipped."""
    return pool.status == UNLABELLED


def ask(pool: Pool, indices: Int[Array, "B"]) -> Pool:
    """Mark points as pending: their labels have been asked for."""
    return pool._replace(status=_set(pool.status, indices, jnp.int8(PENDING)))


def tell(pool: Pool, indices: Int[Array, "B"], labels: Int[Array, "B"]) -> Pool:
    """Write the labels of points and mark them as labelled.

    A label below zero is none: its point stays as it is.
    """
    indices = jnp.where(labels < 0, -1, indices)
    return Pool(
        status=_set(pool.status, indices, jnp.int8(LABELLED)),
        labels=_set(pool.labels, indices, labels.astype(jnp.int32)),
    )


def skip(pool: Pool, indices: Int[Array, "B"]) -> Pool:
    """Mark points as skipped: nobody could label them, and they are not asked for again."""
    return pool._replace(status=_set(pool.status, indices, jnp.int8(SKIPPED)))


def pending_indices(pool: Pool, *, capacity: int) -> Int[Array, "capacity"]:
    """Indices of the pending points, in order, padded with -1 to a static capacity."""
    return jnp.nonzero(pool.status == PENDING, size=capacity, fill_value=-1)[0].astype(jnp.int32)


@jax.jit
def num_labelled(pool: Pool) -> Int[Array, ""]:
    """How many points are labelled."""
    return jnp.sum(pool.status == LABELLED, dtype=jnp.int32)


@partial(jax.jit, static_argnames="capacity")
def gather_labelled(pool: Pool, x: Float[Array, "N ..."], *, capacity: int) -> Labelled:
    """The labelled examples, in the order of the pool, in a buffer of static capacity.

    Args:
      pool: statuses and labels of N points.
      x: `[N, ...]`, their features.
      capacity: at least the number of points that are ever labelled; more than that are cut off.
    """
    is_labelled = pool.status == LABELLED
    indices = jnp.nonzero(is_labelled, size=capacity, fill_value=0)[0]
    num_examples = jnp.minimum(num_labelled(pool), capacity)
    return Labelled(x[indices], pool.labels[indices], num_examples)


def initial_split(
    key: Key, classes: Int[Array, "N"], *, num_classes: int, num_per_class: int
) -> Int[Array, "I"]:
    """A random start: `num_per_class` points of every class, in the order of the classes.

    Args:
      key: for the choice.
      classes: `[N]`, the true class of each point.
      num_classes: C (static).
      num_per_class: points of each class (static); 0 starts without any label.

    Returns:
      `[C * num_per_class]` int32, -1 where a class has too few points.
    """
    num_per_class_there = min(num_per_class, classes.shape[0])
    priority = jax.random.uniform(key, classes.shape)
    is_member = classes[None, :] == jnp.arange(num_classes)[:, None]
    value, indices = jax.lax.top_k(jnp.where(is_member, priority, -1), num_per_class_there)
    indices = jnp.where(value >= 0, indices, -1)
    missing = num_per_class - num_per_class_there
    return jnp.pad(indices, ((0, 0), (0, missing)), constant_values=-1).ravel().astype(jnp.int32)


def _set(array: Array, indices: Int[Array, "B"], values: Array) -> Array:
    # A negative index would wrap round; one behind the end is dropped.
    positions = jnp.where(indices < 0, array.shape[0], indices)
    return array.at[positions].set(values, mode="drop")
