"""A configured experiment on disk: data set, trials, and a folder from which it can continue."""

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bbald_jax import checkpoint, results
from bbald_jax import loop as loops
from bbald_jax.acquisition import catalogue
from bbald_jax.datasets import Dataset, load_dataset
from bbald_jax.loop import Data, Loop, LoopState, Round
from bbald_jax.models import MLP, PaperCNN, flax_model
from bbald_jax.pool import Labelled
from bbald_jax.results import Line
from bbald_jax.training import RECIPES, mc_dropout_learner
from bbald_jax.typing import Key

#: Points of the pool that stand for the inputs to be predicted, where an acquisition function asks
#: for targets (EPIG). A mean over 500 has a standard error of 1/22 of the standard deviation
#: between targets.
NUM_TARGETS = 500


class ConfigError(ValueError):
    """A configuration that its data set cannot serve; the message names the option and the fix."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of an experiment; `bbald run --help` explains each."""

    dataset: str = "digits"
    acquisition: str = "batchbald"
    acquisition_size: int = 10
    num_samples: int = 100
    num_configurations: int = 10_000
    num_rounds: int = 10
    target_accuracy: float | None = None
    initial_per_class: int = 2
    pool_size: int | None = None
    num_repeats: int = 3
    noise: float = 0.1
    recipe: str = "paper"
    seed: int = 0
    num_trials: int = 1


class Split(NamedTuple):
    """Indices into a data set's training points: the pool, and the validation set."""

    pool: np.ndarray
    validation: np.ndarray


def environment() -> Line:
    """Versions and device, to be kept beside the results."""
    packages = ("bbald_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "device": str(jax.devices()[0].device_kind),
    }


def run(config: Config, folder: Path) -> Iterator[Line]:
    """Run what is left of an experiment, and yield each round's line as the round ends.

    A run killed at any moment continues from its last finished round, to the same result (on an
    accelerator to rounding): the line is on disk before the state is saved, and both before the
    line is yielded.

    Args:
      config: what to run.
      folder: opened for this configuration by `results.open_folder`.

    Raises:
      ConfigError: the data set cannot serve the configuration (before anything is run).
      ResultsError: `rounds.jsonl` is damaged.
    """
    dataset = load_dataset(
        config.dataset, num_repeats=config.num_repeats, noise=config.noise, seed=config.seed
    )
    splits = [split(config, dataset, trial) for trial in range(config.num_trials)]
    return _run(config, dataset, splits, folder)


def _run(config: Config, dataset: Dataset, splits: list[Split], folder: Path) -> Iterator[Line]:
    target_correct = None
    if config.target_accuracy is not None:
        target_correct = results.num_correct_for(config.target_accuracy, len(dataset.y_test))
    loop = make_loop(config, dataset)
    size = _num_together(config, dataset, loop, splits)
    for first in range(0, config.num_trials, size):
        group = range(first, min(first + size, config.num_trials))
        lines = results.read_rounds(folder)
        if all(is_finished(lines, trial) for trial in group):
            continue
        trials = [_start(config, dataset, loop, trial, splits) for trial in group]
        trials = [_restore(folder, trial) for trial in trials]
        rounds = loops.run_together(
            loop,
            [trial.state for trial in trials],
            [trial.data for trial in trials],
            num_rounds=config.num_rounds,
            target_correct=target_correct,
        )
        for position, next_state, measured, seconds in rounds:
            trial = trials[position]
            line = _line(config, trial, measured, num_classes=dataset.num_classes)
            line |= {f"seconds_{part}": round(s, 4) for part, s in seconds._asdict().items()}
            results.append_round(folder, line)
            if measured.batch is not None:  # else the state is the one that is saved already
                checkpoint.save(
                    _checkpoints(folder, trial.number), int(next_state.round), next_state
                )
            yield line


class _Trial(NamedTuple):
    """One trial: what it starts or goes on from, and on what part of the data set."""

    number: int
    state: LoopState
    data: Data
    pool_indices: np.ndarray


