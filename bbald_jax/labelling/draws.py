"""Points drawn to be audited, at random with recorded probabilities: an immutable value.

Settings and drawing weights are frozen when the audit begins; from then on draws and their labels
are added. So an audit can be rebuilt from what was written down: its settings, its weights, and for
each draw the point, its probability, the model's number and the label.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.labelling.validation import check_integers
from bbald_jax.labelling.wealth import Cells, make_experts
from bbald_jax.typing import Key
from bbald_jax.validation import assert_positive

#: The label of a drawn point that nobody can label: it counts as an error of every model.
NOBODY_KNOWS = -1
# Points whose surrogates differ by less than a bin are treated alike.
_NUM_LEVELS = 16
_LEAST_ERROR = 1e-4
# What is left for models beyond those that were planned.
_TAIL = 0.1


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is made; frozen when it begins.

    Changing any of it after a look at the labels forbids to use the earlier draws again.

    Attributes:
      alpha: the chance, in (0, 1), that any interval of any audited model, looked at after any
        label, misses its model's accuracy.
      planned_models: M, how many models are to be audited. Model k = 1 ... M gets `0.9 alpha / M`,
        and a later one `0.1 alpha / ((k - M)(k - M + 1))`, which adds up to alpha and never runs
        out. Fewer are better: 20 models make intervals half as wide again as one.
      uniform_share: in (0, 1], of the drawing weights; the rest follows the model's uncertainty.
      max_ratio: at least 1, how much more often than average the uncertain share draws a point.
    """

    alpha: float = 0.05
    planned_models: int = 3
    uniform_share: float = 0.7
    max_ratio: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha: {self.alpha} is not in (0, 1); 0.05 is usual")
        assert_positive(planned_models=self.planned_models)
        if not 0 < self.uniform_share <= 1:
            raise ValueError(f"uniform_share: {self.uniform_share} is not in (0, 1]")
        if not self.max_ratio >= 1:
            raise ValueError(f"max_ratio: {self.max_ratio} is below 1")

    def model_alpha(self, model: int) -> float:
        """The share of alpha of the model of this number, counted from 1."""
        assert_positive(model=model)
        late = model - self.planned_models
        if late <= 0:
            return self.alpha * (1 - _TAIL) / self.planned_models
        return _TAIL * self.alpha / (late * (late + 1))


class Draw(NamedTuple):
    """One point drawn for the audit.

    Attributes:
      point: its index.
      probability: with which it was drawn, among the points that were neither labelled nor drawn.
      model: the number of the model that was audited then, counted from 1.
      label: its class; None while nobody has answered; -1 where nobody can tell.
    """

    point: int
    probability: float
    model: int
    label: int | None = None


class Audit(NamedTuple):
    """An audit so far.

    Attributes:
      settings: of the whole audit.
      weights: `[N]` float64, positive: a point is drawn with a probability proportional to its
        weight. At most 16 different values.
      draws: in order.
    """

    settings: AuditSettings
    weights: np.ndarray
    draws: tuple[Draw, ...] = ()


def start_audit(error_probs: Any, settings: AuditSettings | None = None) -> Audit:
    """An audit without a draw, for the points and the first model of this surrogate.

    weight_i = s + (1 - s) min(p_i / mean p, r)

    with s the uniform share, r the largest ratio, and p the mean of the experts that the surrogate
    gives rise to (see `estimate_accuracy`).

    Begin when the model has become stable (`bb.predictions_agreement`): few audited models are the
    largest saving.

    Args:
      error_probs: `[N]`, in [0, 1], how likely the model is wrong on each point, in its own
        opinion: 1 less the largest probability of its mean (or moderated) prediction. A poor
        opinion makes intervals wider, never wrong.
      settings: the defaults if None.

    Raises:
      ValueError: `error_probs` that are not `[N]`, or out of range.
    """
    settings = AuditSettings() if settings is None else settings
    logits, levels = surrogate_levels(check_error_probs(error_probs))
    counts = np.bincount(levels, minlength=len(logits)).astype(np.float64)
    probs = make_experts(Cells(counts, np.ones_like(logits), logits)).mean(axis=0)
    ratios = np.minimum(probs * counts.sum() / (counts @ probs), settings.max_ratio)
    weights = settings.uniform_share + (1 - settings.uniform_share) * ratios
    return Audit(settings, weights[levels])


