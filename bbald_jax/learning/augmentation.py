"""Random small deformations of images, inside jit: what training may take for the same class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from bbald_jax.typing import Key

# Nodes on a side of the grid of random displacements that an elastic deformation interpolates.
_NUM_NODES = 5


class Augmentation(NamedTuple):
    """How far an image may be deformed: uniformly up to plus or minus each amount but `elastic`.

    Attributes:
      shift: along each axis, as a fraction of the image's side.
      rotation: radians.
      scale: 0.1 enlarges or shrinks by up to a factor exp(0.1).
      shear: tangent of the angle.
      elastic: standard deviation of a smooth displacement field at its nodes, as a fraction of the
        image's side.
    """

    shift: float
    rotation: float
    scale: float
    shear: float
    elastic: float


def augment(key: Key, x: Float[Array, "n ..."], amount: Augmentation) -> Float[Array, "n ..."]:
    """Images, each deformed by a random affine map and a random smooth displacement field.

    new[i, j] = old[A (i, j) + t + d(i, j)], between the pixels bilinearly, beyond the edge the
    nearest pixel; A is a rotation, a shear and a scale about the centre, t a shift, and d is
    cubic between 5x5 nodes of Gaussian displacements.

    Args:
      key: for all of it; every image is deformed in its own way.
      x: `[n, h, w, c]`.
      amount: see `Augmentation`.

    Returns:
      `[n, h, w, c]`.

    Raises:
      ValueError: x is not a batch of images.

    Source: Simard, Steinkraus, Platt, Best Practices for Convolutional Neural Networks Applied to
    Visual Document Analysis (2003).
    """
    if x.ndim != 4:
        raise ValueError(
            f"augmentation needs images [n, height, width, channels], but the points have the "
            f"shape {x.shape[1:]}; take a recipe without augmentation"
        )
    return jax.vmap(lambda key, image: _deform(key, image, amount))(
        jax.random.split(key, x.shape[0]), x
    )


def _deform(key: Key, image: Float[Array, "h w c"], amount: Augmentation) -> Float[Array, "h w c"]:
    affine_key, elastic_key = jax.random.split(key)
    height, width, _ = image.shape
    side = jnp.array([height, width])
    angle, shear, log_scale, *shift = jax.random.uniform(
        affine_key, (5,), minval=-1, maxval=1
    ) * jnp.array([amount.rotation, amount.shear, amount.scale, amount.shift, amount.shift])
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    matrix = jnp.exp(log_scale) * rotation @ jnp.array([[1, shear], [0, 1]])

    centre = (side - 1) / 2
    rows_and_columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    pixels = jnp.stack(rows_and_columns, axis=-1) - centre  # [h, w, 2]
    nodes = jax.random.normal(elastic_key, (_NUM_NODES, _NUM_NODES, 2))
    field = amount.elastic * jax.image.resize(nodes, (height, width, 2), "cubic")
    source = pixels @ matrix.T + centre + (jnp.stack(shift) + field) * side

    def read(channel: Float[Array, "h w"]) -> Float[Array, "h w"]:
        return map_coordinates(channel, [source[..., 0], source[..., 1]], order=1, mode="nearest")

    return jax.vmap(read, in_axes=-1, out_axes=-1)(image)
