"""What an experiment learns with: the shape of its points decides which network."""

from pathlib import Path

import flax.linen as nn

from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.feature_files import load_or_make
from bbald_jax.learning.head import logistic_head
from bbald_jax.learning.head_inputs import check_pool
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.networks import MLP, PaperCNN
from bbald_jax.learning.recipes import RECIPES
from bbald_jax.learning.training import mc_dropout_learner

LEARNERS = ("dropout-network", "logistic-head")

#: Of images with a shorter side `PaperCNN` leaves nothing: 16, 12, 6, 2, 1 pixels from layer to
#: layer.
SHORTEST_SIDE = 16

#: In the folder of a run: its features, and what they were made of.
FEATURES_FILE = "features.safetensors"


def make_learner(config: Config, dataset: Dataset) -> Learner:
    """The logistic head, or an MC-dropout network.

    `PaperCNN` for images of at least 16 pixels a side, `MLP` for smaller ones and vectors.
    """
    if config.learner == "logistic-head":
        return logistic_head(dataset.num_classes)
    return mc_dropout_learner(flax_model(make_network(dataset)), RECIPES[config.recipe])


def make_network(dataset: Dataset) -> nn.Module:
    """The network for points of this shape."""
    is_large = dataset.has_images and min(dataset.x_train.shape[1:3]) >= SHORTEST_SIDE
    return (PaperCNN if is_large else MLP)(dataset.num_classes)


def num_validation(config: Config) -> int:
    """Labelled points that the learner is given beside those of the pool."""
    return 0 if config.learner == "logistic-head" else RECIPES[config.recipe].num_validation


def with_features(config: Config, dataset: Dataset, folder: Path) -> Dataset:
    """The data set with `config.features` of its points in their place.

    They are made of all training points, without a look at any label or test point, and kept in
    the folder. The head takes rows of numbers, so that images are flattened for it.

    Raises:
      ConfigError: features that such points have not, or points that the learner cannot take.
    """
    _check_points(config, dataset)
    is_head = config.learner == "logistic-head"
    points = dataset.x_train, dataset.x_test
    try:
        if config.features != "none":
            points = load_or_make(folder / FEATURES_FILE, config.features, *points)
        elif is_head:
            points = tuple(each.reshape(len(each), -1) for each in points)
        if is_head:
            check_pool(points[0])
    except ValueError as error:
        raise ConfigError(f"--features {config.features}: {error}") from error
    return dataset._replace(x_train=points[0], x_test=points[1])


def _check_points(config: Config, dataset: Dataset) -> None:
    if dataset.has_texts != (config.features == "text"):
        problem, fix = "its points are no texts", "take --features none, or graph"
        if dataset.has_texts:
            problem = "its points are texts, and learners take numbers"
            fix = "take --features text, or give embeddings of them, [N, D], as x_train and x_test"
        raise ConfigError(f"--dataset {dataset.name}: {problem}; {fix}.")
    if "image" in config.features and not dataset.has_images:
        raise ConfigError(
            f"--features {config.features}: the points of {dataset.name} are vectors of "
            f"{dataset.x_train.shape[1]} numbers; take --features none, or graph."
        )
    deforms = RECIPES[config.recipe].augmentation is not None
    if deforms and config.learner == "dropout-network":
        if not dataset.has_images:
            raise ConfigError(
                f"--recipe {config.recipe}: it deforms images, and the points of {dataset.name} "
                f"are vectors of {dataset.x_train.shape[1]} numbers; take --recipe paper."
            )
        if config.features != "none":
            raise ConfigError(
                f"--recipe {config.recipe}: it deforms images, and --features {config.features} "
                "leaves none; take --recipe paper."
            )
