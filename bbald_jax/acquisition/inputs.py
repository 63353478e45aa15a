"""The seam where acquisition functions plug in: what one is, and what it may look at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.typing import CandidateBatch, Key, LogProbs, TargetLogProbs

#: Points of the pool that stand for the inputs to be predicted, where nobody gives others. A mean
#: over 500 has a standard error of 1/22 of the standard deviation between targets.
NUM_TARGETS = 500


def random_targets(key: Key, num_points: int, num_targets: int) -> Int[Array, "T"]:
    """Which points of the pool are targets, labelled or not: a random part of at most that many.

    EPIG wants samples from the distribution of the inputs to be predicted. A random part of the
    pool is that where the pool comes from the same source; no label is looked at.
    """
    return jax.random.permutation(key, num_points)[:num_targets]


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
      takes_axis_name: whether `select` takes `axis_name` too, as `select_batchbald` does: whether
        the points may be spread over many devices, by `select_sharded`.
    """

    name: str
    requires: tuple[str, ...]
    select: Callable[..., CandidateBatch]
    description: str = ""
    takes_axis_name: bool = False


_WORDS = {
    "log_probs": "predictions",
    "target_log_probs": (
        "predictions for target points, by the same posterior samples as those for the pool"
    ),
    "mean_log_probs": "one prediction a point, [N, C], such as that of Learner.predict",
    "features": "features of the points, [N, D], such as those that a learner sees",
    "labelled": "a mask of the points whose label is known, [N]",
    "gaussian": "a Gaussian posterior, such as that of bb.logistic_head",
}


def required(inputs: Inputs, name: str) -> Any:
    """A field of `inputs`, or an error that says that it is required."""
    value = getattr(inputs, name)
    if value is None:
        raise ValueError(f"inputs.{name}: this acquisition function requires {_WORDS[name]}")
    return value if name == "gaussian" else jnp.asarray(value)
