"""Saving the state of a run, atomically, after every round."""

from pathlib import Path
from typing import TypeVar, cast

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")


def save(folder: Path, round_index: int, state: object) -> None:
    """Save a pytree of arrays and keys as the state after `round_index` rounds.

    It is written beside the last states and renamed when it is complete, so a process killed at
    any moment leaves the last finished one. The last two are kept.

    Args:
      folder: of this run; made if it is not there.
      round_index: rises from save to save.
      state: what to save.
    """
    with _open(folder) as manager:
        manager.save(round_index, args=ocp.args.StandardSave(state))


def restore(folder: Path, like: State, *, most_rounds: int) -> State:
    """The last state saved after at most `most_rounds` rounds, or `like` when there is none.

    States after more rounds are deleted: what they came from is about to be run again.

    Args:
      folder: of this run.
      like: a state of the same structure, shapes and dtypes.
      most_rounds: how many rounds the caller has the results of.
    """
    with _open(folder) as manager:
        rounds = sorted(manager.all_steps())
        for later in (r for r in rounds if r > most_rounds):
            manager.delete(later)
        usable = [r for r in rounds if r <= most_rounds]
        if not usable:
            return like
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.StandardRestore(abstract)
        return cast(State, manager.restore(usable[-1], args=arguments))


def _open(folder: Path) -> ocp.CheckpointManager:
    # Opened for each use: one left open in a suspended generator hangs the interpreter at its end.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.absolute(), options=options)  # it refuses relative paths
