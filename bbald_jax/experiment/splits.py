"""Which points of a data set a trial uses: pool, validation set, targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bbald_jax.acquisition.inputs import NUM_TARGETS, random_targets
from bbald_jax.experiment import learners
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.keys import trial_key
from bbald_jax.loop.rounds import Data
from bbald_jax.pool import Labelled


class Split(NamedTuple):
    """Indices into a data set's training points: the pool, and the validation set."""

    pool: np.ndarray
    validation: np.ndarray


def split(config: Config, dataset: Dataset, trial: int) -> Split:
    """The random parts of the training points that a trial uses.

    Never more than a sixth of the images is set apart for validation. A repeated image goes into
    the pool with all its copies, or not at all.

    Raises:
      ConfigError: the data set is too small for the configuration.
    """
    num_images = len(dataset.y_train) // dataset.num_repeats
    num_validation = min(learners.num_validation(config), num_images // 6)
    images = jax.random.permutation(trial_key(config, trial, "split"), num_images)
    validation, rest = np.split(np.asarray(images), [num_validation])
    in_pool = np.sort(rest[: _num_pool_images(config, dataset, len(rest))])
    # Copy r of image i has index r * num_images + i.
    pool = (np.arange(dataset.num_repeats)[:, None] * num_images + in_pool).ravel()

    counts = np.bincount(dataset.y_train[pool], minlength=dataset.num_classes)
    if counts.min() < config.initial_per_class:
        rarest = dataset.class_name(int(counts.argmin()))
        raise ConfigError(
            f"--initial-per-class {config.initial_per_class}: the pool of {len(pool)} points has "
            f"only {counts.min()} of class {rarest}; lower it, or raise --pool-size."
        )
    return Split(pool, validation)


def targets(config: Config, trial: int, num_points: int) -> Int[Array, "T"]:
    """Which points of the pool are targets, see `random_targets`: the same in every round."""
    return random_targets(trial_key(config, trial, "targets"), num_points, NUM_TARGETS)


def gather(dataset: Dataset, pool: np.ndarray, validation: np.ndarray) -> Data:
    """The arrays of a `Split`."""
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
