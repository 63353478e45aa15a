"""Accuracy from few audited labels: by enumeration, by simulation, and what is refused."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bbald_jax as bb
from bbald_jax.labelling import wealth as bets
from bbald_jax.labelling.audit import estimate_accuracy, make_cells
from bbald_jax.labelling.draws import (
    Audit,
    AuditSettings,
    Draw,
    answer_audit,
    draw_for_audit,
    start_audit,
)

ONE = AuditSettings(planned_models=1)


class World:
    """Classes, and a model that is wrong most where it says that it may be."""

    def __init__(self, num_points: int, seed: int, rate: float = 0.15):
        rng = np.random.default_rng(seed)
        self.y = rng.integers(0, 4, num_points)
        self.error_probs = rng.beta(0.5, 0.5 / rate, num_points)
        is_wrong = rng.random(num_points) < self.error_probs
        self.predicted = np.where(is_wrong, (self.y + 1) % 4, self.y)
        self.trained = rng.permutation(num_points)[: num_points // 10]
        self.accuracy = float((self.predicted == self.y).mean())

    def audit(self, num_draws: int, settings: AuditSettings = ONE, seed: int = 0) -> Audit:
        audit = start_audit(self.error_probs, settings)
        audit, points = draw_for_audit(
            jax.random.key(seed), audit, num_draws, labelled=self.trained
        )
        return answer_audit(audit, points, self.y[points])

    def estimate(self, audit: Audit, **changes):
        arguments = {
            "predicted": self.predicted,
            "error_probs": self.error_probs,
            "labelled": self.trained,
            "labels": self.y[self.trained],
            **changes,
        }
        return estimate_accuracy(audit, **arguments)


@pytest.fixture(scope="module")
def world() -> World:
    return World(400, seed=0)


def test_an_interval_around_the_truth(world: World):
    found = world.estimate(world.audit(150))
    assert found.lower < found.estimate < found.upper
    assert found.lower <= world.accuracy <= found.upper
    assert found.upper - found.lower < 0.2
    assert (found.num_audited, found.num_trained, found.warnings) == (150, 40, ())


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 30))
def test_everything_that_intervals_promise(seed: int, num_points: int):
    world = World(num_points, seed % 1000, rate=0.3)
    audit = world.audit(num_points, seed=seed)
    lower, upper = -np.inf, np.inf
    for num_draws in range(0, len(audit.draws) + 1, 5):
        found = world.estimate(audit._replace(draws=audit.draws[:num_draws]))
        # One model's intervals are nested, and never leave what is possible.
        is_missed = np.isnan(found.estimate) and num_draws
        assert is_missed or lower <= found.lower <= found.upper <= upper
        lower, upper = found.lower, found.upper
    found = world.estimate(audit)
    assert found[:3] == (world.accuracy,) * 3
    assert "every point is labelled" in found.warnings[0]
    everything = {"labelled": np.arange(num_points), "labels": world.y}
    assert world.estimate(audit, **everything)[:3] == (world.accuracy,) * 3


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 9))
def test_the_order_of_the_points_means_nothing(random, seed: int):
    world = World(60, seed)
    audit = world.audit(25)
    order = list(range(60))
    random.shuffle(order)
    order = np.array(order)
    place = np.argsort(order)
    moved = audit._replace(
        weights=audit.weights[order],
        draws=tuple(draw._replace(point=int(place[draw.point])) for draw in audit.draws),
    )
    found = world.estimate(
        moved,
        predicted=world.predicted[order],
        error_probs=world.error_probs[order],
        labelled=place[world.trained],
    )
    assert found[:3] == pytest.approx(world.estimate(audit)[:3], abs=1e-12)


@pytest.mark.parametrize("num_later", [0, 12])
def test_the_interval_is_that_of_every_number_of_errors(world: World, num_later: int):
    # With 400 points every candidate is tried: against the wealth at the ends and beyond. Some
    # points were trained on only after the draws, of which they took part.
    audit = world.audit(40)
    weight_left = np.delete(audit.weights, world.trained).sum()
    later = [draw.point for draw in audit.draws[5:8]] + sorted(
        range(400), key=world.trained.__contains__
    )[:9]
    trained = np.union1d(world.trained, later[:num_later]).astype(int)
    found = world.estimate(audit, labelled=trained, labels=world.y[trained])
    is_open = np.ones(400, bool)
    is_open[trained] = False
    cells, cell = make_cells(audit.weights, world.error_probs, is_open)
    wrong = world.predicted != world.y
    trained_errors = int(wrong[trained].sum())
    first, last = (round(400 * (1 - end)) - trained_errors for end in (found.upper, found.lower))
    state, total = bets.start(cells, np.array([first - 1, first, last, last + 1])), weight_left
    for draw in audit.draws:
        state = bets.bet(state, cell[draw.point], wrong[draw.point], total)
        total -= audit.weights[draw.point]
    is_inside = state.largest < -np.log(found.alpha)
    assert is_inside.tolist() == [False, True, True, False]


def test_candidates_between_those_that_are_tried_are_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    audit = world.audit(60)
    exact = world.estimate(audit)
    monkeypatch.setattr("bbald_jax.labelling.audit._NUM_CANDIDATES", 40)
    rounded = world.estimate(audit)
    assert exact.lower - 0.03 < rounded.lower <= exact.lower
    assert exact.upper <= rounded.upper < exact.upper + 0.03


@pytest.mark.parametrize("kind", ["good", "inverted"])
def test_few_paths_ever_miss_the_truth(kind: str):
    """400 paths, two models, looked at after every label: 5 % may miss, and two errors more."""
    first, second = World(300, seed=1), World(300, seed=2)
    second.y, second.predicted = (
        first.y,
        np.where(second.predicted != second.y, (first.y + 1) % 4, first.y),
    )
    trained = [first.trained, np.union1d(first.trained, second.trained)]
    surrogates = [w.error_probs if kind == "good" else 1 - w.error_probs for w in (first, second)]
    audit = start_audit(surrogates[0], AuditSettings(planned_models=2))
    rng, num_runs, num_draws = np.random.default_rng(0), 400, 80
    missed = np.zeros(num_runs, bool)
    available = np.ones(300, bool)
    available[first.trained] = False
    race = np.where(available, rng.exponential(size=(num_runs, 300)) / audit.weights, np.inf)
    order = np.argsort(race, axis=1)[:, :num_draws]
    used = np.cumsum(audit.weights[order], axis=1) - audit.weights[order]
    totals = audit.weights[available].sum() - used
    for model, (world, known, probs) in enumerate(
        zip((first, second), trained, surrogates, strict=True), start=1
    ):
        is_open = np.ones(300, bool)
        is_open[known] = False
        wrong = world.predicted != first.y
        cells, cell = make_cells(audit.weights, probs, is_open)
        cells = bets.Cells(*(np.tile(each, (num_runs, 1)) for each in cells))
        state = bets.start(cells, np.full((num_runs, 1), wrong[is_open].sum()))
        for step in range(num_draws):
            point = order[:, step]
            state = bets.bet(state, cell[point], wrong[point], totals[:, step])
        largest = state.largest[:, 0]
        missed |= largest >= -np.log(audit.settings.model_alpha(model))
        assert largest.max() > 1  # something was bet
    assert missed.mean() <= 0.073


def test_draws_follow_their_probabilities():
    weights = np.array([1.0, 2, 3, 4, 5])
    audit = Audit(ONE, weights)
    counts = np.zeros((5, 5))
    for seed in range(600):
        after, points = draw_for_audit(jax.random.key(seed), audit, 2, labelled=[4])
        first, second = after.draws
        assert first.probability == pytest.approx(weights[first.point] / 10)
        assert second.probability == pytest.approx(
            weights[second.point] / (10 - weights[first.point])
        )
        counts[tuple(points)] += 1
    expected = np.array(
        [[0 if i == j else i * j / 10 / (10 - i) for j in range(1, 5)] for i in range(1, 5)]
    )
    error = np.sqrt(expected * (1 - expected) / 600)
    assert np.all(np.abs(counts[:4, :4] / 600 - expected) <= 4 * error)
    assert not counts[4].any() and not counts[:, 4].any()


def test_drawing_one_by_one_draws_no_point_twice(world: World):
    audit = start_audit(world.error_probs, ONE)
    for seed in range(3):
        audit, points = draw_for_audit(jax.random.key(seed), audit, 5, labelled=world.trained)
        assert len(points) == 5
    points = [draw.point for draw in audit.draws]
    assert len({*points} | {*world.trained.tolist()}) == 15 + 40
    audit, _ = draw_for_audit(jax.random.key(9), audit, 10_000, labelled=world.trained)
    assert sorted(draw.point for draw in audit.draws) == sorted({*range(400)} - {*world.trained})
    audit, points = draw_for_audit(jax.random.key(9), audit, 1, labelled=world.trained)
    assert points.size == 0


def test_labels_are_used_again_for_a_later_model(world: World):
    plan = AuditSettings(planned_models=2)
    audit = world.audit(150, plan)
    # The later model was trained on 20 of the audited points, too, and has other opinions.
    later = np.union1d(world.trained, [draw.point for draw in audit.draws[:20]])
    surrogate = np.roll(world.error_probs, 7)
    changes = {"labelled": later, "labels": world.y[later], "error_probs": surrogate}
    found = world.estimate(audit, model=2, **changes)
    assert found.alpha == pytest.approx(0.0225)
    assert found.lower <= world.accuracy <= found.upper
    assert found.upper - found.lower < 0.25
    assert found.num_trained == 60


def test_shares_of_alpha_add_up_and_never_run_out():
    plan = AuditSettings(alpha=0.1, planned_models=4)
    shares = [plan.model_alpha(model) for model in range(1, 3000)]
    assert shares[:4] == pytest.approx([0.0225] * 4)
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(0.1, rel=1e-3) and sum(shares) < 0.1


def test_a_label_that_is_still_out_holds_back_those_after_it(world: World):
    audit = world.audit(60)
    draws = list(audit.draws)
    draws[40] = draws[40]._replace(label=None)
    found = world.estimate(audit._replace(draws=tuple(draws)))
    assert found[:5] == world.estimate(audit._replace(draws=audit.draws[:40]))[:5]
    assert found.warnings == (
        f"19 audit labels wait for draw 40, point {draws[40].point}: label it, or answer -1",
    )


def test_nobody_can_tell_is_an_error(world: World):
    audit = world.audit(60)
    hard = [draw._replace(label=-1) for draw in audit.draws[:20]]
    assert (
        world.estimate(audit._replace(draws=(*hard, *audit.draws[20:]))).upper
        < world.estimate(audit).estimate
    )
    labels = np.where(np.arange(40) < 20, -1, world.y[world.trained])
    assert world.estimate(audit, labels=labels).upper < world.estimate(audit).upper


def test_words_where_numbers_mean_little(world: World):
    audit = world.audit(10)
    nothing = world.estimate(audit._replace(draws=()))
    assert np.isnan(nothing.estimate)
    wrong = (world.predicted != world.y)[world.trained].sum()
    assert (nothing.lower, nothing.upper) == ((40 - wrong) / 400, (400 - wrong) / 400)
    assert "no audit label yet" in nothing.warnings[0]
    assert "10 audit labels are few" in world.estimate(audit).warnings[0]
    assert "model 3 of 1 planned" in world.estimate(audit, model=3).warnings[1]


def test_draws_that_fit_no_accuracy_are_called_so(world: World):
    # Somebody looked which points the model has right, and audited those, then the others.
    is_right = world.predicted == world.y
    points = sorted(set(range(400)) - {*world.trained.tolist()}, key=lambda i: not is_right[i])
    left, draws = start_audit(world.error_probs, ONE).weights[points].sum(), []
    weights = start_audit(world.error_probs, ONE).weights
    for point in points:
        draws.append(Draw(point, weights[point] / left, 1, int(world.y[point])))
        left -= weights[point]
    found = world.estimate(Audit(ONE, weights, tuple(draws[:-5])))
    assert np.isnan(found.estimate)
    assert found.upper - found.lower > 0.8
    assert "no accuracy at all fits" in found.warnings[-1]


def test_what_is_refused(world: World):
    audit = world.audit(30)
    point = audit.draws[0].point
    elsewhere = audit._replace(draws=(audit.draws[0]._replace(probability=0.5),))
    labelled = [*world.trained, point]
    labels = [*world.y[world.trained], (audit.draws[0].label or 0) + 1]
    key = jax.random.key(0)
    for call, words in [
        (lambda: world.estimate(elsewhere), "could not be drawn"),
        (lambda: world.estimate(audit, labelled=labelled, labels=labels), f"point {point} is"),
        (lambda: world.estimate(audit, labels=[0]), "labels: 1 for 40 points"),
        (lambda: world.estimate(audit, predicted=[0, 1]), "predicted: 2 for 400"),
        (lambda: world.estimate(audit, error_probs=np.full(400, np.nan)), r"error_probs\[0\]: nan"),
        (lambda: world.estimate(audit, error_probs=[0.5]), r"\(1,\) is not \[400\]"),
        (lambda: world.estimate(audit, labelled=[1, 1], labels=[0, 0]), "point 1 is named twice"),
        (lambda: world.estimate(audit, labelled=[400], labels=[0]), "400 is no point"),
        (lambda: world.estimate(audit, model=0), "model"),
        (lambda: start_audit([0.5, 2.0]), r"error_probs\[1\]: 2.0"),
        (lambda: answer_audit(audit, [point], [1]), f"point {point} is not out"),
        (lambda: answer_audit(Audit(ONE, audit.weights, (Draw(3, 0.1, 1),)), [3], [-2]), "-2"),
        (lambda: answer_audit(audit, [1, 2], [0]), "labels: 1 for 2"),
        (lambda: draw_for_audit(key, audit, 0, labelled=[]), "num_draws"),
        (
            lambda: draw_for_audit(
                key, Audit(ONE, audit.weights, (Draw(3, 0.1, 2),)), 1, labelled=[]
            ),
            "numbers never fall",
        ),
        (lambda: AuditSettings(alpha=1.0), "alpha"),
        (lambda: AuditSettings(planned_models=0), "planned_models"),
        (lambda: AuditSettings(uniform_share=0.0), "uniform_share"),
        (lambda: AuditSettings(max_ratio=0.5), "max_ratio"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_advice_and_what_it_cost(world: World):
    found = world.estimate(world.audit(150))
    advice = bb.advise_stopping(found, found.lower - 0.01)
    assert advice.stop and (advice.num_trained, advice.num_audited) == (40, 150)
    assert advice.reason.startswith("stop: ")
    assert bb.advise_stopping(found, found.lower).stop
    assert bb.advise_stopping(found, found.estimate).reason.startswith("not known yet: ")
    assert bb.advise_stopping(found, found.upper + 1e-3).reason.startswith("train on: ")
    with pytest.raises(ValueError, match="target_accuracy: 95"):
        bb.advise_stopping(found, 95)
