"""A configured experiment on disk: data set, trials, and a folder from which it can continue."""

import importlib.metadata
import math
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from bbald_jax import loop as loops
from bbald_jax.acquisition.functions import catalogue
from bbald_jax.experiment import checkpoint, results
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.experiment.keys import trial_key
from bbald_jax.experiment.learners import make_learner, with_features
from bbald_jax.experiment.processes import arrays_from_first, from_first, is_first
from bbald_jax.experiment.results import Line
from bbald_jax.experiment.splits import Split, gather, split, targets
from bbald_jax.loop.rounds import Data, Loop, LoopState, Round
from bbald_jax.typing import Device

_LEAST_CAPACITY = 32

#: Predictions of a pool that takes seconds to be chosen from: it is spread over several devices.
LARGE_POOL = 5_000_000


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
    devices: Sequence[Device] = (),
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
      devices: the trials are spread over them; by default one after the other has the first. In a
        cluster all processes name the same ones, of all of them; the first process writes.

    Raises:
      ConfigError: the data set cannot serve the configuration (before anything is run).
      ResultsError: `rounds.jsonl` is damaged.
    """
    if dataset is None:
        dataset = load(config)
    _check_acquisition(config)  # before features are made, which takes a while
    with _place_for_features(features_folder or folder) as features_folder:
        dataset = with_features(config, dataset, features_folder)
    splits = [split(config, dataset, trial) for trial in range(config.num_trials)]
    return _run(config, dataset, splits, folder, devices or jax.local_devices()[:1])


@contextmanager
def _place_for_features(folder: Path) -> Iterator[Path]:
    """The folder, or one of its own for a process that does not write results."""
    if is_first():
        yield folder
        return
    with tempfile.TemporaryDirectory() as own:
        yield Path(own)


def _check_acquisition(config: Config) -> None:
    requires = catalogue()[config.acquisition].requires
    if "gaussian" in requires and config.learner != "logistic-head":
        raise ConfigError(
            f"--acquisition {config.acquisition}: it requires the Gaussian posterior of --learner "
            f"logistic-head; take that, or {config.acquisition.removesuffix('-closed')}."
        )


def _run(
    config: Config,
    dataset: Dataset,
    splits: list[Split],
    folder: Path,
    devices: Sequence[Device],
) -> Iterator[Line]:
    target_correct = None
    if config.target_accuracy is not None:
        target_correct = results.num_correct_for(config.target_accuracy, len(dataset.y_test))
    loop = make_loop(config, dataset)
    size = _num_together(config, dataset, loop, splits, len(devices))
    mesh = _mesh(devices, size)
    for first in range(0, config.num_trials, size):
        group = range(first, min(first + size, config.num_trials))
        lines = from_first(lambda: results.read_rounds(folder))
        if all(is_finished(lines, trial) for trial in group):
            continue
        trials = [_restore(folder, _start(config, dataset, loop, i, splits)) for i in group]
        states = [trial.state for trial in trials]
        ends = {"num_rounds": config.num_rounds, "target_correct": target_correct}
        if mesh is None:
            data = [trial.data for trial in trials if trial.data is not None]
            rounds = loops.run_together(
                loop, states, data, mesh=_pool_mesh(loop, dataset, data, devices), **ends
            )
        else:
            # Not the arrays of all trials on this device: each goes to its own.
            trials = [trial._replace(data=None) for trial in trials]
            rounds = loops.run_over_devices(
                loop, states, _Arrays(config, dataset, loop, group, splits), mesh=mesh, **ends
            )
        for position, next_state, measured, seconds in rounds:
            trial = trials[position]
            line = _line(config, trial, measured, dataset)
            if loop.learner.needs_labels and line["num_labelled"] == 0:
                # The batch was drawn at random: no score of the acquisition function chose it.
                unknown = [None] * len(line["indices"])
                line |= {"scores": unknown, "gains": unknown, "remaining_entropy": []}
            line |= {f"seconds_{part}": round(s, 4) for part, s in seconds._asdict().items()}
            if is_first():
                results.append_round(folder, line)
                if measured.batch is not None:  # else the state is the one that is saved already
                    checkpoint.save(
                        _checkpoints(folder, trial.number), int(next_state.round), next_state
                    )
            yield line


def _mesh(devices: Sequence[Device], num_trials: int) -> Mesh | None:
    """The devices over which so many trials are spread; None where there is one, or one trial."""
    if len(devices) == 1 or (num_trials == 1 and jax.process_count() == 1):
        return None
    if jax.process_count() == 1:  # else each process must have a part, whether it is of use or not
        devices = devices[: math.ceil(num_trials / math.ceil(num_trials / len(devices)))]
    return Mesh(np.asarray(devices), ("trial",), axis_types=(AxisType.Auto,))


def _pool_mesh(
    loop: Loop, dataset: Dataset, data: Sequence[Data], devices: Sequence[Device]
) -> Mesh | None:
    """The devices over which the pool of one trial is spread, if they are several and it is large.

    In a cluster no process waits for another within a trial.
    """
    size = len(data[0].y) * loop.num_samples * dataset.num_classes
    if len(devices) == 1 or len(data) > 1 or jax.process_count() > 1 or size < LARGE_POOL:
        return None
    return Mesh(np.asarray(devices), ("pool",), axis_types=(AxisType.Auto,))


class _Arrays(NamedTuple):
    """The arrays of a trial, made when they are asked for."""

    config: Config
    dataset: Dataset
    loop: Loop
    group: range
    splits: list[Split]

    def __call__(self, position: int) -> Data:
        """By the trial's position in its group."""
        trial = self.group[position]
        return _arrays(self.config, self.dataset, self.loop, trial, self.splits)


