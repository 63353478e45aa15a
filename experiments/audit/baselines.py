"""What an audit is compared with: intervals from uniform draws, and a bound for all intervals."""

import math
from collections.abc import Callable

import numpy as np
from sklearn.isotonic import IsotonicRegression

from bbald_jax.labelling.wealth import tilt

_Z = 1.959964


def wilson(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the plain 95 % interval (Wilson 1927) of an error rate after each of `[R, T]` draws.

    It is made for one look at a number of labels that was fixed beforehand.
    """
    n = np.arange(1, errors.shape[1] + 1)
    rate = errors.cumsum(axis=1) / n
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    return centre - half, centre + half


def hedged_betting(
    errors: np.ndarray, num_points: int, candidates: np.ndarray, alpha: float
) -> np.ndarray:
    """`[R, T, G]`, log-wealth against error counts, uniform draws without replacement.

    The hedged capital process of Waudby-Smith and Ramdas (2024), section 5 with predictable
    plug-in bets, truncation 1/2 and equal halves.
    """
    num_runs, num_draws = errors.shape
    t = np.arange(1, num_draws + 1)
    mean = (0.5 + errors.cumsum(axis=1)) / (t + 1)
    variance = (0.25 + ((errors - mean) ** 2).cumsum(axis=1)) / (t + 1)
    before = np.concatenate([np.full((num_runs, 1), 0.25), variance[:, :-1]], axis=1)
    size = np.sqrt(2 * np.log(2 / alpha) / (before * t * np.log(t + 1)))
    seen = errors.cumsum(axis=1) - errors
    up = np.zeros((num_runs, len(candidates)))
    down, found = up.copy(), np.zeros((num_runs, num_draws, len(candidates)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for step in range(num_draws):
            rate = (candidates - seen[:, [step]]) / (num_points - step)
            bet, gain = size[:, [step]], errors[:, [step]] - rate
            up = up + np.log1p(np.minimum(bet, 0.5 / rate) * gain)
            down = down + np.log1p(-np.minimum(bet, 0.5 / (1 - rate)) * gain)
            log_wealth = np.maximum(up, down) - math.log(2)
            possible = (rate >= 0) & (rate <= 1)
            found[:, step] = np.where(possible, log_wealth, np.inf)
    return found


def information_bound(
    probs: np.ndarray, errors: np.ndarray, num_labels: int, alpha: float = 0.05
) -> float:
    """Half-width, as a share of the points, that no interval of level alpha can be sure to keep to.

    If point i is wrong with probability eta_i, independently, then to tell an error rate m from m +
    delta, and to be wrong about either with a probability of at most alpha, takes n draws with

        n sum_i q_i KL(eta_i || eta'_i)  >=  (1 - 2 alpha) log((1 - alpha) / alpha),

    with eta' the nearest rates of mean m + delta (Wald 1945; Kaufmann, Cappe, Garivier 2016, lemma
    1). q is the design that is best for small delta, proportional to sqrt(eta (1 - eta)) (Neyman
    1934). eta is the isotonic regression of the true errors on the surrogate: what the best use of
    it could know. Half the sum of the deltas up and down.
    """
    distance = _distances(probs, errors)
    needed = (1 - 2 * alpha) * math.log((1 - alpha) / alpha) / num_labels
    both = [_search(lambda t, s=sign: distance(s * t)[1] >= needed) for sign in (-1, 1)]
    return sum(abs(distance(sign * t)[0]) for sign, t in zip((-1, 1), both, strict=True)) / 2


def labels_bound(probs: np.ndarray, errors: np.ndarray, delta: float, alpha: float = 0.05) -> float:
    """Draws that it takes, on average, to be sure that the error rate is not higher by delta.

    Whoever claims this for certain in the end, and wrongly with a probability of at most alpha,
    needs `log(1 / alpha)` nats on average (Wald 1945), whatever the design and the looks. For
    draws with replacement: without, a large part of the pool tells a little more.
    """
    distance = _distances(probs, errors)
    return math.log(1 / alpha) / distance(_search(lambda t: distance(t)[0] >= delta))[1]


def _distances(probs: np.ndarray, errors: np.ndarray) -> Callable[[float], tuple[float, float]]:
    """Of a tilt: by how much it moves the error rate, and what a draw tells about it, in nats."""
    eta = IsotonicRegression(out_of_bounds="clip").fit_transform(probs, errors.astype(float))
    levels, counts = np.unique(np.clip(eta, 1e-4, 1 - 1e-4), return_counts=True)
    weights = np.sqrt(levels * (1 - levels))
    q = weights / (counts @ weights)

    def distance(size: float) -> tuple[float, float]:
        tilted = tilt(levels, size / weights)
        divergence = levels * np.log(levels / tilted)
        divergence += (1 - levels) * np.log((1 - levels) / (1 - tilted))
        shift = float(counts @ (tilted - levels)) / counts.sum()
        return shift, float(counts @ (q * divergence))

    return distance


def _search(is_enough: Callable[[float], bool]) -> float:
    """The least size of a tilt that is enough."""
    low, high = -15.0, 15.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(math.exp(middle)) else (middle, high)
    return math.exp(high)
