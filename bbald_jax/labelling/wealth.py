"""Bets against every possible number of errors: a likelihood-ratio confidence sequence, in float64.

Points are drawn without replacement with known probabilities, and each label says whether a model
is wrong there. For each candidate number of errors, `bet` multiplies a wealth whose mean would stay
1 if the candidate were true; one whose wealth reaches 1 / alpha is ruled out. NumPy, as each label
brings another length, and a compilation would take longer than the arithmetic. All functions take
leading axes (`...`), for many audits at once.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

# Experts: the surrogate's error rates with another sharpness and another mean.
_SHARPNESS = (0.6, 1.0, 1.6)
_MEANS = (0.003, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4)
_LEAST, _MOST = 2e-4, 0.98
_BISECTIONS = 60
_NEWTON_STEPS = 3
# Tilts beyond it are those of candidates that are ruled out, or impossible.
_LARGEST_TILT = 1e9


class Cells(NamedTuple):
    """Points that a bet cannot tell apart, together: S kinds of them.

    Attributes:
      counts: `[..., S]`, how many points are left in each cell (no label known, not drawn).
      weights: `[..., S]`, the drawing weight of one point there; positive.
      logits: `[..., S]`, the surrogate's log-odds that the model is wrong on such a point.
    """

    counts: np.ndarray
    weights: np.ndarray
    logits: np.ndarray


class Wealth(NamedTuple):
    """What the bets against G candidates have come to.

    Attributes:
      cells: the points that are left.
      experts: `[..., E, S]`, each expert's probability of an error.
      log_trust: `[..., E]`, log-likelihood of each expert on the draws so far.
      left: `[..., G]`, errors that each candidate leaves for the points that are left.
      tilts: `[..., G]`, where the last bet stood: the next one starts its search there.
      log_wealth: `[..., G]`.
      largest: `[..., G]`, the largest log-wealth so far, 0 before any draw.
    """

    cells: Cells
    experts: np.ndarray
    log_trust: np.ndarray
    left: np.ndarray
    tilts: np.ndarray
    log_wealth: np.ndarray
    largest: np.ndarray


def make_experts(cells: Cells) -> np.ndarray:
    """`[..., E, S]`, probabilities of an error: `sigma(g logit + c)` within [2e-4, 0.98].

    g is 0.6, 1 or 1.6, and c such that the mean over the points is one of eight values from 0.003
    to 0.4. So the surrogate's order counts, and neither its level nor its sharpness is believed.
    """
    sharpness, means = map(np.ravel, np.meshgrid(_SHARPNESS, _MEANS))
    scaled = sharpness[:, None] * cells.logits[..., None, :]
    shares = cells.counts / np.maximum(cells.counts.sum(-1, keepdims=True), 1)
    low = np.full((*scaled.shape[:-1], 1), -1e3)
    high = -low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        mean = (_sigmoid(scaled + middle) * shares[..., None, :]).sum(-1, keepdims=True)
        is_low = mean < means[:, None]
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return np.clip(_sigmoid(scaled + (low + high) / 2), _LEAST, _MOST)


def start(cells: Cells, candidates: np.ndarray) -> Wealth:
    """Wealth 1 against each candidate, `[..., G]` numbers of errors among these points."""
    experts = make_experts(cells)
    probs = experts.mean(axis=-2)
    candidates = np.asarray(candidates, np.float64)
    # Bisection in asinh(tilt): tilts reach from -1 / errors to 1 / errors and far beyond.
    low = np.full(candidates.shape, -np.arcsinh(_LARGEST_TILT))
    high = -low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_low = _tilted(cells, probs, np.sinh(middle))[0] < candidates
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    zeros = np.zeros(candidates.shape)
    return Wealth(
        cells,
        experts,
        np.zeros(experts.shape[:-1]),
        candidates,
        np.sinh((low + high) / 2),
        zeros,
        zeros,
    )


def bet(wealth: Wealth, cell: ArrayLike, is_error: ArrayLike, total: ArrayLike) -> Wealth:
    """One draw: a point of a cell, and whether the model is wrong there.

    With the experts' mean p (weighted by their likelihood on the earlier draws), the drawing
    probability `q_i = weight_i / total` and a candidate that leaves m errors, the bet tilts p,

        p'_i - p_i = (u / q_i) p'_i (1 - p'_i),    u such that  sum_i p'_i = m,

    and multiplies the wealth by the likelihood ratio

        (p / p')^l ((1 - p) / (1 - p'))^(1 - l)  =  1 - (u / q) (l - p'),

    whose expectation over the draw is `1 - u (sum_i l_i - sum_i p'_i)`: 1 for the true m, whatever
    p is. The factor is divided by this expectation under m, so that the search for u need not be
    exact.

    Args:
      wealth: before the draw.
      cell: `[...]`, where the point is; -1 for a point in none, whose error is known for certain:
        nothing is bet on it.
      is_error: `[...]`, l, 0 or 1.
      total: `[...]`, the weights of all points that could have been drawn: those of the cells, and
        those in none.

    Source: Waudby-Smith, Ramdas, Estimating means of bounded random variables by betting (JRSS B
    2024), section 5, without replacement; predictions as a control variate, and drawing by them:
    Zrnic, Candes, Active Statistical Inference (ICML 2024). The form as a likelihood ratio is ours.
    """
    cells, experts = wealth.cells, wealth.experts
    cell = np.asarray(cell)[..., None]
    in_cell = cell >= 0
    is_error = np.asarray(is_error, np.float64)[..., None]
    total = np.asarray(total, np.float64)[..., None]
    trust = np.exp(wealth.log_trust - wealth.log_trust.max(-1, keepdims=True))
    trust /= trust.sum(-1, keepdims=True)
    probs = np.einsum("...e,...es->...s", trust, experts)

    left, num_left = wealth.left, cells.counts.sum(-1, keepdims=True)
    is_possible = (left >= 0) & (left <= num_left)
    tilts = wealth.tilts
    for _ in range(_NEWTON_STEPS):
        expected, slope = _tilted(cells, probs, tilts)
        step = (left - expected) / np.maximum(slope, 1e-300)
        reach = 1 + np.abs(tilts)
        tilts = np.clip(tilts + np.clip(step, -reach, reach), -_LARGEST_TILT, _LARGEST_TILT)
    expected, _ = _tilted(cells, probs, tilts)

    prob = np.take_along_axis(probs, cell, -1)
    weight = np.take_along_axis(cells.weights, cell, -1)
    tilted = tilt(prob, tilts / weight)
    untilted = tilt(1 - prob, -tilts / weight)  # 1 - tilted, without cancellation
    log_factor = np.where(is_error > 0, np.log(prob / tilted), np.log((1 - prob) / untilted))
    log_factor -= np.log(np.maximum(1 - tilts / total * (left - expected), 1e-300))
    log_factor = np.where(is_possible, log_factor, np.inf)

    chosen = np.take_along_axis(experts, cell[..., None, :], -1)[..., 0]
    log_trust = np.log(np.where(is_error > 0, chosen, 1 - chosen))
    counts = cells.counts - (np.arange(cells.counts.shape[-1]) == cell)
    left = left - np.where(in_cell, is_error, 0)
    # What the label has shown to be impossible.
    is_possible = (left >= 0) & (left <= counts.sum(-1, keepdims=True))
    log_wealth = wealth.log_wealth + np.where(in_cell, log_factor, 0)
    log_wealth = np.where(is_possible, log_wealth, np.inf)
    return Wealth(
        cells._replace(counts=counts),
        experts,
        wealth.log_trust + np.where(in_cell, log_trust, 0),
        left,
        tilts,
        log_wealth,
        np.maximum(wealth.largest, log_wealth),
    )


def keep(wealth: Wealth, is_kept: np.ndarray) -> Wealth:
    """Without the candidates that need no more bets; `is_kept` is `[G]`."""
    left, tilts, log_wealth, largest = (array[..., is_kept] for array in wealth[3:])
    return Wealth(*wealth[:3], left, tilts, log_wealth, largest)


def _tilted(cells: Cells, probs: np.ndarray, tilts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[..., G]`, the sum over the points of their tilted probabilities, and its derivative."""
    per_weight = 1 / cells.weights[..., None, :]
    bets = tilts[..., None] * per_weight
    probs, counts = probs[..., None, :], cells.counts[..., None, :]
    root = np.sqrt((1 - bets) ** 2 + 4 * bets * probs)
    tilted = tilt(probs, bets, root)
    slope = counts * per_weight * tilted * (1 - tilted) / root
    return (counts * tilted).sum(-1), slope.sum(-1)


def tilt(probs: np.ndarray, bets: np.ndarray, root: np.ndarray | None = None) -> np.ndarray:
    """The root p' in (0, 1) of `p' - p = b p' (1 - p')`."""
    if root is None:
        root = np.sqrt((1 - bets) ** 2 + 4 * bets * probs)
    # Two forms of the same root, each where it does not cancel.
    below = 2 * probs / np.maximum(1 - bets + root, 1e-300)
    above = (bets - 1 + root) / np.where(bets > 1, 2 * bets, 1)
    return np.where(bets > 1, above, below)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
