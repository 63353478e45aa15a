"""How accurate is this model on the whole pool? From few audited labels, at any time, honestly."""

import math
from typing import Any, NamedTuple

import numpy as np

from bbald_jax.labelling import wealth as bets
from bbald_jax.labelling.draws import (
    NOBODY_KNOWS,
    Audit,
    Draw,
    check_error_probs,
    check_indices,
    surrogate_levels,
)
from bbald_jax.labelling.validation import check_integers

# Numbers of errors that are tried; up to so many points that is every one.
_NUM_CANDIDATES = 1_000
# An interval is right with fewer labels, too, but says nothing that one would act on.
_FEW_LABELS = 20
_UNKNOWN = NOBODY_KNOWS - 1
# Candidates that are ruled out are dropped once they are more than a tenth.
_WORTHWHILE = 0.9
_ROUNDING = 1e-6


class AccuracyEstimate(NamedTuple):
    """The accuracy of one model on all N points.

    Attributes:
      estimate: what the draws contradict least; NaN before the first audit label.
      lower: the true accuracy is at least this,
      upper: and at most this, except with the probability `alpha`.
      alpha: this model's share: over all looks at its intervals. The shares of all models add up to
        the settings' alpha.
      num_audited: audit labels that were used.
      num_trained: labels that the model was fitted to.
      warnings: why the numbers mean less than they seem to, each in one line; () is good.
    """

    estimate: float
    lower: float
    upper: float
    alpha: float
    num_audited: int
    num_trained: int
    warnings: tuple[str, ...]


def estimate_accuracy(
    audit: Audit,
    predicted: Any,
    error_probs: Any,
    *,
    labelled: Any,
    labels: Any,
    model: int = 1,
) -> AccuracyEstimate:
    """The accuracy of the current model on the whole pool, with an interval that may be looked at.

    A likelihood-ratio confidence sequence: for each number m of errors, a bet against m whose
    wealth has mean 1 if m is the truth,

    M(m) = prod_s (p / p'(m))^l ((1 - p) / (1 - p'(m)))^(1 - l)

    over the draws s, with l = 1 where the model is wrong, p the error rate that was expected there,
    and p'(m) the same tilted until it adds up to m over all points that are left (`bet` in
    `labelling/wealth.py`). The interval holds all m with `M(m) < 1 / alpha_k` after every draw so
    far. By Ville's inequality it misses the truth, at any look, with a probability of at most
    alpha_k, so people may look after every label and stop when they like; over all audited models
    with at most alpha. Intervals of one model never grow. Nothing is assumed of model and
    surrogate; a poor surrogate makes the intervals wider.

    What is assumed: draws come from `draw_for_audit`; training does not look at which points are
    audited; and the k-th model is decided without looking at the audit's labels (say, the one after
    k more batches): whether to go on may depend on them. If you audit only some models, and which
    depends on the audit, count those between, too.

    Draws serve every later model again. Those count whose label has come, up to the first one that
    is still out: which labels come late may depend on how hard they are.

    Args:
      audit: with its draws and their labels.
      predicted: `[N]` integers, the class that the model predicts for each point.
      error_probs: `[N]`, in [0, 1], how likely it is wrong there in its own opinion: 1 less the
        largest probability of its mean (or moderated) prediction.
      labelled: `[L]` indices of all points whose labels are known from training.
      labels: `[L]`, their classes; -1 where nobody can tell, which counts as an error.
      model: the number of this model, counted from 1, see `AuditSettings`.

    Returns:
      The `AccuracyEstimate`. Accuracies are shares of all N points, those trained on included. The
      interval is computed in float64 on at most 1,000 numbers of errors and rounded outwards.
      Half a second for 500 draws.

    Raises:
      ValueError: shapes or values that do not fit; a training label that differs from the audit's
        for the same point; draws that could not have taken some point without a label.

    Source: Waudby-Smith, Ramdas (JRSS B 2024; arXiv 2010.09686) for confidence sequences by
    betting, without replacement; Zrnic, Candes (ICML 2024) for drawing by a model's uncertainty;
    Farquhar, Gal, Rainforth (ICLR 2021) and Kossen et al. (ICML 2021) for what actively chosen
    points bias, and how weights mend it.
    """
    num_points = len(audit.weights)
    points = check_indices("labelled", labelled, num_points)
    classes = np.asarray(check_integers("labels", labels), np.int64)
    predicted = np.asarray(check_integers("predicted", predicted), np.int64)
    if len(classes) != len(points):
        raise ValueError(f"labels: {len(classes)} for {len(points)} points; pass one for each")
    if (classes < NOBODY_KNOWS).any():
        raise ValueError(f"labels: {classes.min()} is no class; pass 0 or more, or -1")
    if len(predicted) != num_points:
        raise ValueError(f"predicted: {len(predicted)} for {num_points} points; pass one for each")
    surrogate = check_error_probs(error_probs, num_points)
    alpha = audit.settings.model_alpha(model)

    known = np.full(num_points, _UNKNOWN)
    known[points] = classes
    is_open = known == _UNKNOWN
    num_open = int(is_open.sum())
    answered = _answered(audit)
    cells, cell_of = make_cells(audit.weights, surrogate, is_open)
    candidates = candidate_errors(num_open)
    state, limit = bets.start(cells, candidates), -math.log(alpha)
    alive, audited_errors = np.arange(len(candidates)), 0
    for place, draw in enumerate(audit.draws[:answered]):
        if known[draw.point] not in (_UNKNOWN, draw.label):
            raise ValueError(
                f"labels: point {draw.point} is {known[draw.point]} for training and {draw.label} "
                "in the audit; one of them is wrong: give the same to both"
            )
        if cell_of[draw.point] < 0:  # trained on since: its label is known to the model
            continue
        total = _total(draw, audit.weights, state.cells, place)
        is_error = predicted[draw.point] != draw.label
        audited_errors += int(is_error)
        state = bets.bet(state, cell_of[draw.point], is_error, total)
        is_alive = state.largest < limit
        if is_alive.sum() < _WORTHWHILE * len(is_alive):
            state, alive = bets.keep(state, is_alive), alive[is_alive]
    is_alive = state.largest < limit
    state, alive = bets.keep(state, is_alive), alive[is_alive]
    least, best, most = _interval(state, candidates, alive)
    if not (num_left := int(state.cells.counts.sum())):
        least = best = most = float(audited_errors)
    warnings = _warnings(audit, model, answered, num_left, best)
    if num_left and not answered:
        best = math.nan
    right = num_points - int((predicted[points] != classes).sum())
    estimate, lower, upper = ((right - m) / num_points for m in (best, most, least))
    return AccuracyEstimate(estimate, lower, upper, alpha, answered, len(points), warnings)