def draw_for_audit(
    key: Key, audit: Audit, num_draws: int, *, labelled: Any, model: int = 1
) -> tuple[Audit, np.ndarray]:
    """Draw points to be labelled for the audit, one after the other, without replacement.

    Draw s takes point i of the R_s that are neither labelled nor drawn before with the probability

    q_s(i) = weight_i / sum_{j in R_s} weight_j

    What holds for the intervals afterwards rests on two things. Every point without a label may be
    drawn: also those that are out to be labelled for training. And training never looks at which
    points are audited: if it chooses an audited one, the label is known and used, free.

    Args:
      key: another one for each call.
      audit: so far.
      num_draws: at least 1; fewer are drawn where fewer points are left.
      labelled: `[L]` indices of the points whose label is known from training (or which nobody can
        label).
      model: the number of the model that is being audited, counted from 1, never falling.

    Returns:
      The audit with the new draws, and their indices, in order.

    Raises:
      ValueError: `num_draws` or `model` out of range, `labelled` that are no points.
    """
    assert_positive(num_draws=num_draws, model=model)
    if audit.draws and model < audit.draws[-1].model:
        raise ValueError(f"model: {model} after {audit.draws[-1].model}; numbers never fall")
    is_available = np.ones(len(audit.weights), bool)
    is_available[check_indices("labelled", labelled, len(is_available))] = False
    is_available[[draw.point for draw in audit.draws]] = False
    # A race of exponential clocks draws in just these proportions. 64 random bits each: the winner
    # is decided in the tail, where float32 has few numbers.
    bits = np.asarray(jax.random.bits(key, (2, len(is_available)), jnp.uint32), np.float64)
    uniform = (bits[0] + (bits[1] + 0.5) * 2.0**-32) * 2.0**-32
    times = np.where(is_available, -np.log1p(-uniform) / audit.weights, np.inf)
    num_draws = min(int(num_draws), int(is_available.sum()))
    chosen = np.argsort(times, kind="stable")[:num_draws]
    drawn = audit.weights[chosen]
    totals = audit.weights[is_available].sum() - np.concatenate([[0.0], np.cumsum(drawn)[:-1]])
    draws = tuple(
        Draw(int(index), float(min(1.0, weight / total)), int(model))
        for index, weight, total in zip(chosen, drawn, totals, strict=False)
    )
    return audit._replace(draws=audit.draws + draws), chosen


def answer_audit(audit: Audit, indices: Any, labels: Any) -> Audit:
    """Take in labels of drawn points, in any order.

    Args:
      audit: with these draws.
      indices: `[L]`, points that were drawn and have no label yet.
      labels: `[L]`, their classes, or -1 for a point that nobody can label: it counts as an
        error of every model, so that leaving out what is hard cannot flatter one.

    Raises:
      ValueError: an index that was not drawn, or is answered already; lengths that differ.
    """
    points, classes = check_integers("indices", indices), check_integers("labels", labels)
    if len(points) != len(classes):
        raise ValueError(f"labels: {len(classes)} for {len(points)} indices; pass one for each")
    places = {draw.point: place for place, draw in enumerate(audit.draws) if draw.label is None}
    draws = list(audit.draws)
    for point, label in zip(points, classes, strict=True):
        if point not in places:
            raise ValueError(
                f"indices: point {point} is not out for the audit; answer drawn points, once"
            )
        if label < NOBODY_KNOWS:
            raise ValueError(
                f"labels: {label}, of point {point}, is no class; pass 0 or more, or -1"
            )
        place = places.pop(point)
        draws[place] = draws[place]._replace(label=label)
    return audit._replace(draws=tuple(draws))


def surrogate_levels(error_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds in at most 16 bins of equal width: each bin's mean, and each point's bin."""
    clipped = np.clip(error_probs, _LEAST_ERROR, 1 - _LEAST_ERROR)
    logits = np.log(clipped / (1 - clipped))
    low, high = logits.min(), logits.max()
    bins = np.floor((logits - low) / max(high - low, 1e-9) * _NUM_LEVELS)
    _, levels = np.unique(np.minimum(bins, _NUM_LEVELS - 1), return_inverse=True)
    return np.bincount(levels, logits) / np.bincount(levels), levels


def check_error_probs(error_probs: Any, num_points: int | None = None) -> np.ndarray:
    """`[N]` float64 in [0, 1], or an error that names the first that is not."""
    probs = np.asarray(error_probs, np.float64)
    if probs.ndim != 1 or not probs.size or num_points not in (None, len(probs)):
        expected = "[N]" if num_points is None else f"[{num_points}]"
        raise ValueError(f"error_probs: shape {probs.shape} is not {expected}, one for each point")
    if (wrong := ~((probs >= 0) & (probs <= 1))).any():
        first = int(wrong.argmax())
        raise ValueError(f"error_probs[{first}]: {probs[first]} is not in [0, 1]")
    return probs


def check_indices(name: str, indices: Any, num_points: int) -> np.ndarray:
    """Points, each named once."""
    points = np.asarray(check_integers(name, indices), np.int64)
    if (wrong := (points < 0) | (points >= num_points)).any():
        raise ValueError(f"{name}: {points[wrong][0]} is no point here; pass 0 to {num_points - 1}")
    unique, counts = np.unique(points, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: point {unique[counts > 1][0]} is named twice; leave one out")
    return points