def _start(config: Config, dataset: Dataset, loop: Loop, trial: int, splits: list[Split]) -> _Trial:
    data = _gather(dataset, *splits[trial])
    if "target_log_probs" in loop.acquisition.requires:
        data = data._replace(x_target=data.x[_targets(config, trial, len(data.y))])
    learned = None
    if loop.learner.warm_start:
        learned = loop.learner.init(_trial_key(config, trial, "warm start"), data.x)
    state = loops.init(
        _trial_key(config, trial, "run"),
        data.y,
        num_classes=dataset.num_classes,
        initial_per_class=config.initial_per_class,
        learned=learned,
    )
    return _Trial(trial, state, data, splits[trial].pool)


def _restore(folder: Path, trial: _Trial) -> _Trial:
    """The trial after its last finished round.

    A line is written before its state is saved, so the state is the one to go on from, and lines
    beyond it (and the end of one that a kill cut short) are forgotten.
    """
    lines = results.read_rounds(folder)
    state = checkpoint.restore(
        _checkpoints(folder, trial.number),
        trial.state,
        most_rounds=sum(line["trial"] == trial.number for line in lines),
    )
    # New or restored, on the same terms: else jit compiles for each.
    state = jax.device_put(state, jax.devices()[0])
    num_rounds = int(state.round)
    results.write_rounds(
        folder, [x for x in lines if x["trial"] != trial.number or x["round"] < num_rounds]
    )
    return trial._replace(state=state)


def _checkpoints(folder: Path, trial: int) -> Path:
    return folder / "checkpoints" / f"trial_{trial}"


