"""Which of several equally good points is taken: never the first of the file, where there is a key.

The order of a file means something (a class after another, a day after another), so among equals
a choice by position would be a biased one. A key gives every point of the pool a priority, which
depends on the key and on the point's index alone: the parts of a pool agree on it wherever they
are looked at.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.typing import Key

#: Scores that differ by no more are told apart only by their rounding, and gains below it are none.
SLACK = 1e-6

Priority = UInt32[Array, "N"]


def priorities(key: Key, indices: Int[Array, "N"]) -> Priority:
    """A number for each index, all different, in an order that the key decides.

    A bijection of 32 bits scatters the indices, after the key's own bits were added (exclusive
    or): no two indices below 2^32 get the same number.

    Source: the final mixing of MurmurHash3 (Appleby, 2011, in the public domain), in which every
    bit of the input changes every bit of the result with a probability near one half.
    """
    bits = indices.astype(jnp.uint32) ^ jax.random.bits(key, (), jnp.uint32)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def first_of_equals(
    is_equal: Bool[Array, "N"], priority: Priority | None, axis_name: AxisName | None = None
) -> Int[Array, ""]:
    """The index of highest priority where `is_equal`; the lowest index where there is no priority.

    Nothing that means anything where no point is equal. With an axis, an index into the whole pool.
    """
    axis = pool_axis(axis_name, is_equal.shape[0])
    if priority is not None:
        # Zero is a priority too, so a maximum alone does not tell the points from the others.
        highest = axis.max(jnp.max(jnp.where(is_equal, priority, 0)))
        is_equal = is_equal & (priority == highest)
    # Not argmax, which is several times slower on a CPU.
    first = axis.min(jnp.min(jnp.where(is_equal, axis.indices(), axis.num_points - 1)))
    return first.astype(jnp.int32)


def best(
    scores: Float[Array, "N"],
    available: Bool[Array, "N"],
    priority: Priority | None,
    axis_name: AxisName | None = None,
) -> Int[Array, ""]:
    """The available point of highest score; among equals (within `SLACK`) as `first_of_equals`.

    Without priorities only scores that are exactly equal are equal.
    """
    axis = pool_axis(axis_name, scores.shape[0])
    highest = axis.max(jnp.max(jnp.where(available, scores, -jnp.inf)))
    least = highest if priority is None else highest - SLACK
    return first_of_equals(available & (scores >= least), priority, axis_name)
