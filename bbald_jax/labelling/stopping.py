"""When to stop labelling: with a guarantee, and beside it a cheap sign that has none."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bbald_jax.labelling.audit import AccuracyEstimate

_THRESHOLD, _WINDOW = 0.99, 3


class Agreement(NamedTuple):
    """How much successive models agree; it says that they no longer change, not that they are good.

    Attributes:
      kappas: `[J - 1]`, Cohen's kappa of each model and the one before it.
      mean: of the last three of them; NaN where there are fewer.
      is_stable: the mean is at least 0.99.
    """

    kappas: np.ndarray
    mean: float
    is_stable: bool


class StoppingAdvice(NamedTuple):
    """Whether to stop, and what it has cost.

    Attributes:
      stop: the lower end of the interval is at least the target.
      reason: in one line.
      num_trained: labels trained on.
      num_audited: labels that were bought for the audit.
    """

    stop: bool
    reason: str
    num_trained: int
    num_audited: int


def predictions_agreement(predicted: Any) -> Agreement:
    """Do the predictions of successive models still change? Cheap, and no guarantee of anything.

    kappa = (share that agrees - share expected by chance) / (1 - share expected by chance)

    A model that is wrong in the same way each time is stable, too. Good for one thing here: to
    begin an audit when the model has become stable, so that few models are audited.

    Args:
      predicted: `[J, n]` integers, the classes that J successive models predict for the same points
        (a stop set: a random part of the pool, or all of it), oldest first.

    Raises:
      ValueError: `predicted` that are not `[J, n]` integers.

    Source: Bloodgood, Vijay-Shanker, A Method for Stopping Active Learning Based on Stabilizing
    Predictions (CoNLL 2009): a mean kappa of at least 0.99 over three. Kappa: Cohen (1960).
    """
    classes = np.asarray(predicted)
    if classes.ndim != 2 or not classes.size or classes.dtype.kind not in "iu":
        raise ValueError(
            f"predicted: {classes.dtype} of shape {classes.shape} is not [J, n] classes; stack the "
            "predictions of successive models for the same points"
        )
    kappas = np.array([_kappa(*pair) for pair in pairwise(classes)])
    mean = float(kappas[-_WINDOW:].mean()) if len(kappas) >= _WINDOW else float("nan")
    return Agreement(kappas, mean, mean >= _THRESHOLD)


def advise_stopping(estimate: AccuracyEstimate, target_accuracy: float | int) -> StoppingAdvice:
    """Stop when the interval of the accuracy lies above a target.

    Since the intervals hold over all looks and all audited models, so does this advice: it tells to
    stop below the target with a probability of at most the audit's alpha.

    Args:
      estimate: of the current model.
      target_accuracy: in (0, 1).

    Raises:
      ValueError: a target out of range.
    """
    if not 0 < target_accuracy < 1:
        raise ValueError(f"target_accuracy: {target_accuracy} is not in (0, 1)")
    stop = bool(estimate.lower >= target_accuracy)
    interval = f"between {estimate.lower:.1%} and {estimate.upper:.1%}"
    if stop:
        reason = f"stop: the accuracy is {interval}, and the target {target_accuracy:.1%}"
    elif estimate.upper < target_accuracy:
        reason = f"train on: the accuracy is {interval}, below the target {target_accuracy:.1%}"
    else:
        reason = (
            f"not known yet: the accuracy is {interval}, the target {target_accuracy:.1%}; audit "
            "more, or train on"
        )
    return StoppingAdvice(stop, reason, estimate.num_trained, estimate.num_audited)


def _kappa(before: np.ndarray, after: np.ndarray) -> float:
    num_classes = int(max(before.max(), after.max())) + 1
    shares = [np.bincount(each, minlength=num_classes) / len(each) for each in (before, after)]
    by_chance = float(shares[0] @ shares[1])
    agree = float((before == after).mean())
    return 1.0 if by_chance == 1 else (agree - by_chance) / (1 - by_chance)
