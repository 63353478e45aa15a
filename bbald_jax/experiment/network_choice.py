"""Which network an experiment trains: the shape of its points decides."""

import flax.linen as nn

from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.learning.networks import MLP, PaperCNN
from bbald_jax.learning.recipes import RECIPES

#: Of images with a shorter side `PaperCNN` leaves nothing: 16, 12, 6, 2, 1 pixels from layer to
#: layer.
SHORTEST_SIDE = 16


def make_network(dataset: Dataset) -> nn.Module:
    """`PaperCNN` for images of at least 16 pixels a side, `MLP` for smaller ones and vectors."""
    is_large = dataset.has_images and min(dataset.x_train.shape[1:3]) >= SHORTEST_SIDE
    return (PaperCNN if is_large else MLP)(dataset.num_classes)


def check_points(config: Config, dataset: Dataset) -> None:
    """Refuse points that neither network can take, or that the recipe cannot deform.

    Raises:
      ConfigError: texts, or a recipe with augmentation for what is no image.
    """
    if dataset.has_texts:
        raise ConfigError(
            f"--dataset {dataset.name}: its points are texts, and the networks take numbers; give "
            "embeddings of them, [N, D], as x_train and x_test."
        )
    if RECIPES[config.recipe].augmentation is not None and not dataset.has_images:
        raise ConfigError(
            f"--recipe {config.recipe}: it deforms images, and the points of {dataset.name} are "
            f"vectors of {dataset.x_train.shape[1]} numbers; take --recipe paper."
        )
