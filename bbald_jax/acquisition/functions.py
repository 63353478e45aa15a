"""The catalogue of acquisition functions: one signature, by name.

An acquisition function turns predictions into a batch. `requires` says what it must be given, so
that a loop computes no prediction that nobody looks at. Higher scores are better everywhere.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from bbald_jax.acquisition import pointwise, stochastic
from bbald_jax.acquisition.badge import select_badge
from bbald_jax.acquisition.bait import select_bait
from bbald_jax.acquisition.batch_epig import select_batch_epig
from bbald_jax.acquisition.batchbald import select_batchbald
from bbald_jax.acquisition.closed_forms import (
    select_batch_epig_closed,
    select_gaussian_batchbald_closed,
)
from bbald_jax.acquisition.coreset import select_coreset
from bbald_jax.acquisition.gaussian_batchbald import select_gaussian_batchbald
from bbald_jax.acquisition.inputs import (
    Acquisition,
    Inputs,
    required,
)
from bbald_jax.acquisition.kbald import select_kbald
from bbald_jax.acquisition.pool_axis import AxisName
from bbald_jax.acquisition.progress import Progress
from bbald_jax.acquisition.ties import SLACK
from bbald_jax.acquisition.top import select_random, select_top, without_pending
from bbald_jax.acquisition.typiclust import select_typiclust
from bbald_jax.information import entropy
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending
from bbald_jax.validation import invalid_points

# Functions of different settings that are remembered.
_KEPT = 64


def _top(
    name: str,
    score: Callable[[Key, Inputs, Available, AxisName | None], Float[Array, "N"]],
    description: str,
    requires: tuple[str, ...] = ("log_probs",),
    is_random: bool = False,
) -> Acquisition:
    """The B points of highest score; `score(key, inputs, available, axis_name)`.

    The key goes to the score, if it is random; else to the choice among equal ones.
    """

    def select(
        key: Key,
        inputs: Inputs,
        *,
        batch_size: int,
        available: Available,
        pending: Pending | None,
        axis_name: AxisName | None = None,
    ) -> CandidateBatch:
        is_invalid = invalid_points(required(inputs, "log_probs"))
        available = without_pending(available & ~is_invalid, pending, axis_name)
        return select_top(
            score(key, inputs, available, axis_name),
            batch_size=batch_size,
            available=available,
            num_invalid=jnp.sum(is_invalid),
            key=None if is_random else key,
            axis_name=axis_name,
        )

    return Acquisition(name, requires, select, description, takes_axis_name=True)


def _pointwise(
    name: str, score: Callable[[LogProbs], Float[Array, "N"]], description: str
) -> Acquisition:
    return _top(name, lambda key, inputs, *_: score(required(inputs, "log_probs")), description)


def _bald(inputs: Inputs) -> Float[Array, "N"]:
    return entropy.mutual_information(required(inputs, "log_probs"))


def _above_rounding(scores: Float[Array, "N"]) -> Float[Array, "N"]:
    """Zero where a score is no more than rounding, which would else decide what is drawn."""
    return jnp.where(scores > SLACK, scores, 0)


def _select_random(
    key: Key,
    inputs: Inputs,
    *,
    batch_size: int,
    available: Available,
    pending: Pending | None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    del inputs
    available = without_pending(available, pending, axis_name)
    return select_random(key, batch_size=batch_size, available=available, axis_name=axis_name)


random = Acquisition(
    "random", (), _select_random, "points uniformly at random", takes_axis_name=True
)

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

    def select(key: Key, inputs: Inputs, **options: Any) -> CandidateBatch:
        return select_batchbald(
            key,
            required(inputs, "log_probs"),
            num_configurations=num_configurations,
            progress=progress,
            **options,
        )

    description = (
        "highest mutual information between the batch's labels, jointly, and the parameters"
    )
    return Acquisition("batchbald", ("log_probs",), select, description, takes_axis_name=True)


power_bald = _top(
    "power-bald",
    lambda key, inputs, available, axis_name: stochastic.perturb_power(
        key, _above_rounding(_bald(inputs)), axis_name=axis_name
    ),
    "drawn with probability proportional to the BALD score",
    is_random=True,
)

softmax_bald = _top(
    "softmax-bald",
    lambda key, inputs, available, axis_name: stochastic.perturb_softmax(
        key, _bald(inputs), axis_name=axis_name
    ),
    "drawn with probability proportional to exp(BALD score)",
    is_random=True,
)

softrank_bald = _top(
    "softrank-bald",
    lambda key, inputs, available, axis_name: stochastic.perturb_softrank(
        key, _bald(inputs), available=available, axis_name=axis_name
    ),
    "drawn with probability proportional to 1 / rank by BALD score",
    is_random=True,
)

epig = _top(
    "epig",
    lambda key, inputs, available, axis_name: pointwise.epig(
        required(inputs, "log_probs"), required(inputs, "target_log_probs"), axis_name=axis_name
    ),
    "highest mutual information between a point's label and those of the target points",
    requires=("log_probs", "target_log_probs"),
)


def _joint(
    name: str,
    requires: tuple[str, ...],
    form: Callable[..., CandidateBatch],
    description: str,
    takes_axis_name: bool = False,
    **settings: Any,
) -> Acquisition:
    """A function whose arguments are called as the fields of `Inputs` that it requires."""

    def select(key: Key, inputs: Inputs, **options: Any) -> CandidateBatch:
        fields = {field: required(inputs, field) for field in requires}
        return form(key=key, **fields, **settings, **options)

    return Acquisition(name, requires, select, description, takes_axis_name)


@lru_cache(maxsize=_KEPT)  # as for BatchBALD
def kbald(progress: Progress | None = None) -> Acquisition:
    """2-BALD; `progress` as in `select_kbald`."""
    description = "BALD scores less the mutual information of each pair of labels in the batch"
    return _joint(
        "kbald", ("log_probs",), select_kbald, description, takes_axis_name=True, progress=progress
    )


@lru_cache(maxsize=_KEPT)  # as for BatchBALD
def gaussian_batchbald(progress: Progress | None = None) -> Acquisition:
    """Gaussian BatchBALD from samples; `progress` as in `select_kbald`."""
    return _joint(
        "gaussian-batchbald",
        ("log_probs",),
        select_gaussian_batchbald,
        "BatchBALD in Gaussian form, for batches that the samples cannot tell apart",
        takes_axis_name=True,
        progress=progress,
    )


@lru_cache(maxsize=_KEPT)  # as for BatchBALD
def batch_epig(progress: Progress | None = None) -> Acquisition:
    """Batch EPIG from samples; `progress` as in `select_kbald`."""
    return _joint(
        "batch-epig",
        ("log_probs", "target_log_probs"),
        select_batch_epig,
        "what the batch's labels, jointly, tell about those of the target points",
        takes_axis_name=True,
        progress=progress,
    )


gaussian_batchbald_closed = _joint(
    "gaussian-batchbald-closed",
    ("gaussian",),
    lambda gaussian, **options: select_gaussian_batchbald_closed(gaussian, **options),
    "Gaussian BatchBALD in closed form, of a learner with a Gaussian posterior",
)

batch_epig_closed = _joint(
    "batch-epig-closed",
    ("gaussian",),
    lambda gaussian, **options: select_batch_epig_closed(gaussian, **options),
    "batch EPIG in closed form, of a learner with a Gaussian posterior",
)

weighted_epig_closed = _joint(
    "weighted-epig-closed",
    ("gaussian",),
    lambda gaussian, **options: select_batch_epig_closed(gaussian, **options),
    "batch EPIG in closed form, of targets weighed by how likely the model is wrong about them",
    weigh_targets=True,
)

badge = _joint(
    "badge",
    ("features", "mean_log_probs"),
    select_badge,
    "large and different gradients of the last layer, drawn by k-means++",
)

coreset = _joint(
    "coreset",
    ("features", "labelled"),
    select_coreset,
    "the points farthest from all that are labelled or chosen",
)

bait = _joint(
    "bait",
    ("features", "mean_log_probs", "labelled"),
    select_bait,
    "lowest expected error of a logistic last layer over the pool",
)

typiclust = _joint(
    "typiclust",
    ("features", "labelled"),
    select_typiclust,
    "the most typical point of each cluster that has no label yet",
)


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
        gaussian_batchbald(progress),
        batch_epig(progress),
        gaussian_batchbald_closed,
        batch_epig_closed,
        weighted_epig_closed,
        badge,
        coreset,
        bait,
        typiclust,
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
