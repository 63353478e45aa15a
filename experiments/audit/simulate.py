"""Many audits of the same models at once: their draws, and the bets on them."""

import numpy as np

from bbald_jax.labelling import wealth as bets
from bbald_jax.labelling.audit import make_cells
from experiments.audit.models import BATCH_SIZE, Curve

SURROGATES = ("good", "shuffled", "inverted")


def is_open(curve: Curve, model: int) -> np.ndarray:
    """`[N]`, True for points that a model was not trained on."""
    open_points = np.ones(len(curve.y), bool)
    open_points[curve.chosen[: BATCH_SIZE * model]] = False
    return open_points


def surrogate(curve: Curve, model: int, kind: str) -> np.ndarray:
    """The model's opinion of its errors, or what is made of it."""
    probs = curve.error_probs[model].astype(np.float64)
    if kind == "shuffled":
        return np.random.default_rng(model).permutation(probs)
    return 1 - probs if kind == "inverted" else probs


def draw_audits(
    rng: np.random.Generator,
    weights: np.ndarray,
    open_in_phase: list[np.ndarray],
    draws_a_phase: int,
    num_runs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`[R, T]` points and `[R, T]` total weights: as `bb.draw_for_audit` draws, in each phase.

    Exponential clocks run on from one phase to the next; points that are trained on in between
    leave the race.
    """
    num_draws = draws_a_phase * len(open_in_phase)
    some = num_draws + int((open_in_phase[0] & ~open_in_phase[-1]).sum())
    clocks = rng.exponential(size=(num_runs, len(weights))) / weights
    clocks = np.where(open_in_phase[0], clocks, np.inf)
    order = np.argpartition(clocks, some, axis=1)[:, :some]
    order = np.take_along_axis(order, np.take_along_axis(clocks, order, 1).argsort(axis=1), 1)
    points = np.zeros((num_runs, num_draws), int)
    totals = np.zeros((num_runs, num_draws))
    for run, race in enumerate(order):
        place, drawn = 0, []
        for phase, open_points in enumerate(open_in_phase):
            total = weights[open_points].sum() - weights[drawn][open_points[drawn]].sum()
            for step in range(phase * draws_a_phase, (phase + 1) * draws_a_phase):
                while not open_points[race[place]]:
                    place += 1
                points[run, step], totals[run, step] = race[place], total
                total -= weights[race[place]]
                drawn.append(race[place])
                place += 1
    return points, totals


def replay(
    weights: np.ndarray,
    probs: np.ndarray,
    open_points: np.ndarray,
    errors: np.ndarray,
    points: np.ndarray,
    totals: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """`[R, T, G]`, the log-wealth against each candidate, after each draw of each run."""
    cells, cell_of = make_cells(weights, probs, open_points)
    num_runs, num_draws = points.shape
    cells = bets.Cells(*(np.tile(each, (num_runs, 1)) for each in cells))
    state = bets.start(cells, np.tile(candidates, (num_runs, 1)))
    found = np.zeros((num_runs, num_draws, len(candidates)))
    for step in range(num_draws):
        point = points[:, step]
        state = bets.bet(state, cell_of[point], errors[point], totals[:, step])
        found[:, step] = state.log_wealth
    return found
