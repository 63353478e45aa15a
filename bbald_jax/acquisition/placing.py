"""A pool spread over the devices of a mesh: every device holds some of its points.

Host after host, device after device: the points keep the numbers that they have for whoever hands
them in, and on several hosts each hands in its own part. What does not fill its last devices is
padded there, with rows that are never available.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from bbald_jax.acquisition.pool_axis import Layout
from bbald_jax.typing import Available, LogProbs
from bbald_jax.validation import assert_available, assert_log_probs


class ShardedPool(NamedTuple):
    """What `shard_pool` returns, for `select_sharded`.

    Attributes:
      log_probs: `[N', K, C]`, N' the points and the padding, spread over the devices.
      available: `[N']` bool, alike; padding is not available.
      mesh: the devices.
      layout: which of the mesh's axes the points are spread along, and how many each of its devices
        holds; they add up to N.
    """

    log_probs: Float[Array, "N K C"]
    available: Bool[Array, "N"]
    mesh: Mesh
    layout: Layout

    @property
    def num_points(self) -> int:
        """N, the points of the whole pool, without padding."""
        return sum(self.layout.counts)


def shard_pool(
    mesh: Mesh,
    log_probs: LogProbs | np.ndarray,
    *,
    axis: str | tuple[str, ...] = "pool",
    available: Available | np.ndarray | None = None,
) -> ShardedPool:
    """Spread a pool over the devices of a mesh, for `select_sharded`.

    Every device gets the same number of rows, in the order of the points; where N is no multiple of
    the devices the last ones are padded. On several hosts each hands in its own part, of any
    length, and the points are numbered through the parts in the order of the mesh: those of the
    first host come first. Along other axes of the mesh the pool is the same on every device.

    Args:
      mesh: as from `jax.make_mesh((8,), ("pool",), axis_types=(jax.sharding.AxisType.Auto,))`; the
        devices of a host follow each other along `axis`.
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C, on this host; a NumPy array
        (or one that is mapped into memory) is never copied whole. A `jax.Array` that is spread over
        the mesh in this way already stays where it is: it is the whole pool then, on every host.
      axis: the axis of the mesh, or axes, along which the points are spread.
      available: `[N]` bool, which of these points may be chosen; all by default.

    Returns:
      A `ShardedPool`. Memory on a device: its rows of the predictions, and a byte for each.

    Raises:
      ValueError: no such axis, devices of a host that do not follow each other, arrays that are not
        as described, or parts of hosts that do not fit together.
    """
    sharding, num_blocks = _along(mesh, axis)
    if isinstance(log_probs, jax.Array) and _is_spread(log_probs, sharding):
        num_points, _, _ = assert_log_probs(log_probs)
        layout = Layout(axis, (num_points // num_blocks,) * num_blocks)
        if available is None or not isinstance(available, jax.Array):
            available = jax.make_array_from_callback(
                (num_points,), sharding, lambda index: _mask(available, num_points)[index]
            )
        return ShardedPool(log_probs, assert_available(available, num_points), mesh, layout)

    if not isinstance(log_probs, jax.Array):
        log_probs = np.asarray(log_probs)
    dtype = jax.dtypes.canonicalize_dtype(log_probs.dtype)
    jax.eval_shape(_check, jax.ShapeDtypeStruct(log_probs.shape, dtype))
    placed = place_rows(mesh, axis, len(log_probs), log_probs.shape[1:])
    return ShardedPool(
        # A flat prediction is one like any other: nothing that is not a number goes into a sum.
        spread(placed, log_probs, -np.log(log_probs.shape[2])),
        spread(placed, _mask(available, len(log_probs)), False),
        mesh,
        placed.layout,
    )


class Placed(NamedTuple):
    """Where the rows of an array go.

    Attributes:
      sharding: along the axis, or axes.
      layout: how many rows of the array each device gets; it has padding up to the most of them.
      here: the devices along the axis, by number, that get what this host hands in.
    """

    sharding: NamedSharding
    layout: Layout
    here: range


def place_rows(
    mesh: Mesh, axis: str | tuple[str, ...], num_points: int, shape: tuple[int, ...]
) -> Placed:
    """Where the points go that this host hands in; `shape` is that of one, the same on all hosts.

    Raises:
      ValueError: no such axis, devices of a host that do not follow each other, or parts of hosts
        that do not fit together.
    """
    sharding, num_blocks = _along(mesh, axis)
    here = _blocks_here(sharding, num_blocks)
    parts = _of_all_hosts([here.start, here.stop, num_points, *shape])
    counts = _counts(parts, num_blocks)
    return Placed(sharding, Layout(axis, counts), here)


def _along(mesh: Mesh, axis: str | tuple[str, ...]) -> tuple[NamedSharding, int]:
    names = (axis,) if isinstance(axis, str) else axis
    if missing := [name for name in names if name not in mesh.shape]:
        raise ValueError(f"axis: {missing[0]!r} is no axis of the mesh, {tuple(mesh.shape)}")
    num_blocks = int(np.prod([mesh.shape[name] for name in names]))
    return NamedSharding(mesh, PartitionSpec(axis)), num_blocks


def spread(placed: Placed, part: Any, padding: Any) -> Array:
    """The rows that all hosts hand in, `part` here, on their devices."""
    num_rows = max(placed.layout.counts)

    def block(index: Any) -> np.ndarray:
        start = ((index[0].start or 0) // num_rows - placed.here[0]) * num_rows
        found = np.asarray(part[start : start + num_rows])
        width = [(0, num_rows - len(found))] + [(0, 0)] * (found.ndim - 1)
        return np.pad(found, width, constant_values=padding) if len(found) < num_rows else found

    shape = (num_rows * len(placed.layout.counts), *part.shape[1:])
    return jax.make_array_from_callback(shape, placed.sharding, block)


def _check(log_probs: LogProbs) -> None:
    assert_log_probs(log_probs)


def _mask(available: Any, num_points: int) -> np.ndarray:
    available = None if available is None else jnp.asarray(available)
    return np.asarray(assert_available(available, num_points))


def _is_spread(array: jax.Array, sharding: NamedSharding) -> bool:
    """Whether it lies on the devices as wanted, or no host can move it there."""
    if array.sharding.is_equivalent_to(sharding, array.ndim) and sharding.num_devices > 1:
        return True
    if not array.is_fully_addressable:
        raise ValueError(
            f"log_probs: {array.sharding} is spread over several hosts otherwise than along the "
            "axis; hand in this host's part, or reshard it with jax.device_put"
        )
    return False


def _blocks_here(sharding: NamedSharding, num_blocks: int) -> range:
    """Which of the blocks of rows this host's devices hold."""
    indices = sharding.addressable_devices_indices_map((num_blocks,)).values()
    blocks = sorted({index[0].start or 0 for index in indices if index is not None})
    if not blocks or blocks != list(range(blocks[0], blocks[-1] + 1)):
        raise ValueError(
            f"mesh: this host's devices hold the blocks {blocks} of {num_blocks} along the axis; "
            "make a mesh in which the devices of a host follow each other (jax.make_mesh does)"
        )
    return range(blocks[0], blocks[-1] + 1)


