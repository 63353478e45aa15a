"""Rounds of several trials, spread over devices: each trial has a device to itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from bbald_jax import pool as pools
from bbald_jax.learning.chunks import map_each
from bbald_jax.loop.driver import Seconds, check_capacity
from bbald_jax.loop.rounds import (
    Data,
    Loop,
    LoopState,
    Round,
    ask,
    check_data,
    evaluate,
    fit,
    keep,
    oracle,
    predict,
    tell,
)
from bbald_jax.typing import CandidateBatch


def run_over_devices(
    loop: Loop,
    states: Sequence[LoopState],
    data: Callable[[int], Data],
    *,
    mesh: Mesh,
    num_rounds: int,
    target_correct: int | None = None,
) -> Iterator[tuple[int, LoopState, Round, Seconds]]:
    """`run` several trials at once, spread over the devices of a mesh.

    Every device fits, evaluates and chooses for its own trials, and nothing is exchanged: one whose
    trial stops early is not held up by the steps of another. The host meets them after each part of
    a round. A trial's result is that of `run` but for rounding, where the compiler cuts a sum in
    another way.

    On several hosts all make the same call, and all yield the same.

    Args:
      loop: as for `run`, with a learner in JAX.
      states: one a trial, each at a round of its own.
      data: `data(trial)` are the arrays of one trial, of equal shapes for all. It is asked only for
        trials whose device is on this host.
      mesh: of one axis. Where there are more trials than devices a device has several, one after
        the other (an accelerator fits their networks together, by one vmapped function).
      num_rounds: R, for each.
      target_correct: for each.

    Yields:
      The trial's position, and what `run` yields. `Seconds` are a trial's share of the time.

    Raises:
      ValueError: `loop.capacity` is too small for all the labels of a trial; or as `evaluate`.
    """
    states = list(states)
    for state in states:
        check_capacity(loop, state, num_rounds=num_rounds)
    on_devices, their_data = _place(loop, mesh, states, data)
    going_on = [trial for trial, state in enumerate(states) if int(state.round) <= num_rounds]
    while going_on:
        clock = [time.perf_counter()]
        learned = jax.block_until_ready(_each(fit, loop, mesh, on_devices, their_data))
        clock.append(time.perf_counter())
        evaluations = _on_host(_each(evaluate, loop, mesh, on_devices, learned, their_data))
        clock.append(time.perf_counter())
        ends = {
            trial
            for trial in going_on
            if int(states[trial].round) == num_rounds
            or (target_correct is not None and evaluations.num_correct[trial] >= target_correct)
            or not bool(jnp.any(pools.available(states[trial].pool)))
        }
        acquired = None
        if len(ends) < len(going_on):
            # Trials that are over stay in, and where they are: with fewer, it would be compiled
            # again.
            left = [jnp.asarray(t in going_on and t not in ends) for t in range(len(states))]
            goes_on = _spread(mesh, left.__getitem__, len(states))
            on_devices, batches = _each(
                _acquire, loop, mesh, on_devices, learned, their_data, goes_on
            )
            acquired = _on_host((on_devices._replace(key=None), batches))
        clock.append(time.perf_counter())
        seconds = Seconds(*((end - start) / len(going_on) for start, end in pairwise(clock)))
        for trial in tuple(going_on):
            before, batch = states[trial], None
            if trial in ends:
                going_on.remove(trial)
            else:
                changed, batch = jax.tree.map(lambda leaf: leaf[trial], acquired)  # noqa: B023
                changed = jax.device_put(changed, jax.local_devices()[0])
                states[trial] = changed._replace(key=before.key)
            evaluation = jax.tree.map(lambda leaf: leaf[trial], evaluations)  # noqa: B023
            measured = Round(before.round, pools.num_labelled(before.pool), evaluation, batch)
            yield trial, states[trial], measured, seconds


def _acquire(
    loop: Loop, state: LoopState, learned: Any, data: Data, goes_on: Bool[Array, ""]
) -> tuple[LoopState, CandidateBatch]:
    """The rest of a round, after its evaluation; a trial that is over keeps its state."""
    asked, batch = ask(loop, state, predict(loop, state, learned, data))
    told = keep(tell(asked, batch.indices, oracle(data, batch.indices)), learned)
    old = state._replace(key=None)
    new = jax.tree.map(partial(jnp.where, goes_on), told._replace(key=None), old)
    return new._replace(key=state.key), batch


@partial(jax.jit, static_argnums=(0, 1, 2))
def _each(function: Callable[..., Any], loop: Loop, mesh: Mesh, *trials: Any) -> Any:
    """`function(loop, *trial)` of every trial, on its device, where all that is of a trial lies."""

    def here(*trials: Any) -> Any:
        if jax.tree.leaves(trials)[0].shape[0] == 1:  # not even a loop of one pass around it
            alone = function(loop, *jax.tree.map(lambda leaf: leaf[0], trials))
            return jax.tree.map(lambda leaf: leaf[None], alone)
        # Small steps of training leave an accelerator partly idle; the rest fills it alone.
        return (map_each if function is fit else lax.map)(
            lambda trial: function(loop, *trial), trials
        )

    along = PartitionSpec(*mesh.axis_names)
    spread = jax.shard_map(here, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    return spread(*trials)


def _place(
    loop: Loop, mesh: Mesh, states: Sequence[LoopState], data: Callable[[int], Data]
) -> tuple[LoopState, Data]:
    """States and data, each on its trial's device; looked at first, as no traced function can."""

    def arrays(trial: int) -> tuple[LoopState, Data]:
        state, its_data = states[trial], data(trial)
        check_data(loop, state, its_data)
        return state, its_data

    return _spread(mesh, arrays, len(states))


def _spread(mesh: Mesh, make: Callable[[int], Any], num_trials: int) -> Any:
    """`make(trial)` of every trial, stacked, on its device; the last one fills the devices up."""
    devices = mesh.devices.ravel()
    at_once = -(-num_trials // len(devices))
    here = []
    for place, device in enumerate(devices):
        if device.process_index != jax.process_index():
            continue
        trials = range(place * at_once, (place + 1) * at_once)
        made = [make(min(trial, num_trials - 1)) for trial in trials]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
        here.append(jax.device_put(stacked, device))
    sharding = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))

    def join(*parts: Array) -> Array:
        shape = (at_once * len(devices), *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    return jax.tree.map(join, *here)


def _on_host(tree: Any) -> Any:
    """NumPy arrays of all trials, on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))