def _answered(audit: Audit) -> int:
    """How many draws come before the first one whose label is still out."""
    labels = [draw.label for draw in audit.draws]
    return labels.index(None) if None in labels else len(labels)


def candidate_errors(num_open: int) -> np.ndarray:
    """Numbers of errors that are tried, rising from 0 to all, dense at both ends."""
    shares = np.sin(np.linspace(0, np.pi / 2, _NUM_CANDIDATES)) ** 2
    return np.unique(np.round(num_open * shares))


def make_cells(
    weights: np.ndarray, surrogate: np.ndarray, is_open: np.ndarray
) -> tuple[bets.Cells, np.ndarray]:
    """Points of one weight and one level of the surrogate, together; and where each is, or -1."""
    logits, levels = surrogate_levels(surrogate)
    values, ranks = np.unique(weights, return_inverse=True)
    there, places = np.unique((ranks * len(logits) + levels)[is_open], return_inverse=True)
    cell_of = np.full(len(weights), -1)
    cell_of[is_open] = places
    counts = np.bincount(places, minlength=len(there)).astype(np.float64)
    return bets.Cells(counts, values[there // len(logits)], logits[there % len(logits)]), cell_of


def _total(draw: Draw, weights: np.ndarray, cells: bets.Cells, place: int) -> float:
    """The weights of all points that could have been drawn, by the recorded probability."""
    total = weights[draw.point] / draw.probability
    open_weight = float(cells.counts @ cells.weights)
    if not total >= open_weight * (1 - _ROUNDING):
        raise ValueError(
            f"audit.draws[{place}]: probability {draw.probability:.4g} of point {draw.point} says "
            "that some point without a label could not be drawn; draw by bb.draw_for_audit, and "
            "name all labelled points here that were named there"
        )
    return total


def _interval(
    state: bets.Wealth, candidates: np.ndarray, alive: np.ndarray
) -> tuple[float, float, float]:
    """Least, best and most errors among the open points; (first, NaN, last) if all are ruled out.

    Between two candidates that are ruled out, on one side of those that are not, all are taken to
    be ruled out: wealth is smooth in the number of errors, and falls towards those.
    """
    if not alive.size:
        return float(candidates[0]), math.nan, float(candidates[-1])
    first, last = alive[0], alive[-1]
    least = candidates[first - 1] + 1 if first else candidates[0]
    most = candidates[last + 1] - 1 if last + 1 < len(candidates) else candidates[-1]
    return float(least), float(candidates[alive[state.log_wealth.argmin()]]), float(most)


def _warnings(
    audit: Audit, model: int, answered: int, num_left: int, best: float
) -> tuple[str, ...]:
    """Why the numbers mean less than they seem to, or something else."""
    lines = []
    if not num_left:
        lines.append("every point is labelled: this is the accuracy itself, not an estimate")
    elif not answered:
        lines.append("no audit label yet: nothing is known but the labels trained on")
    elif answered < _FEW_LABELS:
        lines.append(f"{answered} audit labels are few: the interval holds, and says little")
    if num_late := sum(draw.label is not None for draw in audit.draws[answered:]):
        lines.append(
            f"{num_late} audit labels wait for draw {answered}, point "
            f"{audit.draws[answered].point}: label it, or answer -1"
        )
    if model > audit.settings.planned_models:
        lines.append(
            f"model {model} of {audit.settings.planned_models} planned: its interval is wider than "
            "theirs"
        )
    if math.isnan(best):
        lines.append(
            "no accuracy at all fits the draws: what the interval rests on does not hold (were "
            "points for training chosen by whether they are audited, or labels changed?)"
        )
    return tuple(lines)
