"""Sampling a pool that is spread over devices: each samples its own points, and none waits."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from bbald_jax.acquisition.placing import ShardedPool, place_rows, spread
from bbald_jax.acquisition.pool_axis import Layout
from bbald_jax.learning.learner import Learner
from bbald_jax.typing import Available, Key, LogProbs
from bbald_jax.validation import assert_available, assert_positive


def sample_sharded(
    key: Key,
    learner: Learner,
    state: Any,
    x: Float[Array, "N ..."],
    *,
    mesh: Mesh,
    num_samples: int,
    axis: str | tuple[str, ...] = "pool",
    available: Available | None = None,
) -> ShardedPool:
    """`learner.sample` of a pool that is spread over the devices of a mesh, for `select_sharded`.

    Sample k is the same function on every device, as it depends on the key only. Each device
    samples its own points, and nothing is exchanged. The predictions are those of a single device:
    to the bit where every device holds more points than the learner takes in one chunk (on a CPU
    64 for a network, 4,096 * 256 / (K C) for the logistic head), else but for the rounding of
    matrix products of another size.

    Args:
      key: as for `learner.sample`.
      learner: one in JAX.
      state: after a fit, the same on every host.
      x: `[N, ...]`, the points; placed as `shard_pool` places predictions, so that a NumPy array
        (or one that is mapped into memory) is never copied whole. On several hosts each hands in
        its own part.
      mesh: see `shard_pool`.
      num_samples: K.
      axis: the axis of the mesh, or axes, along which the points are spread.
      available: `[N]` bool, which of these points may be chosen; all by default.

    Returns:
      A `ShardedPool`. Memory on a device: its points and their predictions, and what the learner
      needs beside them.

    Raises:
      ValueError: see `shard_pool`.
    """
    assert_positive(num_samples=num_samples)
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    mask = np.asarray(assert_available(available, len(x)))
    placed = place_rows(mesh, axis, len(x), x.shape[1:])
    log_probs = _sample(
        key,
        state,
        spread(placed, x, 0),
        learner=learner,
        mesh=mesh,
        layout=placed.layout,
        num_samples=int(num_samples),
    )
    return ShardedPool(log_probs, spread(placed, mask, False), mesh, placed.layout)


@partial(jax.jit, static_argnames=("learner", "mesh", "layout", "num_samples"))
def _sample(
    key: Key,
    state: Any,
    x: Array,
    *,
    learner: Learner,
    mesh: Mesh,
    layout: Layout,
    num_samples: int,
) -> LogProbs:
    counts = np.asarray(layout.counts, np.int32)

    def sample(key: Any, state: Any, x: Any) -> Any:
        log_probs = learner.sample(key, state, x, num_samples)
        if (counts == len(x)).all():
            return log_probs
        # What a learner says of a row of zeros may be no number; `shard_pool` pads like this.
        is_point = jnp.arange(len(x)) < jnp.asarray(counts)[lax.axis_index(layout.axis)]
        flat = -np.log(log_probs.shape[2])
        return jnp.where(is_point[:, None, None], log_probs, flat)

    along, everywhere = PartitionSpec(layout.axis), PartitionSpec()
    in_specs = (everywhere, everywhere, along)
    return jax.shard_map(sample, mesh=mesh, in_specs=in_specs, out_specs=along, check_vma=False)(
        key, state, x
    )
