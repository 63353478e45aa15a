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

from bbald_jax.labelling.audit import estimate_accuracy
from bbald_jax.labelling.draws import Audit, AuditSettings, Draw, start_audit
from bbald_jax.labelling.stopping import advise_stopping, predictions_agreement
from experiments.audit.baselines import labels_bound
from experiments.audit.models import BATCH_SIZE, KINDS, Curve, load_curves
from experiments.audit.simulate import draw_audits, is_open, replay
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "audit"
TARGET = 0.95
MOST_AUDITED = 1_500
TRAINED = (100, 200, 300)
STABLE = "stable"


class Known(NamedTuple):
    """Of one pool.

    Attributes:
      trained: labels.
      audited: `[R]`, labels until the target is known; infinite if more than 1,500.
      accuracy: of the audited model.
      bound: audit labels that any method needs on average.
    """

    trained: int
    audited: np.ndarray
    accuracy: float
    bound: float


def stable_model(curve: Curve) -> int:
    """The first model at which the predictions have become stable."""
    for model in range(4, len(curve.predicted)):
        if predictions_agreement(curve.predicted[model - 3 : model + 1].astype(int)).is_stable:
            return model
    return len(curve.predicted) - 1


def audit_until_known(curve: Curve, model: int, planned: int, runs: int, seed: int) -> Known:
    """How many labels each of R audits takes; the first is checked against the library's advice."""
    settings = AuditSettings(planned_models=planned)
    probs = curve.error_probs[model].astype(np.float64)
    audit = start_audit(probs, settings)
    errors, open_points = curve.errors(model), is_open(curve, model)
    rng = np.random.default_rng((seed, model, planned))
    points, totals = draw_audits(rng, audit.weights, [open_points], MOST_AUDITED, runs)
    # The target is known when every larger number of errors is ruled out: some of them stand for
    # all, the nearest first.
    allowed = int(np.floor((1 - TARGET) * len(curve.y) + 1e-9))
    more = allowed - int(errors[~open_points].sum()) + np.array([1, 20, 60, 150, 400, 1000, 3000])
    log_wealth = replay(audit.weights, probs, open_points, errors, points, totals, more)
    is_known = (log_wealth >= -np.log(settings.model_alpha(1))).cumsum(axis=1) > 0
    is_known = is_known.all(axis=2)
    audited = np.where(is_known.any(axis=1), is_known.argmax(axis=1) + 1.0, np.inf)
    if np.isfinite(audited[0]):
        drawn = tuple(
            Draw(int(i), float(audit.weights[i] / total), 1, int(curve.y[i]))
            for i, total in zip(points[0], totals[0], strict=True)
        )
        labelled = curve.chosen[: BATCH_SIZE * model]
        stops = [
            advise_stopping(
                estimate_accuracy(
                    Audit(settings, audit.weights, drawn[:num_draws]),
                    curve.predicted[model],
                    probs,
                    labelled=labelled,
                    labels=curve.y[labelled],
                ),
                TARGET,
            ).stop
            # Its interval is rounded outwards between 1,000 candidates: some labels later.
            for num_draws in (int(audited[0]) - 1, min(int(audited[0] * 1.1) + 5, MOST_AUDITED))
        ]
        assert stops == [False, True], (seed, model, audited[0], stops)
    accuracy = 1 - float(errors.mean())
    bound = np.inf
    if accuracy > TARGET:
        delta = (accuracy - TARGET) * len(errors) / open_points.sum()
        bound = labels_bound(probs[open_points], errors[open_points], delta)
    return Known(BATCH_SIZE * model, audited, accuracy, bound)


def spread(values: np.ndarray) -> str:
    """Median and quartiles; each is one of the values."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method="lower")

    def text(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else f"> {MOST_AUDITED}"

    return f"{text(middle)} ({text(low)} to {text(high)})"


def row(name: str, planned: int, found: list[Known]) -> list[object]:
    trained = np.array([each.trained for each in found], float)
    audited = np.array([each.audited for each in found])
    totals = trained[:, None] + audited
    accuracies = np.array([each.accuracy for each in found])
    return [
        name,
        planned,
        spread(trained),
        f"{100 * accuracies.mean():.1f}",
        spread(audited.ravel()),
        spread(totals.ravel()),
        spread(np.array([each.bound for each in found])),
        f"{np.isfinite(audited).mean():.0%}".replace("%", " %"),
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
            found = [
                audit_until_known(
                    curve,
                    stable_model(curve) if trained == STABLE else int(trained) // BATCH_SIZE,
                    planned,
                    arguments.num_runs,
                    seed,
                )
                for seed, curve in enumerate(curves)
            ]
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
        "number of audit labels that any method with this surrogate needs *on average*, which is more "
        "than the median (`labels_bound` in `experiments/audit/baselines.py`).",
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
