"""Saving the state of a run, atomically, after every round."""

from pathlib import Path
from typing import TypeVar, cast

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")


class Checkpoints:
    """The last states of one run, in a folder; a context manager.

    Each save is written beside the others and renamed when it is complete, so that a process
    killed at any moment leaves the last finished state.

    Args:
      folder: made if it is not there.
    """

    def __init__(self, folder: Path):
        self._manager = ocp.CheckpointManager(
            folder.absolute(),  # orbax refuses relative paths
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False, create=True
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, round_index: int, state: object) -> None:
        """Save a pytree of arrays and keys as the state after `round_index` rounds."""
        self._manager.save(round_index, args=ocp.args.StandardSave(state))

    def restore(self, like: State) -> State:
        """The last state saved, or `like` itself when there is none.

        Args:
          like: a state of the same structure, shapes and dtypes.
        """
        latest = self._manager.latest_step()
        if latest is None:
            return like
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(latest, args=ocp.args.StandardRestore(abstract))
        return cast(State, restored)
