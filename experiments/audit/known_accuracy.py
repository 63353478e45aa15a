"""How many labels, training and audit, until it is *known* that MNIST is at 95 %?

    python -m experiments.head.encoder --dataset mnist
    python -m experiments.audit.known_accuracy

Twenty pools of 10,000 (see `experiments.audit.models`): the head is trained on labels chosen by
batch EPIG, then one model is audited until the lower end of its interval reaches 95 %, looked at
after every label; ten audits a pool. When training ends is fixed beforehand: at 100, 200 or 300
labels, or when the predictions have become stable (mean kappa of the last three batches of 10 at
least 0.99).
`--num-pools 1 --num-runs 2 --output /tmp/out` tries the script. Seeds are fixed.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bbald_jax.labelling.audit import candidate_errors, estimate_accuracy
from bbald_jax.labelling.draws import Audit, AuditSettings, Draw, start_audit
from bbald_jax.labelling.stopping import advise_stopping, predictions_agreement
from experiments.audit.baselines import labels_bound
from experiments.audit.models import BATCH_SIZE, KINDS, Curve, load_curves
from experiments.audit.simulate import Audits, draw_audits, is_open, replay
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "audit"
TARGET = 0.95
MOST_AUDITED = 1_500
TRAINED = (100, 200, 300)
STABLE = "stable"


class Known(NamedTuple):
    """Of P pools, and R audits of each.

    Attributes:
      trained: `[P]`, labels.
      audited: `[P, R]`, labels until the target is known; infinite if more than 1,500.
      accuracy: `[P]`, of the audited model.
      bound: `[P]`, audit labels that any method needs on average.
    """

    trained: np.ndarray
    audited: np.ndarray
    accuracy: np.ndarray
    bound: np.ndarray


def stable_model(curve: Curve) -> int:
    """The first model at which the predictions have become stable."""
    for model in range(4, len(curve.predicted)):
        if predictions_agreement(curve.predicted[model - 3 : model + 1].astype(int)).is_stable:
            return model
    return len(curve.predicted) - 1


def audit_until_known(curves: list[Curve], models: list[int], planned: int, runs: int) -> Known:
    """How many labels each audit takes; some are checked against the library's own advice."""
    settings = AuditSettings(planned_models=planned)
    errors = [curve.errors(model) for curve, model in zip(curves, models, strict=True)]
    opens = [is_open(curve, model) for curve, model in zip(curves, models, strict=True)]
    probs = [
        curve.error_probs[model].astype(np.float64)
        for curve, model in zip(curves, models, strict=True)
    ]
    weights, drawn, candidates, bounds = [], [], [], []
    for seed, (wrong, open_points, each) in enumerate(zip(errors, opens, probs, strict=True)):
        weights.append(start_audit(each, settings).weights)
        rng = np.random.default_rng((seed, models[seed], planned))
        drawn.append(draw_audits(rng, weights[-1], [open_points], MOST_AUDITED, runs))
        # The target is known when the library rules out every number of errors from the last one
        # that it tries and that would do; some stand for all, the nearest first.
        allowed = int((1 - TARGET) * len(wrong) + 1e-9) - int(wrong[~open_points].sum())
        tried = candidate_errors(int(open_points.sum()))
        tried = tried[np.searchsorted(tried, allowed + 1, side="right") - 1 :]
        candidates.append(tried[[0, 1, 3, 10, 30, 100, 200]])
        delta = (len(wrong) * (1 - TARGET) - wrong.sum()) / open_points.sum()
        bound = labels_bound(each[open_points], wrong[open_points], delta) if delta > 0 else np.inf
        bounds.append(bound)
    points, totals = map(np.stack, zip(*drawn, strict=True))
    audits = Audits(np.stack(weights), points, totals)
    looks = range(1, MOST_AUDITED + 1)
    found = replay(audits, probs, opens, errors, np.stack(candidates), looks)
    limit = -np.log(settings.model_alpha(1))
    is_known = np.stack([(found[look][0] >= limit).all(axis=-1) for look in looks])
    audited = np.where(is_known.any(axis=0), is_known.argmax(axis=0) + 1.0, np.inf)
    for pool in range(min(3, len(curves))):
        if np.isfinite(audited[pool, 0]):
            num_draws = int(audited[pool, 0])
            for num, expected in ((num_draws - 1, False), (num_draws, True)):
                found_by = advice(curves[pool], models[pool], settings, audits, pool, num)
                assert found_by == expected, (pool, models[pool], num)
    accuracy = np.array([1 - wrong.mean() for wrong in errors])
    trained = BATCH_SIZE * np.array(models, float)
    return Known(trained, audited, accuracy, np.array(bounds))


