"""Sampling predictions: K functions drawn from a posterior, applied to every point."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.learning.chunks import map_chunks, map_each
from bbald_jax.learning.model import Model, Params
from bbald_jax.typing import Key, LogProbs


def sample_mc_dropout(
    key: Key, model: Model, params: Params, x: Float[Array, "N ..."], *, num_samples: int
) -> LogProbs:
    """Consistent MC dropout: the predictions of K networks drawn by dropout, for N points.

    log_probs[n, k, :] = log_softmax(model.apply(params, x_n, key_k))

    Sample k is the same network for every point, whatever chunk the point comes in; joint
    entropies mean nothing otherwise.

    Args:
      key: K keys, one a network, are split from it.
      model: see `Model`.
      params: its parameters.
      x: `[N, ...]`.
      num_samples: K (static).

    Returns:
      `[N, K, C]`. Memory beside input and output: on a CPU twice the activations of 64 points under
      one network (factored: of one point, or of 300 pairs of a point and a network); on an
      accelerator those of at most 16,384 pairs, or one point.

    Source: Gal, Islam, Ghahramani (2017), section 3; consistency: Kirsch, van Amersfoort, Gal
    (2019), section 4.1.
    """
    keys = jax.random.split(key, num_samples)
    is_cpu = jax.default_backend() == "cpu"
    chunk_size = 64 if is_cpu else max(1, min(64, 16_384 // num_samples))
    draw = partial(_draw, model.apply)
    if model.draw is not None:
        draw = model.draw
        if is_cpu:  # all networks at once, as many pairs as leave their activations small
            chunk_size = max(1, min(8, 300 // num_samples))
    networks = draw(params, keys)
    return map_chunks(
        lambda points: jax.nn.log_softmax(networks(points), axis=-1), x, chunk_size=chunk_size
    )


def _draw(apply: Callable[..., Array], params: Params, keys: Array) -> Callable[[Array], Array]:
    """`Model.draw` of any network: `apply` with each key."""

    def networks(points: Float[Array, "n ..."]) -> Float[Array, "n K C"]:
        return jnp.swapaxes(map_each(lambda key: apply(params, points, key), keys), 0, 1)

    return networks