def _num_together(config: Config, dataset: Dataset, loop: Loop, splits: list[Split]) -> int:
    """How many trials to run at once: on an accelerator as many as half of its memory holds."""
    memory = _accelerator_bytes()
    if memory is None or config.num_trials == 1:
        return 1
    trial = _start(config, dataset, loop, 0, splits)
    arguments = loops.fit_arguments(loop, trial.state, trial.data)
    needed = jax.jit(loop.learner.fit).lower(*arguments).compile().memory_analysis()
    if needed is None:
        return 1
    num_bytes = needed.temp_size_in_bytes + needed.output_size_in_bytes
    num_bytes += sum(leaf.nbytes for leaf in jax.tree.leaves(trial.data))
    num_groups = math.ceil(config.num_trials / max(1, memory // (2 * num_bytes)))
    return math.ceil(config.num_trials / num_groups)  # equal groups: one more is compiled again


def _accelerator_bytes() -> int | None:
    """The memory of the accelerator; None on a CPU, or where it is not told."""
    device = jax.devices()[0]
    memory = device.memory_stats()
    return None if device.platform == "cpu" or memory is None else memory["bytes_limit"]


def is_finished(lines: list[Line], trial: int) -> bool:
    """Whether a trial has its last round."""
    return any(line["trial"] == trial and line["is_last"] for line in lines)


def make_loop(config: Config, dataset: Dataset) -> Loop:
    """Network, recipe and acquisition function, the same for all trials."""
    num_initial = config.initial_per_class * dataset.num_classes
    most_labelled = num_initial + config.num_rounds * config.acquisition_size
    network = MLP if dataset.name == "digits" else PaperCNN
    return Loop(
        learner=mc_dropout_learner(
            flax_model(network(dataset.num_classes)), RECIPES[config.recipe]
        ),
        acquisition=catalogue(num_configurations=config.num_configurations)[config.acquisition],
        batch_size=config.acquisition_size,
        num_samples=config.num_samples,
        capacity=max(1, min(most_labelled, len(dataset.y_train))),
    )


def split(config: Config, dataset: Dataset, trial: int) -> Split:
    """The random parts of the training points that a trial uses.

    Never more than a sixth of the images is set apart for validation. A repeated image goes into
    the pool with all its copies, or not at all.

    Raises:
      ConfigError: the data set is too small for the configuration.
    """
    num_images = len(dataset.y_train) // dataset.num_repeats
    num_validation = min(RECIPES[config.recipe].num_validation, num_images // 6)
    images = jax.random.permutation(_trial_key(config, trial, "split"), num_images)
    validation, rest = np.split(np.asarray(images), [num_validation])
    in_pool = np.sort(rest[: _num_pool_images(config, dataset, len(rest))])
    # Copy r of image i has index r * num_images + i.
    pool = (np.arange(dataset.num_repeats)[:, None] * num_images + in_pool).ravel()

    counts = np.bincount(dataset.y_train[pool], minlength=dataset.num_classes)
    if counts.min() < config.initial_per_class:
        raise ConfigError(
            f"--initial-per-class {config.initial_per_class}: the pool of {len(pool)} points has "
            f"only {counts.min()} of class {counts.argmin()}; lower it, or raise --pool-size."
        )
    return Split(pool, validation)


def _targets(config: Config, trial: int, num_points: int) -> Int[Array, "T"]:
    """Which points of the pool are targets, labelled or not: the same in every round of a trial.

    EPIG wants samples from the distribution of the inputs to be predicted. A random part of the
    pool is that, as the test points come from the same data set; its labels are not looked at.
    """
    key = _trial_key(config, trial, "targets")
    return jax.random.permutation(key, num_points)[:NUM_TARGETS]


_PURPOSES = ("split", "run", "targets", "warm start")


def _trial_key(config: Config, trial: int, purpose: str | None = None) -> Key:
    """Everything random in a trial comes from `fold_in(key(seed), trial)`."""
    key = jax.random.fold_in(jax.random.key(config.seed), trial)
    return key if purpose is None else jax.random.fold_in(key, _PURPOSES.index(purpose))


def _gather(dataset: Dataset, pool: np.ndarray, validation: np.ndarray) -> Data:
    return Data(
        x=jnp.asarray(dataset.x_train[pool]),
        y=jnp.asarray(dataset.y_train[pool]),
        validation=Labelled(
            jnp.asarray(dataset.x_train[validation]),
            jnp.asarray(dataset.y_train[validation]),
            jnp.int32(len(validation)),
        ),
        x_test=jnp.asarray(dataset.x_test),
        y_test=jnp.asarray(dataset.y_test),
    )


def _num_pool_images(config: Config, dataset: Dataset, num_left: int) -> int:
    """How many images, of those left after validation, go into the pool."""
    if config.pool_size is None:
        return num_left
    most = num_left * dataset.num_repeats
    if config.pool_size > most:
        raise ConfigError(
            f"--pool-size {config.pool_size}: {dataset.name} has {most} points for the pool; lower "
            "it, or leave it out to take them all."
        )
    num_images, rest = divmod(config.pool_size, dataset.num_repeats)
    if rest or num_images == 0:
        raise ConfigError(
            f"--pool-size {config.pool_size}: a pool of repeated images holds all "
            f"{dataset.num_repeats} copies of each; take a multiple, such as "
            f"{max(num_images, 1) * dataset.num_repeats}."
        )
    return num_images


def _line(config: Config, trial: _Trial, measured: Round, *, num_classes: int) -> Line:
    """One round as plain Python values, its indices those of the data set's training points."""
    num_test = len(trial.data.y_test)
    num_labelled = int(measured.num_labelled)
    num_correct = int(measured.evaluation.num_correct)
    line = {
        "trial": trial.number,
        "trial_key": jax.random.key_data(_trial_key(config, trial.number)).tolist(),
        "round": int(measured.round),
        "num_labelled": num_labelled,
        "num_acquired": num_labelled - config.initial_per_class * num_classes,
        "num_correct": num_correct,
        "num_test": num_test,
        "accuracy": num_correct / num_test,
        "nll": float(measured.evaluation.nll),
        "is_last": measured.batch is None,
        "indices": [],
        "classes": [],
        "scores": [],
        "gains": [],
        "remaining_entropy": [],
    }
    if measured.batch is not None:
        is_filled = np.asarray(measured.batch.indices) >= 0
        positions = np.asarray(measured.batch.indices)[is_filled]
        line |= {
            "indices": trial.pool_indices[positions].tolist(),
            "classes": np.asarray(trial.data.y)[positions].tolist(),
            "scores": np.asarray(measured.batch.scores)[is_filled].tolist(),
            "gains": np.asarray(measured.batch.gains)[is_filled].tolist(),
        }
        # Only joint functions know it.
        remaining = getattr(measured.batch.diagnostics, "remaining_entropy", None)
        if remaining is not None:
            line["remaining_entropy"] = np.asarray(remaining)[is_filled].tolist()
    return line
