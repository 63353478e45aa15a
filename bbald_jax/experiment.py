"""A configured experiment on disk: data set, trials, and a folder from which it can continue."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax import loop as loops
from bbald_jax import results
from bbald_jax.acquisition import catalogue
from bbald_jax.checkpoint import Checkpoints
from bbald_jax.datasets import Dataset, load_dataset
from bbald_jax.loop import Data, Loop, LoopState, Round
from bbald_jax.models import MLP, PaperCNN, flax_model
from bbald_jax.pool import Labelled
from bbald_jax.results import Line, ResultsError
from bbald_jax.training import RECIPES, mc_dropout_learner


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

    A run killed at any moment continues from its last finished round, to the same result: the
    line is on disk before the state is saved, and both before the line is yielded.

    Args:
      config: what to run.
      folder: opened for this configuration by `results.open_folder`.

    Raises:
      ConfigError: the data set cannot serve the configuration.
      ResultsError: the folder is damaged.
    """
    dataset = load_dataset(
        config.dataset, num_repeats=config.num_repeats, noise=config.noise, seed=config.seed
    )
    target_correct = None
    if config.target_accuracy is not None:
        target_correct = results.num_correct_for(config.target_accuracy, len(dataset.y_test))
    num_initial = config.initial_per_class * dataset.num_classes
    loop = make_loop(config, dataset)
    for trial in range(config.num_trials):
        if is_finished(results.read_rounds(folder), trial):
            continue
        state, data, dataset_indices = start_trial(config, dataset, trial)
        with Checkpoints(folder / "checkpoints" / f"trial_{trial}") as checkpoints:
            state = checkpoints.restore(state)
            _drop_unsaved_rounds(folder, trial, int(state.round))
            for state, measured, seconds in loops.run(  # noqa: B020 (continues from `state`)
                loop, state, data, num_rounds=config.num_rounds, target_correct=target_correct
            ):
                line = _line(trial, num_initial, measured, data, dataset_indices)
                line |= {f"seconds_{part}": round(s, 4) for part, s in seconds._asdict().items()}
                results.append_round(folder, line)
                checkpoints.save(int(state.round), state)
                yield line


def is_finished(lines: list[Line], trial: int) -> bool:
    """Whether a trial has its last round: the one that acquires nothing."""
    return any(line["trial"] == trial and not line["indices"] for line in lines)


def _drop_unsaved_rounds(folder: Path, trial: int, num_saved: int) -> None:
    """Forget the line of a round whose state was not saved: it is about to be run again."""
    lines = results.read_rounds(folder)
    kept = [line for line in lines if (line["trial"], line["round"]) < (trial, num_saved)]
    if sum(line["trial"] == trial for line in kept) != num_saved:
        raise ResultsError(
            f"{folder / results.ROUNDS} lacks rounds of trial {trial} that its checkpoints have; "
            "restore it, or give another --output-dir."
        )
    # Always: it also removes the end of a line that a kill cut short.
    results.write_rounds(folder, kept)


def make_loop(config: Config, dataset: Dataset) -> Loop:
    """Network, recipe and acquisition function, the same for all trials."""
    network = MLP if dataset.name == "digits" else PaperCNN
    return Loop(
        learner=mc_dropout_learner(
            flax_model(network(dataset.num_classes)), RECIPES[config.recipe]
        ),
        acquisition=catalogue(num_configurations=config.num_configurations)[config.acquisition],
        batch_size=config.acquisition_size,
        num_samples=config.num_samples,
        capacity=min(
            config.initial_per_class * dataset.num_classes
            + config.num_rounds * config.acquisition_size,
            len(dataset.y_train),
        ),
    )


def start_trial(config: Config, dataset: Dataset, trial: int) -> tuple[LoopState, Data, np.ndarray]:
    """The first state of a trial, its arrays, and the data set's index of each pool point.

    Everything random comes from `fold_in(key(seed), trial)`: which images are set apart for
    validation (never more than a sixth), which are in the pool, which are labelled first. A
    repeated image goes into the pool with all its copies, or not at all.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), trial)
    split_key, run_key = jax.random.split(key)
    num_images = len(dataset.y_train) // dataset.num_repeats
    num_validation = min(RECIPES[config.recipe].num_validation, num_images // 6)
    images = np.asarray(jax.random.permutation(split_key, num_images))
    in_pool = images[num_validation:][: _num_pool_images(config, dataset, num_validation)]
    # Copy r of image i has index r * num_images + i.
    copies = np.arange(dataset.num_repeats)[:, None] * num_images
    dataset_indices = (copies + np.sort(in_pool)).ravel()

    classes = dataset.y_train[dataset_indices]
    counts = np.bincount(classes, minlength=dataset.num_classes)
    if counts.min() < config.initial_per_class:
        raise ConfigError(
            f"--initial-per-class {config.initial_per_class}: the pool of {len(classes)} points "
            f"has only {counts.min()} of class {counts.argmin()}; lower it, or raise --pool-size."
        )
    validation = images[:num_validation]
    data = Data(
        x=jnp.asarray(dataset.x_train[dataset_indices]),
        y=jnp.asarray(classes),
        validation=Labelled(
            jnp.asarray(dataset.x_train[validation]),
            jnp.asarray(dataset.y_train[validation]),
            jnp.int32(num_validation),
        ),
        x_test=jnp.asarray(dataset.x_test),
        y_test=jnp.asarray(dataset.y_test),
    )
    state = loops.init(
        run_key,
        data.y,
        num_classes=dataset.num_classes,
        initial_per_class=config.initial_per_class,
    )
    return state, data, dataset_indices


def _num_pool_images(config: Config, dataset: Dataset, num_validation: int) -> int | None:
    if config.pool_size is None:
        return None
    most = len(dataset.y_train) - num_validation * dataset.num_repeats
    if config.pool_size > most:
        raise ConfigError(
            f"--pool-size {config.pool_size}: {dataset.name} has {most} points for the pool; lower "
            "it, or leave it out to take them all."
        )
    num_images, rest = divmod(config.pool_size, dataset.num_repeats)
    if rest:
        raise ConfigError(
            f"--pool-size {config.pool_size}: with --num-repeats {dataset.num_repeats} the pool "
            f"holds whole groups of copies; take {num_images * dataset.num_repeats}."
        )
    return num_images


def _line(
    trial: int, num_initial: int, measured: Round, data: Data, dataset_indices: np.ndarray
) -> Line:
    """One round as plain Python values, its indices those of the data set's training points."""
    num_test = len(data.y_test)
    num_labelled = int(measured.num_labelled)
    num_correct = int(measured.evaluation.num_correct)
    line = {
        "trial": trial,
        "round": int(measured.round),
        "num_labelled": num_labelled,
        "num_acquired": num_labelled - num_initial,
        "num_correct": num_correct,
        "num_test": num_test,
        "accuracy": num_correct / num_test,
        "nll": float(measured.evaluation.nll),
        "indices": [],
        "classes": [],
        "scores": [],
        "gains": [],
    }
    if measured.batch is not None:
        is_filled = np.asarray(measured.batch.indices) >= 0
        positions = np.asarray(measured.batch.indices)[is_filled]
        line |= {
            "indices": dataset_indices[positions].tolist(),
            "classes": np.asarray(data.y)[positions].tolist(),
            "scores": np.asarray(measured.batch.scores)[is_filled].tolist(),
            "gains": np.asarray(measured.batch.gains)[is_filled].tolist(),
        }
    return line
