"""A batch from a pool that is spread over many devices, and hosts: that of a single device."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from bbald_jax.acquisition.functions import catalogue, find
from bbald_jax.acquisition.inputs import Acquisition, Inputs
from bbald_jax.acquisition.placing import ShardedPool, shard_pool
from bbald_jax.acquisition.pool_axis import Layout, pool_axis
from bbald_jax.acquisition.progress import Progress
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending, TargetLogProbs
from bbald_jax.validation import assert_positive


def select_sharded(
    key: Key,
    pool: ShardedPool,
    *,
    batch_size: int,
    acquisition: str | Acquisition = "batchbald",
    pending: Pending | np.ndarray | None = None,
    target_log_probs: ShardedPool | TargetLogProbs | np.ndarray | None = None,
    num_configurations: int = 10_000,
    progress: Progress | None = None,
) -> CandidateBatch:
    """The batch of a pool that is spread over devices: the one that a single device would choose.

    Every device searches its own points; at each step they agree on the best gain and on the point
    of highest priority among equals, and the one that has that point sends its `[K, C]` to all.
    What else there is to know (the tree of configurations) every device keeps for itself. So scores
    and gains are those of a single device but for the rounding of sums that are cut differently,
    about 1e-6 nats; points whose gains differ by less than 1e-6 are told apart by the key alone,
    there as here.

    Call it on every host, with the same arguments but for the pool, which holds what each handed
    in. All devices must be of one kind: they make the same decisions because they compute the same
    numbers.

    Args:
      key: as for the single-device function of that name.
      pool: from `shard_pool`.
      batch_size: B, at least 1; it may exceed N.
      acquisition: a name from `catalogue()`, of a function of predictions (not of features); or an
        `Acquisition` of your own that takes `axis_name`.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
      target_log_probs: for functions that require targets: from `shard_pool`, of the same mesh and
        axis, or as `shard_pool` takes them. Every point meets every target; each device passes its
        share of the targets once round.
      num_configurations: M, for functions taken by name; see `select_batchbald`.
      progress: as in `select_batchbald`, for functions taken by name; called on the host of the
        first device.

    Returns:
      As the single-device function, the same on every device and host; indices count the points of
      the whole pool, through the parts of all hosts. Memory on a device: as for a single one, with
      its own share of the points. Exchanged, for each device and step: K C floats and a few
      numbers; once 2 B gains for the certificate of BatchBALD, and 2 B scores and indices for
      functions that score each point alone. `softrank-bald` ranks the whole pool on every device:
      one float for each point is exchanged; it and other functions that draw at random make
      the random number of every point on every device.

    Raises:
      ValueError: a function that cannot be spread, or lacks its targets; targets of another mesh;
        a size below 1.
    """
    assert_positive(batch_size=batch_size, num_configurations=num_configurations)
    acquisition = find(acquisition, num_configurations=num_configurations, progress=progress)
    if not acquisition.takes_axis_name:
        able = (name for name, function in catalogue().items() if function.takes_axis_name)
        raise ValueError(
            f"acquisition: {acquisition.name} needs the whole pool on one device; choose one of "
            f"{', '.join(able)}, or an Acquisition of your own that takes axis_name"
        )
    targets = target_log_probs
    if targets is not None and not isinstance(targets, ShardedPool):
        targets = shard_pool(pool.mesh, targets, axis=pool.layout.axis)
    if targets is not None and (targets.mesh, targets.layout.axis) != (pool.mesh, pool.layout.axis):
        raise ValueError(
            "target_log_probs: spread over another mesh, or along another axis, than the pool; "
            "spread both with the same mesh and axis"
        )
    more = [name for name in acquisition.requires if name not in ("log_probs", "target_log_probs")]
    if more:
        raise ValueError(
            f"acquisition: {acquisition.name} requires {more[0]}, and a sharded pool has "
            "predictions only; call it inside your own shard_map"
        )
    if targets is None and "target_log_probs" in acquisition.requires:
        raise ValueError(
            f"target_log_probs: {acquisition.name} requires predictions for target points, by the "
            "same posterior samples as those for the pool; pass them, or some rows of the pool"
        )
    return _select(
        key,
        pool.log_probs,
        pool.available,
        None if pending is None else np.asarray(pending, np.int32),
        None if targets is None else targets.log_probs,
        batch_size=int(batch_size),
        acquisition=acquisition,
        mesh=pool.mesh,
        layout=pool.layout,
        target_layout=None if targets is None else targets.layout,
    )


@partial(jax.jit, static_argnames=("batch_size", "acquisition", "mesh", "layout", "target_layout"))
def _select(
    key: Key,
    log_probs: LogProbs,
    available: Available,
    pending: Pending | None,
    targets: TargetLogProbs | None,
    *,
    batch_size: int,
    acquisition: Acquisition,
    mesh: Mesh,
    layout: Layout,
    target_layout: Layout | None,
) -> CandidateBatch:
    def select(key: Any, log_probs: Any, available: Any, pending: Any, targets: Any) -> Any:
        if target_layout is not None:
            axis = pool_axis(target_layout, len(targets))
            is_target = jnp.arange(axis.num_rows) < axis.held
            # What is no number is left out.
            targets = jnp.where(is_target[:, None, None], targets, jnp.nan)
        return acquisition.select(
            key,
            Inputs(log_probs, targets),
            batch_size=batch_size,
            available=available,
            pending=pending,
            axis_name=layout,
        )

    along, everywhere = PartitionSpec(layout.axis), PartitionSpec()
    return jax.shard_map(
        select,
        mesh=mesh,
        in_specs=(everywhere, along, along, everywhere, along),
        out_specs=everywhere,
        # What is the same on every device is so by computation, which JAX cannot see.
        check_vma=False,
    )(key, log_probs, available, pending, targets)
