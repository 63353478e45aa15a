"""Checkpoints: what is saved comes back, and a save that never finished is not there."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from bbald_jax import loop as loops
from bbald_jax.experiment import checkpoint
from bbald_jax.loop.rounds import LoopState


def make_state(seed: int) -> LoopState:
    classes = jnp.arange(20, dtype=jnp.int32) % 3
    state = loops.init(jax.random.key(seed), classes, num_classes=3, initial_per_class=2)
    return state._replace(round=jnp.int32(seed))


def test_nothing_saved_gives_the_state_passed_in(tmp_path: Path):
    chex.assert_trees_all_equal(
        checkpoint.restore(tmp_path, make_state(0), most_rounds=9), make_state(0)
    )


def test_the_last_state_comes_back(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    for seed in (1, 2, 3):
        checkpoint.save(folder, seed, make_state(seed))
    restored = checkpoint.restore(folder, make_state(0), most_rounds=9)
    assert isinstance(restored, LoopState)
    chex.assert_trees_all_equal(restored, make_state(3))
    assert [leaf.dtype for leaf in jax.tree.leaves(restored)] == [
        leaf.dtype for leaf in jax.tree.leaves(make_state(3))
    ]
    # The key still is one.
    assert jax.random.uniform(restored.key) == jax.random.uniform(make_state(3).key)


def test_a_relative_folder_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("here"), 1, make_state(1))
    assert (tmp_path / "here" / "1").is_dir()


def test_old_states_are_removed(tmp_path: Path):
    for seed in range(5):
        checkpoint.save(tmp_path, seed, make_state(seed))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_a_save_that_was_cut_short_is_ignored(tmp_path: Path):
    checkpoint.save(tmp_path, 1, make_state(1))
    (tmp_path / "2.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    chex.assert_trees_all_equal(
        checkpoint.restore(tmp_path, make_state(0), most_rounds=9), make_state(1)
    )
    checkpoint.save(tmp_path, 2, make_state(2))
    chex.assert_trees_all_equal(
        checkpoint.restore(tmp_path, make_state(0), most_rounds=9), make_state(2)
    )


def test_states_after_rounds_that_are_lost_are_given_up(tmp_path: Path):
    for seed in (3, 4):
        checkpoint.save(tmp_path, seed, make_state(seed))
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=3)
    chex.assert_trees_all_equal(restored, make_state(3))
    checkpoint.save(tmp_path, 4, make_state(5))
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=4)
    chex.assert_trees_all_equal(restored, make_state(5))
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=2)
    chex.assert_trees_all_equal(restored, make_state(0))


def each_file(state: Path, change: Callable[[bytes], bytes]) -> None:
    for path in state.rglob("*"):
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: each_file(state, lambda content: content[: len(content) // 2]),
        lambda state: each_file(state, lambda content: b""),
        lambda state: each_file(state, lambda content: bytes(len(content))),
        lambda state: (state / "default" / "_METADATA").unlink(),
        lambda state: (state / "default" / "manifest.ocdbt").unlink(),
        lambda state: shutil.rmtree(state / "default" / "d"),
        lambda state: shutil.rmtree(state / "default"),
    ],
    ids=["cut", "empty", "zeros", "no metadata", "no manifest", "no data", "nothing"],
)
def test_a_damaged_state_is_named_and_the_one_before_it_restored(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    for seed in (1, 2):
        checkpoint.save(tmp_path, seed, make_state(seed))
    damage(tmp_path / "2")
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=9)
    chex.assert_trees_all_equal(restored, make_state(1))
    (said,) = (r.getMessage() for r in caplog.records if r.name.startswith("bbald_jax"))
    assert f"{tmp_path}: the state after round 2 is damaged; going on from the state after" in said
    # Its round can be saved again.
    checkpoint.save(tmp_path, 2, make_state(2))
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=9)
    chex.assert_trees_all_equal(restored, make_state(2))


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception, round_index: int) -> None:
    """Orbax cannot restore the state after this round."""
    restore = ocp.CheckpointManager.restore

    def failing(manager: ocp.CheckpointManager, step: int, **kwargs: Any) -> Any:
        if step == round_index:
            raise error
        return restore(manager, step, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", failing)


def test_a_part_that_is_missing_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for seed in (1, 2):
        checkpoint.save(tmp_path, seed, make_state(seed))
    fail_with(monkeypatch, FileNotFoundError("No structure could be identified"), 2)
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=9)
    chex.assert_trees_all_equal(restored, make_state(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        ValueError(f"Error reading [os_error_code='{errno.ESTALE}']"),
        MemoryError(),
    ],
    ids=["permission", "device", "network, by TensorStore", "memory"],
)
def test_a_state_that_cannot_be_read_now_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    for seed in (1, 2):
        checkpoint.save(tmp_path, seed, make_state(seed))
    with monkeypatch.context() as patch:
        fail_with(patch, error, 2)
        with pytest.raises((OSError, MemoryError)):
            checkpoint.restore(tmp_path, make_state(0), most_rounds=9)
    restored = checkpoint.restore(tmp_path, make_state(0), most_rounds=9)
    chex.assert_trees_all_equal(restored, make_state(2))