def advice(
    curve: Curve, model: int, settings: AuditSettings, audits: Audits, pool: int, num_draws: int
) -> bool:
    """Does the library say to stop, in the first audit of a pool?"""
    weights, labelled = audits.weights[pool], curve.chosen[: BATCH_SIZE * model]
    draws = tuple(
        Draw(int(i), float(weights[i] / total), 1, int(curve.y[i]))
        for i, total in zip(
            audits.points[pool, 0, :num_draws], audits.totals[pool, 0, :num_draws], strict=True
        )
    )
    estimate = estimate_accuracy(
        Audit(settings, weights, draws),
        curve.predicted[model],
        curve.error_probs[model],
        labelled=labelled,
        labels=curve.y[labelled],
    )
    return advise_stopping(estimate, TARGET).stop


def spread(values: np.ndarray) -> str:
    """Median and quartiles; each is one of the values."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method="lower")

    def text(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else f"> {MOST_AUDITED}"

    return f"{text(middle)} ({text(low)} to {text(high)})"


def row(name: str, planned: int, found: Known) -> list[object]:
    totals = found.trained[:, None] + found.audited
    return [
        name,
        planned,
        spread(found.trained),
        f"{100 * found.accuracy.mean():.1f}",
        spread(found.audited.ravel()),
        spread(totals.ravel()),
        spread(found.bound),
        f"{np.isfinite(found.audited).mean():.0%}".replace("%", " %"),
    ]


def stable_rows(num_pools: int) -> list[list[object]]:
    rows = []
    for dataset in KINDS:
        curves = load_curves(dataset, num_pools)
        models = [stable_model(curve) for curve in curves]
        then = [1 - c.errors(m).mean() for c, m in zip(curves, models, strict=True)]
        last = [1 - curve.errors(-1).mean() for curve in curves]
        labels = BATCH_SIZE * np.array(models, float)
        end = BATCH_SIZE * (len(curves[0].predicted) - 1)
        accuracies = f"{100 * np.mean(then):.1f} ({100 * min(then):.1f} to {100 * max(then):.1f})"
        rows.append([dataset, spread(labels), accuracies, f"{100 * np.mean(last):.1f} at {end}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-pools", type=int, default=20)
    parser.add_argument("--num-runs", type=int, default=10, help="audits of a pool")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    curves = load_curves("mnist", arguments.num_pools)
    rows = []
    for planned in (1, 3):
        for trained in (*TRAINED, STABLE):
            models = [
                stable_model(curve) if trained == STABLE else int(trained) // BATCH_SIZE
                for curve in curves
            ]
            found = audit_until_known(curves, models, planned, arguments.num_runs)
            name = "predictions stable" if trained == STABLE else f"{trained} labels"
            rows.append(row(name, planned, found))
            reporting.progress(str(rows[-1]))
    header = ["training ends at", "models planned", "trained on", "accuracy", "audited", "in all"]
    header += ["audited, bound", "known within 1,500"]
    reporting.write(
        arguments.output / "known_accuracy.md",
        "# How many labels until it is known that MNIST is at 95 %",
        f"Made by `python -m {reporting.module(__file__)}` after `python -m "
        "experiments.head.encoder --dataset mnist`. "
        f"{arguments.num_pools} pools of 10,000, {arguments.num_runs} audits each, looked at after "
        "every label; medians, and quartiles in brackets. Every seed is fixed.",
        reporting.table(header, rows),
        "Accuracy in per cent on the whole pool, mean. *Known* means that the lower end of the "
        "interval of `bb.estimate_accuracy` is at 95 %, with alpha = 0.05 over all looks and all "
        "audited models. With 3 models planned the first of them is audited here. The bound is the "
        "number of audit labels that any method with this surrogate needs *on average* "
        "(`labels_bound` in `experiments/audit/baselines.py`).",
        "## The cheap sign: predictions no longer change",
        reporting.table(
            ["data set", "stable at (labels)", "accuracy then", "accuracy later"],
            stable_rows(arguments.num_pools),
        ),
        "Stable: Cohen's kappa of successive models over the whole pool, mean of the last three "
        "batches of 10 labels at least 0.99 (Bloodgood, Vijay-Shanker 2009). Where that never "
        "happens the last model counts. It costs no label, and it says nothing about how accurate "
        "the model is: accuracies are means, and the lowest and highest of the pools.",
        reporting.machine("bbald_jax", "jax", "numpy", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
