"""Deep ensembles of any learner in JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from bbald_jax.learning.chunks import map_each
from bbald_jax.learning.learner import Learner
from bbald_jax.pool import Labelled
from bbald_jax.typing import Key


def ensemble_learner(learner: Learner, num_networks: int) -> Learner:
    """A deep ensemble: E networks from starts of their own, each sampled K / E times.

    Posterior sample e * K / E + j is sample j of network e. With MC-dropout networks it is an
    ensemble of their approximate posteriors; each has masks of its own.

    Args:
      learner: of one network, in JAX.
      num_networks: E; it must divide K, or `sample` raises ValueError.

    Source: Lakshminarayanan, Pritzel, Blundell, Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles (2017).
    """

    @jax.jit
    def init(key: Key, x: Array) -> Any:
        return map_each(lambda key: learner.init(key, x), jax.random.split(key, num_networks))

    @jax.jit
    def fit(key: Key, states: Any, labelled: Labelled, validation: Labelled) -> Any:
        return map_each(
            lambda start: learner.fit(start[0], start[1], labelled, validation),
            (jax.random.split(key, num_networks), states),
        )

    @partial(jax.jit, static_argnums=3)
    def sample(key: Key, states: Any, x: Array, num_samples: int) -> Array:
        num_masks, rest = divmod(num_samples, num_networks)
        if rest:
            raise ValueError(
                f"num_samples: {num_samples} posterior samples are not a multiple of the "
                f"{num_networks} networks of the ensemble; take "
                f"{num_samples - rest or num_networks}"
            )
        log_probs = map_each(
            lambda network: learner.sample(network[0], network[1], x, num_masks),
            (jax.random.split(key, num_networks), states),
        )  # [E, N, K / E, C]
        return jnp.moveaxis(log_probs, 0, 1).reshape(len(x), num_samples, -1)

    return Learner(init, fit, sample, learner.warm_start, learner.needs_labels)