def _of_all_hosts(part: list[int]) -> np.ndarray:
    """What each host says of its part, a row each."""
    parts = np.asarray([part])
    if jax.process_count() > 1:
        parts = np.asarray(multihost_utils.process_allgather(parts, tiled=True))
    return parts


def _counts(parts: np.ndarray, num_blocks: int) -> tuple[int, ...]:
    """How many points each device along the axis holds.

    Args:
      parts: a row for each host: the first of its blocks, the one after the last, the points that
        it hands in, K and C.
      num_blocks: devices along the axis.
    """
    rows = max(-(-num_points // (stop - start)) for start, stop, num_points, *_ in parts.tolist())
    counts: dict[int, int] = {}
    for start, stop, num_points, *shape in parts.tolist():
        if shape != parts[0, 3:].tolist():
            raise ValueError(
                f"log_probs: [K, C] is {parts[0, 3:].tolist()} on one host and {shape} on another; "
                "hand in predictions by the same samples"
            )
        for block in range(start, stop):
            count = min(max(num_points - (block - start) * rows, 0), rows)
            if counts.setdefault(block, count) != count:
                raise ValueError(
                    f"log_probs: two hosts hold block {block} of the pool, with {counts[block]} "
                    f"and {count} points; hosts that differ only along other axes of the mesh must "
                    "hand in the same part"
                )
    return tuple(counts[block] for block in range(num_blocks))
