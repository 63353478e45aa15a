"""Bets against candidates: their mean by enumeration of all draws, and a slow reference."""

import itertools

import numpy as np
import pytest

from bbald_jax.labelling import wealth as bets

N = 6
SEEDS = range(4)


def points(seed: int) -> tuple[bets.Cells, np.ndarray]:
    """Every point a cell of its own, and where the model is wrong."""
    rng = np.random.default_rng(seed)
    cells = bets.Cells(np.ones(N), rng.uniform(0.3, 3, N), rng.normal(-1, 2, N))
    return cells, (rng.random(N) < 0.4).astype(float)


def play(cells: bets.Cells, errors: np.ndarray, order, extra: float = 0.0) -> tuple[float, list]:
    """The probability of an order of draws, and the wealth after each of them."""
    state = bets.start(cells, np.arange(N + 1))
    probability, history = 1.0, [state]
    for point in order:
        total = cells.weights @ state.cells.counts + extra
        probability *= float(cells.weights[point] / total)
        state = bets.bet(state, point, errors[point], total)
        history.append(state)
    return probability, history


def expected_wealth(cells: bets.Cells, errors: np.ndarray, num_draws: int) -> np.ndarray:
    mean = np.zeros(N + 1)
    for order in itertools.permutations(range(N), num_draws):
        probability, history = play(cells, errors, order)
        mean += probability * np.exp(history[-1].log_wealth)
    return mean


@pytest.mark.parametrize("seed", SEEDS)
def test_against_the_truth_nothing_is_won_on_average(seed: int):
    cells, errors = points(seed)
    truth = int(errors.sum())
    # The search for the tilt is not exact after the first draw: the mean is.
    for num_draws in (1, 3):
        assert expected_wealth(cells, errors, num_draws)[truth] == pytest.approx(1, abs=1e-9)


def test_points_whose_errors_are_known_cost_nothing():
    # They could have been drawn, too; such a draw is left out, which is a factor of 1.
    cells, errors = points(0)
    mean, extra = 0.0, 2.0
    for point in range(N):
        probability, history = play(cells, errors, [point], extra)
        mean += probability * np.exp(history[-1].log_wealth[int(errors.sum())])
    mean += extra / (cells.weights.sum() + extra)
    assert mean == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tilt_is_the_root_of_its_equation(seed: int):
    cells, errors = points(seed)
    probs = bets.make_experts(cells).mean(axis=0)
    total, point = cells.weights.sum(), 2
    for m in range(1, N):
        low, high, tilted = -1e6, 1e6, probs
        for _ in range(200):  # one candidate and one point at a time
            middle = (low + high) / 2
            tilted = np.array(
                [root(p, middle / w) for p, w in zip(probs, cells.weights, strict=True)]
            )
            low, high = (middle, high) if tilted.sum() < m else (low, middle)
        p, q = probs[point], tilted[point]
        expected = np.log(p / q if errors[point] else (1 - p) / (1 - q))
        state = bets.bet(bets.start(cells, np.arange(N + 1)), point, errors[point], total)
        assert state.log_wealth[m] == pytest.approx(expected, abs=1e-6)


def root(p: float, b: float) -> float:
    """Of `p' - p = b p' (1 - p')` in (0, 1), by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - p < b * middle * (1 - middle) else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_ruled_out_lies_outside_of_what_is_not(seed: int):
    # The interval rounds outwards between candidates, which rests on this.
    rng = np.random.default_rng(seed)
    logits, weights = rng.normal(-2, 2, 8), rng.uniform(0.5, 3, 8)
    cells = bets.Cells(rng.integers(1, 30, 8).astype(float), weights, logits)
    num_points = int(cells.counts.sum())
    state = bets.start(cells, np.arange(num_points + 1))
    rates = rng.random(8) * 0.5
    while state.cells.counts.sum() > num_points / 2:
        left = state.cells.counts * weights
        cell = rng.choice(8, p=left / left.sum())
        state = bets.bet(state, cell, rng.random() < rates[cell], left.sum())
        for limit in (0.5, 1, 2, 4):
            assert np.all(np.diff(np.flatnonzero(state.largest < limit)) == 1)


def test_candidates_that_a_label_makes_impossible_are_ruled_out():
    cells, _ = points(1)
    _, history = play(cells, np.array([1, 1, 0, 0, 0, 0]), [0, 1, 2])
    ruled_out = np.isinf(history[-1].largest)
    assert ruled_out.tolist() == [True, True, False, False, False, False, True]


def test_many_audits_at_once_are_the_same_audits():
    (one, errors), (two, more) = points(0), points(1)
    both = bets.Cells(*map(np.stack, zip(one, two, strict=True)))
    state = bets.start(both, np.tile(np.arange(N + 1), (2, 1)))
    order = [(3, 1), (0, 4)]
    for a, b in order:
        totals = (both.weights * state.cells.counts).sum(axis=1)
        wrong = np.array([errors[a], more[b]])
        state = bets.bet(state, np.array([a, b]), wrong, totals)
    for row, (cells, wrong) in enumerate([(one, errors), (two, more)]):
        _, history = play(cells, wrong, [pair[row] for pair in order])
        np.testing.assert_allclose(state.log_wealth[row], history[-1].log_wealth, atol=1e-9)


def test_experts_have_the_means_that_they_are_given():
    cells = bets.Cells(np.array([50.0, 30, 20]), np.ones(3), np.array([-4.0, -1, 2]))
    experts = bets.make_experts(cells)
    means = experts @ cells.counts / 100
    np.testing.assert_allclose(means[-3:], 0.4, rtol=0.02)  # clipping moves them a little
    assert np.all(np.diff(experts[6:], axis=1) > 0)
