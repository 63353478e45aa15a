"""A configured experiment on disk: data set, trials, and a folder from which it can continue."""

import importlib.metadata
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from bbald_jax import loop as loops
from bbald_jax.acquisition.functions import catalogue
from bbald_jax.experiment import checkpoint, results
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.experiment.keys import trial_key
from bbald_jax.experiment.learners import make_learner, with_features
from bbald_jax.experiment.results import Line
from bbald_jax.experiment.splits import Split, gather, split, targets
from bbald_jax.loop.rounds import Data, Loop, LoopState, Round

_LEAST_CAPACITY = 32


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


def load(config: Config) -> Dataset:
    """The data set of a configuration.

    Raises:
      ValueError, DatasetUnavailableError, ModuleNotFoundError: see `load_dataset`.
    """
    return load_dataset(
        config.dataset, num_repeats=config.num_repeats, noise=config.noise, seed=config.seed
    )


def run(
    config: Config,
    folder: Path,
    dataset: Dataset | None = None,
    *,
    features_folder: Path | None = None,
) -> Iterator[Line]:
    """Run what is left of an experiment, and yield each round's line as the round ends.

    A run killed at any moment continues from its last finished round, to the same result, and so
    does one that is extended (on an accelerator, and for an extended run of the logistic head, to
    rounding): the line is on disk before the state is saved, and both before the line is yielded.

    Args:
      config: what to run.
      folder: opened for this configuration by `results.open_folder`.
      dataset: that of the configuration, where the caller has loaded it already.
      features_folder: where its features are kept; `folder` by default.

    Raises:
      ConfigError: the data set cannot serve the configuration (before anything is run).
      ResultsError: `rounds.jsonl` is damaged.
    """
    if dataset is None:
        dataset = load(config)
    _check_acquisition(config)  # before features are made, which takes a while
    dataset = with_features(config, dataset, features_folder or folder)
    splits = [split(config, dataset, trial) for trial in range(config.num_trials)]
    return _run(config, dataset, splits, folder)


def _check_acquisition(config: Config) -> None:
    requires = catalogue()[config.acquisition].requires
    if "gaussian" in requires and config.learner != "logistic-head":
        raise ConfigError(
            f"--acquisition {config.acquisition}: it requires the Gaussian posterior of --learner "
            f"logistic-head; take that, or {config.acquisition.removesuffix('-closed')}."
        )


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
            if loop.learner.needs_labels and line["num_labelled"] == 0:
                # The batch was drawn at random: no score of the acquisition function chose it.
                unknown = [None] * len(line["indices"])
                line |= {"scores": unknown, "gains": unknown, "remaining_entropy": []}
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
    data = gather(dataset, *splits[trial])
    if {"target_log_probs", "gaussian"} & {*loop.acquisition.requires}:
        data = data._replace(x_target=data.x[targets(config, trial, len(data.y))])
    learned = None
    if loop.learner.warm_start:
        learned = loop.learner.init(trial_key(config, trial, "warm start"), data.x)
    state = loops.init(
        trial_key(config, trial, "run"),
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
    """Learner and acquisition function, the same for all trials."""
    num_initial = config.initial_per_class * dataset.num_classes
    most_labelled = num_initial + config.num_rounds * config.acquisition_size
    # A run that is extended has another capacity, and must have the same bits. C ** capacity bounds
    # the configurations, too, and a few labels would bound them below M.
    most_labelled = max(most_labelled, _LEAST_CAPACITY)
    return Loop(
        learner=make_learner(config, dataset),
        acquisition=catalogue(num_configurations=config.num_configurations)[config.acquisition],
        batch_size=config.acquisition_size,
        num_samples=config.num_samples,
        capacity=min(most_labelled, len(dataset.y_train)),
    )


def _line(config: Config, trial: _Trial, measured: Round, *, num_classes: int) -> Line:
    """One round as plain Python values, its indices those of the data set's training points."""
    num_test = len(trial.data.y_test)
    num_labelled = int(measured.num_labelled)
    num_correct = int(measured.evaluation.num_correct)
    line = {
        "trial": trial.number,
        "trial_key": jax.random.key_data(trial_key(config, trial.number)).tolist(),
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
