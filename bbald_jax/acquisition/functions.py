"""The catalogue of acquisition functions: one signature, by name.

An acquisition function turns predictions into a batch. `requires` says what it must be given, so
that a loop computes no prediction that nobody looks at. Higher scores are better everywhere.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bbald_jax.acquisition import pointwise, stochastic
from bbald_jax.acquisition.batchbald import select_batchbald
from bbald_jax.acquisition.kbald import select_kbald
from bbald_jax.acquisition.progress import Progress
from bbald_jax.acquisition.ties import SLACK
from bbald_jax.acquisition.top import select_random, select_top, without_pending
from bbald_jax.information import entropy
from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending, TargetLogProbs
from bbald_jax.validation import invalid_points


class Inputs(NamedTuple):
    """What an acquisition function may look at; None where the function does not require it.

    Attributes:
      log_probs: `[N, K, C]`, predictions for the pool.
      target_log_probs: `[T, K, C]`, predictions for the target points, by the same K networks.
      mean_log_probs: `[N, C]`, what the learner predicts, in one distribution a point.
      features: `[N, D]`, what the learner sees of the pool points.
      labelled: `[N]` bool, True for points whose label is known.
      gaussian: a Gaussian posterior over the logits of pool and targets.
    """

    log_probs: LogProbs | None
    target_log_probs: TargetLogProbs | None = None
    mean_log_probs: Float[Array, "N C"] | None = None
    features: Float[Array, "N D"] | None = None
    labelled: Bool[Array, "N"] | None = None
    gaussian: GaussianPosterior | None = None


class Acquisition(NamedTuple):
    """An acquisition function.

    Attributes:
      name: as in the catalogue and on the command line.
      requires: the fields of `Inputs` that must not be None.
      select: `select(key, inputs, *, batch_size, available, pending) -> CandidateBatch`, pure and
        jit-able with static `batch_size`. `available` is `[N]` bool; `pending` is `[P]`, padded
        with -1, points whose labels are still out: they are never returned.
      description: one line.
    """

    name: str
    requires: tuple[str, ...]
    select: Callable[..., CandidateBatch]
    description: str = ""


# Functions of different settings that are remembered.
_KEPT = 64


def _log_probs(inputs: Inputs) -> LogProbs:
    if inputs.log_probs is None:
        raise ValueError("inputs.log_probs: this acquisition function requires predictions")
    return jnp.asarray(inputs.log_probs)


def _target_log_probs(inputs: Inputs) -> TargetLogProbs:
    if inputs.target_log_probs is None:
        raise ValueError(
            "inputs.target_log_probs: this acquisition function requires predictions for target "
            "points, by the same posterior samples as those for the pool"
        )
    return jnp.asarray(inputs.target_log_probs)


def _top(
    name: str,
    score: Callable[[Key, Inputs, Available], Float[Array, "N"]],
    description: str,
    requires: tuple[str, ...] = ("log_probs",),
    is_random: bool = False,
) -> Acquisition:
    """The B points of highest score; `score` sees which points it may choose from.

    The key goes to the score, if it is random; else to the choice among equal ones.
    """

    def select(
        key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
    ) -> CandidateBatch:
        is_invalid = invalid_points(_log_probs(inputs))
        available = without_pending(available & ~is_invalid, pending)
        return select_top(
            score(key, inputs, available),
            batch_size=batch_size,
            available=available,
            num_invalid=jnp.sum(is_invalid),
            key=None if is_random else key,
        )

    return Acquisition(name, requires, select, description)


def _pointwise(
    name: str, score: Callable[[LogProbs], Float[Array, "N"]], description: str
) -> Acquisition:
    return _top(name, lambda key, inputs, available: score(_log_probs(inputs)), description)


def _bald(inputs: Inputs) -> Float[Array, "N"]:
    return entropy.mutual_information(_log_probs(inputs))


def _above_rounding(scores: Float[Array, "N"]) -> Float[Array, "N"]:
    """Zero where a score is no more than rounding, which would else decide what is drawn."""
    return jnp.where(scores > SLACK, scores, 0)


def _select_random(
    key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
) -> CandidateBatch:
    del inputs
    available = without_pending(available, pending)
    return select_random(key, batch_size=batch_size, available=available)


random = Acquisition("random", (), _select_random, "points uniformly at random")

predictive_entropy = _pointwise(
    "predictive-entropy", entropy.predictive_entropy, "highest entropy of the mean prediction"
)

margin = _pointwise(
    "margin",
    pointwise.margin,
    "smallest difference between the two likeliest classes of the mean prediction",
)

variation_ratio = _pointwise(
    "variation-ratio",
    pointwise.variation_ratio,
    "lowest probability of the likeliest class of the mean prediction",
)

mean_std = _pointwise(
    "mean-std",
    pointwise.mean_std,
    "largest standard deviation of the samples' probabilities, averaged over the classes",
)

bald = _pointwise(
    "bald",
    entropy.mutual_information,
    "highest mutual information between a point's own label and the parameters",
)


# For another function of the same M, jit would compile again.
@lru_cache(maxsize=_KEPT)
def batchbald(num_configurations: int = 10_000, progress: Progress | None = None) -> Acquisition:
    """BatchBALD with M = `num_configurations`; `progress` as in `select_batchbald`."""

    def select(
        key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
    ) -> CandidateBatch:
        return select_batchbald(
            key,
            _log_probs(inputs),
            batch_size=batch_size,
            num_configurations=num_configurations,
            available=available,
            pending=pending,
            progress=progress,
        )

    description = (
        "highest mutual information between the batch's labels, jointly, and the parameters"
    )
    return Acquisition("batchbald", ("log_probs",), select, description)


power_bald = _top(
    "power-bald",
    lambda key, inputs, available: stochastic.perturb_power(key, _above_rounding(_bald(inputs))),
    "drawn with probability proportional to the BALD score",
    is_random=True,
)

softmax_bald = _top(
    "softmax-bald",
    lambda key, inputs, available: stochastic.perturb_softmax(key, _bald(inputs)),
    "drawn with probability proportional to exp(BALD score)",
    is_random=True,
)

softrank_bald = _top(
    "softrank-bald",
    lambda key, inputs, available: stochastic.perturb_softrank(
        key, _bald(inputs), available=available
    ),
    "drawn with probability proportional to 1 / rank by BALD score",
    is_random=True,
)

epig = _top(
    "epig",
    lambda key, inputs, available: pointwise.epig(_log_probs(inputs), _target_log_probs(inputs)),
    "highest mutual information between a point's label and those of the target points",
    requires=("log_probs", "target_log_probs"),
)


@lru_cache(maxsize=_KEPT)  # as for BatchBALD
def kbald(progress: Progress | None = None) -> Acquisition:
    """2-BALD; `progress` as in `select_kbald`."""

    def select(
        key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
    ) -> CandidateBatch:
        return select_kbald(
            _log_probs(inputs),
            batch_size=batch_size,
            available=available,
            pending=pending,
            key=key,
            progress=progress,
        )

    description = "BALD scores less the mutual information of each pair of labels in the batch"
    return Acquisition("kbald", ("log_probs",), select, description)


def catalogue(
    *, num_configurations: int = 10_000, progress: Progress | None = None
) -> dict[str, Acquisition]:
    """Every acquisition function by name.

    Args:
      num_configurations: M, for those that sample configurations.
      progress: for those that choose one point after the other, see `select_batchbald`.
    """
    functions = (
        random,
        predictive_entropy,
        margin,
        variation_ratio,
        mean_std,
        bald,
        batchbald(num_configurations, progress),
        power_bald,
        softmax_bald,
        softrank_bald,
        epig,
        kbald(progress),
    )
    return {function.name: function for function in functions}


def find(
    acquisition: Any, *, num_configurations: int = 10_000, progress: Progress | None = None
) -> Acquisition:
    """The acquisition function of a name in the catalogue; an `Acquisition` is returned as it is.

    Raises:
      ValueError: it is neither; the names are listed.
    """
    if isinstance(acquisition, Acquisition):
        return acquisition
    functions = catalogue(num_configurations=num_configurations, progress=progress)
    if not isinstance(acquisition, str) or acquisition not in functions:
        raise ValueError(f"acquisition: {acquisition!r} is none of {', '.join(functions)}")
    return functions[acquisition]