class _Trial(NamedTuple):
    """One trial: what it starts or goes on from, and on what part of the data set."""

    number: int
    state: LoopState
    data: Data | None
    pool_indices: np.ndarray


def _arrays(config: Config, dataset: Dataset, loop: Loop, trial: int, splits: list[Split]) -> Data:
    data = gather(dataset, *splits[trial])
    if {"target_log_probs", "gaussian"} & {*loop.acquisition.requires}:
        data = data._replace(x_target=data.x[targets(config, trial, len(data.y))])
    return data


def _start(config: Config, dataset: Dataset, loop: Loop, trial: int, splits: list[Split]) -> _Trial:
    data = _arrays(config, dataset, loop, trial, splits)
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
    state = trial.state
    if is_first():
        lines = results.read_rounds(folder)
        state = checkpoint.restore(
            _checkpoints(folder, trial.number),
            state,
            most_rounds=sum(line["trial"] == trial.number for line in lines),
        )
        num_rounds = int(state.round)
        results.write_rounds(
            folder, [x for x in lines if x["trial"] != trial.number or x["round"] < num_rounds]
        )
    # New or restored, on the same terms: else jit compiles for each.
    return trial._replace(state=jax.device_put(arrays_from_first(state), jax.local_devices()[0]))


def _checkpoints(folder: Path, trial: int) -> Path:
    return folder / "checkpoints" / f"trial_{trial}"


def _num_together(
    config: Config, dataset: Dataset, loop: Loop, splits: list[Split], num_devices: int = 1
) -> int:
    """How many trials to run at once: on an accelerator as many as half of its memory holds."""
    most, memory = num_devices, _accelerator_bytes()
    if memory is not None and config.num_trials > num_devices:
        trial = _start(config, dataset, loop, 0, splits)
        assert trial.data is not None
        arguments = loops.fit_arguments(loop, trial.state, trial.data)
        needed = jax.jit(loop.learner.fit).lower(*arguments).compile().memory_analysis()
        if needed is not None:
            num_bytes = needed.temp_size_in_bytes + needed.output_size_in_bytes
            num_bytes += sum(leaf.nbytes for leaf in jax.tree.leaves(trial.data))
            most *= from_first(lambda: max(1, memory // (2 * num_bytes)))
    num_groups = math.ceil(config.num_trials / most)
    return math.ceil(config.num_trials / num_groups)  # equal groups: one more is compiled again


def _accelerator_bytes() -> int | None:
    """The memory of the accelerator; None on a CPU, or where it is not told."""
    device = jax.local_devices()[0]
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


def _line(config: Config, trial: _Trial, measured: Round, dataset: Dataset) -> Line:
    """One round as plain Python values, its indices those of the data set's training points."""
    num_test = len(dataset.y_test)
    num_labelled = int(measured.num_labelled)
    num_correct = int(measured.evaluation.num_correct)
    line = {
        "trial": trial.number,
        "trial_key": jax.random.key_data(trial_key(config, trial.number)).tolist(),
        "round": int(measured.round),
        "num_labelled": num_labelled,
        "num_acquired": num_labelled - config.initial_per_class * dataset.num_classes,
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
        indices = trial.pool_indices[np.asarray(measured.batch.indices)[is_filled]]
        line |= {
            "indices": indices.tolist(),
            "classes": dataset.y_train[indices].tolist(),
            "scores": np.asarray(measured.batch.scores)[is_filled].tolist(),
            "gains": np.asarray(measured.batch.gains)[is_filled].tolist(),
        }
        # Only joint functions know it.
        remaining = getattr(measured.batch.diagnostics, "remaining_entropy", None)
        if remaining is not None:
            line["remaining_entropy"] = np.asarray(remaining)[is_filled].tolist()
    return line
