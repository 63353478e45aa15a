"""The points of a pool that lie on this device, and what all devices say together.

Inside `jax.shard_map` a selection sees some rows of the pool, and the same program runs on every
device. Whatever it decides for the whole pool goes through a `PoolAxis`: a maximum over all
devices, the row of a point that one of them holds, the points' numbers in the whole pool. Without
an axis each of these is the plain operation, and the program is that of a single device.

No collective may stand in a loop or a branch on which the devices could disagree: one that went
another way would be waited for without end.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

_Number = TypeVar("_Number", bound=Array)


class Layout(NamedTuple):
    """A mesh axis (or several), and how many points each device along it holds, in their order.

    What a device has beyond its points, at the end, is padding: never available.
    """

    axis: str | tuple[str, ...]
    counts: tuple[int, ...]


#: What `axis_name` may be: the name of a mesh axis (or several) along which every row is a point,
#: or a `Layout`; None where the pool is whole.
AxisName = str | tuple[str, ...] | Layout


class PoolAxis(NamedTuple):
    """See the module.

    Attributes:
      name: of the mesh axis or axes; None where the pool is whole.
      num_rows: rows on this device (static).
      num_points: points of the whole pool (static).
      start: the number, in the whole pool, of the point in the first row here.
      held: how many points are here; the rows after them are padding.
    """

    name: str | tuple[str, ...] | None
    num_rows: int
    num_points: int
    start: Int[Array, ""] | int
    held: Int[Array, ""] | int

    def indices(self) -> Int[Array, "N"]:
        """The points' numbers in the whole pool."""
        here = jnp.arange(self.num_rows)
        return here if self.name is None else self.start + here

    def max(self, number: _Number) -> _Number:
        """The largest of what the devices say."""
        return number if self.name is None else lax.pmax(number, self.name)

    def min(self, number: _Number) -> _Number:
        """The least of what the devices say."""
        return number if self.name is None else lax.pmin(number, self.name)

    def sum(self, number: _Number) -> _Number:
        """The sum of what the devices say."""
        return number if self.name is None else lax.psum(number, self.name)

    def is_first(self) -> Bool[Array, ""]:
        """Whether this is the first of the devices."""
        return jnp.asarray(True) if self.name is None else lax.axis_index(self.name) == 0

    def place(self, index: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        """The row of a point; of one that lies elsewhere, or nowhere, the row after the last."""
        if self.name is None:
            return index
        place = index - self.start
        return jnp.where((place >= 0) & (place < self.held), place, self.num_rows)

    def row(
        self, array: Shaped[Array, "N ..."], index: Int[Array, "*shape"]
    ) -> Shaped[Array, "..."]:
        """`array[index]` of the whole pool, on every device; zeros for a point that is nowhere."""
        if self.name is None:
            return array[index]
        place = self.place(index)
        rows = array.at[place].get(mode="clip")
        is_here = (place < self.num_rows).reshape(place.shape + (1,) * (rows.ndim - place.ndim))
        numbers = rows.astype(jnp.int32) if rows.dtype == jnp.bool_ else rows
        # Not a product: zero times the logarithm of zero is NaN.
        return lax.psum(jnp.where(is_here, numbers, 0), self.name).astype(rows.dtype)

    def of_whole(self, whole: Shaped[Array, "all"]) -> Shaped[Array, "N"]:
        """Of one number for each point of the whole pool, those of the points here."""
        return whole if self.name is None else whole.at[self.indices()].get(mode="clip")

    def gather(self, numbers: Shaped[Array, "some"]) -> Shaped[Array, "all"]:
        """What all devices have, one after the other."""
        return numbers if self.name is None else lax.all_gather(numbers, self.name, tiled=True)

    def sum_over_all(self, function: Callable[..., Array], share: tuple[Array, ...]) -> Array:
        """`function(*share)` of every device's share, added up; they are passed on in a ring."""
        if self.name is None:
            return function(*share)
        size = lax.axis_size(self.name)
        ring = [(i, (i + 1) % size) for i in range(size)]

        def add(_, state):
            total, share = state
            total = total + function(*share)
            return total, tuple(lax.ppermute(part, self.name, ring) for part in share)

        total = jnp.zeros_like(jax.eval_shape(function, *share))
        return lax.fori_loop(0, size, add, (total, share))[0]

    def of_gathered(self, gathered: Shaped[Array, "all"]) -> Shaped[Array, "N"]:
        """Of what `gather` returned for the rows of all devices, those of the rows here."""
        if self.name is None:
            return gathered
        start = lax.axis_index(self.name) * self.num_rows
        return lax.dynamic_slice_in_dim(gathered, start, self.num_rows)

    def top(
        self, numbers: Float[Array, "N"] | UInt32[Array, "N"], size: int
    ) -> tuple[Shaped[Array, "size"], Int[Array, "size"]]:
        """`lax.top_k` of the whole pool: the largest, and their points; by index among equals."""
        values, indices = lax.top_k(numbers, min(size, self.num_rows))
        if self.name is None:
            return values, indices
        # In the order of the devices, so that equals keep the order of their indices.
        values, indices = self.gather(values), self.gather(self.start + indices)
        values, places = lax.top_k(values, size)
        return values, indices[places]

    def best(self, numbers: Float[Array, "B"], size: int) -> Float[Array, "size"]:
        """The largest of what the devices have, each its own largest in order."""
        # In order already: a sort of nothing would still be compiled.
        return numbers if self.name is None else self.top(numbers, size)[0]


def pool_axis(axis_name: AxisName | None, num_rows: int) -> PoolAxis:
    """The part of the pool that a device holds in `num_rows` rows (asked at trace time)."""
    if axis_name is None:
        return PoolAxis(None, num_rows, num_rows, 0, num_rows)
    if not isinstance(axis_name, Layout):
        layout = Layout(axis_name, (num_rows,) * lax.axis_size(axis_name))
        return pool_axis(layout, num_rows)
    name, counts = axis_name
    starts = np.cumsum((0, *counts), dtype=np.int32)
    here = lax.axis_index(name)
    start, held = jnp.asarray(starts)[here], jnp.asarray(counts, jnp.int32)[here]
    return PoolAxis(name, num_rows, int(starts[-1]), start, held)
