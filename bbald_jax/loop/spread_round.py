"""A batch for one trial from a pool that is spread over the devices of a mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bbald_jax import pool as pools
from bbald_jax.acquisition.sharded import select_sharded
from bbald_jax.learning.sharded_sampling import sample_sharded
from bbald_jax.loop.rounds import (
    Data,
    Loop,
    LoopState,
    mark_pending,
    round_key,
    target_points,
)
from bbald_jax.typing import CandidateBatch


def can_be_spread(loop: Loop) -> bool:
    """Whether the acquisition function takes a spread pool, and looks at nothing but samples."""
    seen = {*loop.acquisition.requires}
    return loop.acquisition.takes_axis_name and seen <= {"log_probs", "target_log_probs"}


def ask_over_devices(
    loop: Loop, state: LoopState, learned: Any, data: Data, mesh: Mesh
) -> tuple[LoopState, CandidateBatch]:
    """`ask` after `predict`, of a pool that is sampled and searched by all devices of the mesh.

    Args:
      loop: with a learner in JAX, and an acquisition function that `can_be_spread`.
      state: of the trial, on one device, as are the other arrays; so is what is returned.
      learned: after the fit.
      data: of the trial.
      mesh: of one axis.
    """
    (axis,) = mesh.axis_names
    everywhere = NamedSharding(mesh, PartitionSpec())
    sample_key, select_key, on_all = jax.device_put(
        (round_key(state, "predict"), round_key(state, "select"), learned), everywhere
    )
    pool = sample_sharded(
        sample_key,
        loop.learner,
        on_all,
        data.x,
        mesh=mesh,
        axis=axis,
        num_samples=loop.num_samples,
        available=pools.available(state.pool),
    )
    targets = None
    if "target_log_probs" in loop.acquisition.requires:
        x_target = target_points(loop, data)
        key = round_key(state, "predict")  # of the same networks
        targets = loop.learner.sample(key, learned, x_target, loop.num_samples)
    batch = select_sharded(
        select_key,
        pool,
        batch_size=loop.batch_size,
        acquisition=loop.acquisition,
        pending=pools.pending_indices(state.pool, capacity=loop.capacity),
        target_log_probs=targets,
    )
    return mark_pending(loop, state, jax.device_get(batch))
