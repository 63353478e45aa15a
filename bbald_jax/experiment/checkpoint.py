"""Saving the state of a run, atomically, after every round."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")

_LOGGER = logging.getLogger(__name__)


def save(folder: Path, round_index: int, state: object) -> None:
    """Save a pytree of arrays and keys as the state after `round_index` rounds.

    It is written beside the last states and renamed when it is complete, so a process killed at
    any moment leaves the last finished one. The last two are kept.

    Args:
      folder: of this run; made if it is not there.
      round_index: rises from save to save.
      state: what to save.

    Raises:
      OSError: it cannot be written (the disk is full); the states before it are still there.
    """
    with _open(folder) as manager:
        try:
            manager.save(round_index, args=ocp.args.StandardSave(state))
        except ValueError as error:
            _raise_os_error(error, folder)
            raise


def restore(folder: Path, like: State, *, most_rounds: int) -> State:
    """The last sound state saved after at most `most_rounds` rounds, or `like` when there is none.

    States after more rounds are deleted: what they came from is about to be run again. Damaged
    ones are moved aside, to `<folder>.damaged`, and a warning is logged that names them.

    Args:
      folder: of this run.
      like: a state of the same structure, shapes and dtypes.
      most_rounds: how many rounds the caller has the results of.

    Raises:
      OSError: a state cannot be read now (a network or a permission); none is touched.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    state, damaged = like, []
    # Opened for each state: Orbax takes the last one for the pattern of those before it.
    while (last := _last_round(folder)) is not None:
        with _open(folder) as manager:
            if last <= most_rounds:
                try:
                    arguments = ocp.args.StandardRestore(abstract)
                    state = cast(State, manager.restore(last, args=arguments))
                    break
                except FileNotFoundError:  # older Orbax's error for a part that is missing
                    damaged.append(f"round {last}")
                except (OSError, MemoryError):
                    raise
                except Exception as error:  # one of its own for each kind of damage
                    _raise_os_error(error, folder)
                    damaged.append(f"round {last}")
            else:
                manager.delete(last)
                continue
        aside = folder.with_name(f"{folder.name}.damaged")
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / str(last), ignore_errors=True)
        shutil.move(folder / str(last), aside)
    if damaged:
        _LOGGER.warning(
            "%s: the state after %s is damaged; going on from %s, to the same results",
            folder,
            " and after ".join(damaged),
            "the first round" if last is None else f"the state after round {last}",
        )
    return state


def _raise_os_error(error: Exception, folder: Path) -> None:
    """TensorStore says OSError in a ValueError's words."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        number = int(code.group(1))
        raise OSError(number, os.strerror(number), str(folder)) from error


def _last_round(folder: Path) -> int | None:
    with _open(folder) as manager:
        return manager.latest_step()


@contextmanager
def _open(folder: Path) -> Iterator[ocp.CheckpointManager]:
    # Opened for each use: one left open in a suspended generator hangs the interpreter at its end.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    # It refuses relative paths.
    with _alone(), ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield manager


@contextmanager
def _alone() -> Iterator[None]:
    """In a cluster Orbax saves what all processes hold, together; here one saves what it holds."""
    count = jax.process_count
    jax.process_count = lambda *_: 1
    try:
        yield
    finally:
        jax.process_count = count
