"""What an audit is compared with: intervals from uniform draws, and a bound for all intervals."""

import math

import numpy as np
from sklearn.isotonic import IsotonicRegression

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

    If point i is wrong with probability eta_i, independently, let eta'_i be as far from it as one
    draw of it tells kappa nats: `KL(eta_i || eta'_i) = kappa`. Then n draws of whatever points
    tell n kappa nats at most, and to tell the means of eta and eta' from each other, and be wrong
    about either with a probability of at most alpha, takes (Wald 1945; Kaufmann, Cappe, Garivier
    2016, lemma 1)

        n kappa  >=  (1 - 2 alpha) log((1 - alpha) / alpha).

    For small differences that is Neyman's design, q proportional to sqrt(eta (1 - eta)). eta is the
    isotonic regression of the true errors on the surrogate: what the best use of it could know.
    Half the sum of the distances of the means up and down.
    """
    levels, shares = _error_rates(probs, errors)
    kappa = (1 - 2 * alpha) * math.log((1 - alpha) / alpha) / num_labels
    up, down = _farthest(levels, kappa), 1 - _farthest(1 - levels, kappa)
    return float(shares @ (up - down)) / 2


def labels_bound(probs: np.ndarray, errors: np.ndarray, delta: float, alpha: float = 0.05) -> float:
    """Draws that it takes, on average, to be sure that the error rate is not higher by delta.

    Whoever claims this for certain in the end, and wrongly with a probability of at most alpha,
    needs `log(1 / alpha)` nats on average (Wald 1945), whatever the design and the looks. For
    draws with replacement: without, a large part of the pool tells a little more.
    """
    levels, shares = _error_rates(probs, errors)
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        is_far = shares @ (_farthest(levels, middle) - levels) >= delta
        low, high = (low, middle) if is_far else (middle, high)
    return math.log(1 / alpha) / high


def _error_rates(probs: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different eta, and the share of points that have each."""
    eta = IsotonicRegression(out_of_bounds="clip").fit_transform(probs, errors.astype(float))
    levels, counts = np.unique(np.clip(eta, 0, 1), return_counts=True)
    return levels, counts / counts.sum()


def _farthest(levels: np.ndarray, kappa: float) -> np.ndarray:
    """Above each eta, the eta' with `KL(eta || eta') = kappa`."""
    low, high = levels, np.ones_like(levels)
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.where(levels > 0, levels * np.log(levels / middle), 0)
            rest = (1 - levels) * np.log((1 - levels) / (1 - middle))
        is_far = apart + np.where(levels < 1, rest, 0) >= kappa
        low, high = np.where(is_far, low, middle), np.where(is_far, middle, high)
    return high
