"""Rules that were tried for rare classes, all on the closed forms of the head's posterior.

The first that was tried with targets by doubt draws targets again; what became
`weighted-epig-closed` weighs them, by the posterior's own probabilities.

What they are compared with: batch EPIG in closed form (`batch-epig-closed`), and margin on the
head's own prediction, the MAP (`margin-map`), which needs no samples.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.acquisition import functions, pointwise
from bbald_jax.acquisition.closed_forms import (
    select_batch_epig_closed,
    select_gaussian_batchbald_closed,
)
from bbald_jax.acquisition.inputs import Acquisition, Inputs, required
from bbald_jax.acquisition.top import select_random, select_top, without_pending
from bbald_jax.typing import CandidateBatch, Key

#: A switch: batch EPIG while the first gain of a batch is at least so many nats.
FLAT = (0.02, 0.05)


def _epig(key: Key, inputs: Inputs, **options) -> CandidateBatch:
    return select_batch_epig_closed(required(inputs, "gaussian"), key=key, **options)


def _parameters(key: Key, inputs: Inputs, **options) -> CandidateBatch:
    return select_gaussian_batchbald_closed(required(inputs, "gaussian"), key=key, **options)


def _margin(key: Key, inputs: Inputs, *, batch_size, available, pending) -> CandidateBatch:
    score = pointwise.margin(required(inputs, "mean_log_probs")[:, None])
    available = without_pending(available, pending)
    return select_top(
        score, batch_size=batch_size, available=available, num_invalid=jnp.int32(0), key=key
    )


def _random(key: Key, inputs: Inputs, *, batch_size, available, pending) -> CandidateBatch:
    available = without_pending(available, pending)
    return select_random(key, batch_size=batch_size, available=available)


def _half(first: Callable, second: Callable) -> Callable:
    """Half of the batch by one function, the rest by another, given the first half."""

    def select(key, inputs, *, batch_size, available, pending):
        size = (batch_size + 1) // 2
        keys = jax.random.split(key)
        one = first(keys[0], inputs, batch_size=size, available=available, pending=pending)
        out = one.indices if pending is None else jnp.concatenate([pending, one.indices])
        two = second(
            keys[1], inputs, batch_size=batch_size - size, available=available, pending=out
        )
        return one._replace(
            indices=jnp.concatenate([one.indices, two.indices]),
            scores=jnp.concatenate([one.scores, two.scores]),
            gains=jnp.concatenate([one.gains, two.gains]),
        )

    return select


def _switch(threshold: float, after: Callable) -> Callable:
    """Batch EPIG until its first gain is below the threshold, then another function."""

    def select(key, inputs, **options):
        one, two = _epig(key, inputs, **options), after(key, inputs, **options)
        is_flat = one.gains[0] < threshold
        return one._replace(indices=jnp.where(is_flat, two.indices, one.indices))

    return select


def _begin(num_labels: int, first: Acquisition, then: Acquisition) -> Callable:
    """One function for the first so many labels, and another from then on."""

    def select(key, inputs, **options):
        one, two = (each.select(key, inputs, **options) for each in (first, then))
        is_early = jnp.sum(required(inputs, "labelled")) < num_labels
        return one._replace(indices=jnp.where(is_early, one.indices, two.indices))

    return select


def _weighted(weigh: Callable[[Inputs], Float[Array, "T"]]) -> Callable:
    """Batch EPIG with as many targets, drawn again with these weights."""

    def select(key, inputs, **options):
        posterior = required(inputs, "gaussian")
        weights = weigh(inputs)
        num_targets = len(posterior.target_factors)
        draw, key = jax.random.split(key)
        # Systematic: target t is there w_t T / sum(w) times, rounded up or down.
        at = (jnp.arange(num_targets) + jax.random.uniform(draw)) / num_targets
        chosen = jnp.searchsorted(jnp.cumsum(weights) / jnp.sum(weights), at)
        chosen = jnp.minimum(chosen, num_targets - 1)
        again = posterior._replace(
            target_factors=posterior.target_factors[chosen],
            target_weights=posterior.target_weights[chosen],
        )
        return _epig(key, inputs._replace(gaussian=again), **options)

    return select


def _target_probs(inputs: Inputs) -> Float[Array, "T C"]:
    # The targets are the first points of the pool.
    return jnp.exp(
        required(inputs, "mean_log_probs")[: len(required(inputs, "gaussian").target_factors)]
    )


def _by_class(inputs: Inputs) -> Float[Array, "T"]:
    """Every class that is predicted has the same weight: w_t = sum_c p_tc / mean_s p_sc / C."""
    probs = _target_probs(inputs)
    return jnp.mean(probs / jnp.mean(probs, axis=0), axis=1)


def _by_root_class(inputs: Inputs) -> Float[Array, "T"]:
    """Between the pool's own shares and equal ones: w_t = sum_c p_tc / sqrt(mean_s p_sc)."""
    probs = _target_probs(inputs)
    return jnp.sum(probs / jnp.sqrt(jnp.mean(probs, axis=0)), axis=1)


def _by_doubt(inputs: Inputs) -> Float[Array, "T"]:
    """A target counts as much as the chance that it is predicted wrongly: w_t = 1 - max_c p_tc."""
    return 1 - jnp.max(_target_probs(inputs), axis=1) + 1e-6


def _by_weight(inputs: Inputs) -> Float[Array, "T"]:
    """A target counts as much as its label's variance, which includes the model's doubt."""
    return required(inputs, "gaussian").target_weights + 1e-6


_NEEDS = ("gaussian", "mean_log_probs")
_ALL = (*_NEEDS, "features", "labelled")
RULES = {
    name: Acquisition(name, _NEEDS, select)
    for name, select in {
        "margin-map": _margin,
        "epig, targets by class": _weighted(_by_class),
        "epig, targets by root of class": _weighted(_by_root_class),
        "epig, targets by doubt": _weighted(_by_doubt),
        "epig, targets by variance": _weighted(_by_weight),
        "half epig, half margin": _half(_epig, _margin),
        "half epig, half random": _half(_epig, _random),
        "half epig, half parameters": _half(_epig, _parameters),
        "half margin, half random": _half(_margin, _random),
        "epig, margin below 0.02 nats": _switch(FLAT[0], _margin),
        "epig, margin below 0.05 nats": _switch(FLAT[1], _margin),
    }.items()
} | {
    # Tried last, when the sweep showed TypiClust ahead of all others at 20 labels.
    name: Acquisition(name, _ALL, select)
    for name, select in {
        "typiclust to 20, then weighted epig": _begin(
            20, functions.typiclust, functions.weighted_epig_closed
        ),
        "typiclust to 20, then bait": _begin(20, functions.typiclust, functions.bait),
    }.items()
}
