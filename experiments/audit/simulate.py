"""Many audits of the same models at once: their draws, and the bets on them."""

from collections.abc import Sequence
from typing import NamedTuple

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


class Audits(NamedTuple):
    """What has been drawn in R audits of each of P pools.

    Attributes:
      weights: `[P, N]`, of the draws.
      points: `[P, R, T]`.
      totals: `[P, R, T]`, the weights of all points that could have been drawn.
    """

    weights: np.ndarray
    points: np.ndarray
    totals: np.ndarray


def replay(
    audits: Audits,
    probs: list[np.ndarray],
    open_points: list[np.ndarray],
    errors: list[np.ndarray],
    candidates: np.ndarray,
    looks: Sequence[int],
    limit: float = np.inf,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The bets on one model of each pool, as `bb.estimate_accuracy` makes them.

    Args:
      audits: of which the first `looks[-1]` draws are replayed.
      probs: for each pool `[N]`, the surrogate.
      open_points: for each pool `[N]`, True for points that the model was not trained on.
      errors: for each pool `[N]`, where the model is wrong.
      candidates: `[P, G]`, numbers of errors among the open points.
      looks: numbers of draws, rising.
      limit: candidates whose log-wealth has reached it in all runs are dropped.

    Returns:
      For each look the largest log-wealth so far (infinite for what was dropped), and the
      log-wealth, `[P, R, G]`.
    """
    num_pools, num_runs, _ = audits.points.shape
    made = [make_cells(*each) for each in zip(audits.weights, probs, open_points, strict=True)]
    most = max(len(cells.counts) for cells, _ in made)
    # Empty cells make pools alike.
    fills = (0.0, 1.0, 0.0)
    stacked = bets.Cells(
        *(
            np.stack(
                [
                    np.pad(cells[i], (0, most - len(cells[i])), constant_values=fills[i])
                    for cells, _ in made
                ]
            ).repeat(num_runs, axis=0)
            for i in range(3)
        )
    )
    state = bets.start(stacked, candidates.repeat(num_runs, axis=0))
    pool = np.arange(num_pools).repeat(num_runs)
    cell_of, wrong = np.stack([cell_of for _, cell_of in made]), np.stack(errors)
    points, totals = (each.reshape(len(pool), -1) for each in audits[1:])
    found, shape = {}, (num_pools, num_runs, candidates.shape[1])
    alive = np.arange(candidates.shape[1])
    for step in range(looks[-1]):
        here = pool, points[:, step]
        state = bets.bet(state, cell_of[here], wrong[here], totals[:, step])
        if step + 1 in looks:
            both = np.full((2, len(pool), shape[2]), np.inf)
            both[:, :, alive] = state.largest, state.log_wealth
            found[step + 1] = both[0].reshape(shape), both[1].reshape(shape)
        if step % 20 == 19 and np.isfinite(limit):
            is_alive = np.asarray((state.largest < limit).any(axis=0))
            state, alive = bets.keep(state, is_alive), alive[is_alive]
    return found
