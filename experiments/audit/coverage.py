"""Do the audit's intervals hold at every look, and how wide are they? 1,000 simulated audits a row.

    python -m experiments.head.encoder --dataset mnist
    python -m experiments.audit.coverage

The models are heads on ten pools of 10,000 points of MNIST (graph of an encoder) and Fashion-MNIST
(graph of HOG features), see `experiments.audit.models`; only the draws differ between the 100
audits of a pool. 500 labels are audited in all, spread evenly over 1, 5 or 20 successive models
with 10 labels between them. A run misses if the interval of any model excludes that model's
accuracy after any label, while it is the current one or before. Seeds are fixed.
`--num-runs 10 --num-pools 1 --num-wide 1 --output /tmp/out` tries the script.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bbald_jax.labelling.audit import AccuracyEstimate, estimate_accuracy
from bbald_jax.labelling.draws import Audit, AuditSettings, Draw, start_audit
from experiments.audit.baselines import hedged_betting, information_bound, wilson
from experiments.audit.models import BATCH_SIZE, KINDS, Curve, load_curves
from experiments.audit.simulate import SURROGATES, draw_audits, is_open, replay, surrogate
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "audit"
NUM_LABELS = 500
NUM_MODELS = (1, 5, 20)
LOOKS: tuple[int, ...] = (50, 100, 200, 500)
#: The first audited model: so many batches of labels.
FIRST = {"mnist": 30, "fashion-mnist": 20}
TARGETS = {"mnist": {100: 4.5, 500: 2.1}, "fashion-mnist": {100: 11.0, 500: 5.0}}
OURS, FLAT, BETTING, PLAIN = (
    "audit",
    "audit, uniform draws and no surrogate",
    "uniform draws, hedged betting",
    "uniform draws, plain 95 % interval (Wilson)",
)


def misses(curve: Curve, first: int, num_models: int, kind: str, runs: int, seed: int) -> int:
    """How many of the runs on a pool miss at any look."""
    settings = AuditSettings(planned_models=num_models)
    models = range(first, first + num_models)
    audit = start_audit(surrogate(curve, first, kind), settings)
    phases = [is_open(curve, model) for model in models]
    draws_a_phase = NUM_LABELS // num_models
    rng = np.random.default_rng((seed, num_models, SURROGATES.index(kind)))
    points, totals = draw_audits(rng, audit.weights, phases, draws_a_phase, runs)
    missed = np.zeros(runs, bool)
    for number, (model, open_points) in enumerate(zip(models, phases, strict=True), start=1):
        errors = curve.errors(model)
        truth = np.array([errors[open_points].sum()])
        end = number * draws_a_phase
        log_wealth = replay(
            audit.weights,
            surrogate(curve, model, kind),
            open_points,
            errors,
            points[:, :end],
            totals[:, :end],
            truth,
        )
        missed |= log_wealth.max(axis=(1, 2)) >= -np.log(settings.model_alpha(number))
    return int(missed.sum())


def widths(
    curve: Curve, model: int, planned: int, kind: str, runs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`[runs, looks]`, half-widths and errors of the estimate, in points, of the library."""
    flat = np.full(len(curve.y), 0.1)
    probs = flat if kind == "flat" else surrogate(curve, model, kind)
    audit = start_audit(probs, AuditSettings(planned_models=planned))
    rng = np.random.default_rng((seed, planned, 99))
    points, totals = draw_audits(rng, audit.weights, [is_open(curve, model)], NUM_LABELS, runs)
    labelled = curve.chosen[: BATCH_SIZE * model]
    accuracy = 1 - curve.errors(model).mean()
    half, off = np.zeros((runs, len(LOOKS))), np.zeros((runs, len(LOOKS)))
    for run in range(runs):
        drawn = tuple(
            Draw(int(i), float(audit.weights[i] / total), 1, int(curve.y[i]))
            for i, total in zip(points[run], totals[run], strict=True)
        )
        for look, num_draws in enumerate(LOOKS):
            found: AccuracyEstimate = estimate_accuracy(
                Audit(audit.settings, audit.weights, drawn[:num_draws]),
                curve.predicted[model],
                probs,
                labelled=labelled,
                labels=curve.y[labelled],
            )
            half[run, look] = 50 * (found.upper - found.lower)
            off[run, look] = 100 * (found.estimate - accuracy)
    return half, off


def uniform(curve: Curve, model: int, runs: int, seed: int) -> dict[str, tuple[np.ndarray, int]]:
    """Half-widths `[looks]` and missing runs of other intervals, on uniform draws."""
    open_points = is_open(curve, model)
    num_open = int(open_points.sum())
    rng = np.random.default_rng((seed, 7))
    points, _ = draw_audits(rng, np.ones(len(curve.y)), [open_points], NUM_LABELS, runs)
    errors = curve.errors(model)[points].astype(float)
    truth = curve.errors(model)[open_points].sum()
    low, high = wilson(errors)
    is_out = (low > truth / num_open) | (high < truth / num_open)
    at = np.array(LOOKS) - 1
    scale = 100 * num_open / len(curve.y)
    plain = (scale * ((high - low) / 2)[:, at].mean(axis=0), int(is_out.any(axis=1).sum()))
    limit = -np.log(AuditSettings(planned_models=1).model_alpha(1))
    alpha = np.exp(-limit)
    missed = hedged_betting(errors, num_open, np.array([truth]), alpha).max(axis=(1, 2)) >= limit
    few = errors[: max(1, runs // 10)]
    candidates = np.unique(np.round(num_open * np.sin(np.linspace(0, np.pi / 2, 1000)) ** 2))
    largest = np.maximum.accumulate(hedged_betting(few, num_open, candidates, alpha), axis=1)
    alive = largest[:, at] < limit
    first = alive.argmax(axis=2)
    last = alive.shape[2] - 1 - alive[:, :, ::-1].argmax(axis=2)
    half = 50 * (candidates[last] - candidates[first]) / len(curve.y)
    return {PLAIN: plain, BETTING: (half.mean(axis=0), int(missed.sum()))}


def share(count: int, total: int) -> str:
    return f"{count / total:.1%}".replace("%", " %")


def coverage_table(curves: dict[str, list[Curve]], runs: int) -> str:
    rows = []
    for dataset, pools in curves.items():
        for num_models in NUM_MODELS:
            cells = []
            for kind in SURROGATES:
                missed = sum(
                    misses(curve, FIRST[dataset], num_models, kind, runs, seed)
                    for seed, curve in enumerate(pools)
                )
                cells.append(share(missed, runs * len(pools)))
            rows.append([dataset, num_models, *cells])
            reporting.progress(f"{dataset}, {num_models} models: {cells}")
    header = ["data set", "audited models", *(f"surrogate: {kind}" for kind in SURROGATES)]
    return reporting.table(header, rows)


def width_rows(
    dataset: str, pools: list[Curve], runs: int, wide: int
) -> tuple[list[list], dict[str, np.ndarray]]:
    """Rows of the table of half-widths, and what is drawn."""
    model, total = FIRST[dataset], runs * len(pools)
    rows, drawn = [], {}

    def add(name: str, half: np.ndarray, missed: str = "", error: str = "") -> None:
        rows.append([name, *(f"{each:.1f}" for each in half), missed, error])

    def add_audit(name: str, planned: int, kind: str) -> None:
        found = [widths(c, model, planned, kind, wide, seed) for seed, c in enumerate(pools)]
        half = np.concatenate([each[0] for each in found]).mean(axis=0)
        off = np.concatenate([each[1] for each in found])
        error = np.sqrt((off**2).mean(axis=0))
        drawn[name] = half
        add(name, half, "", f"{error[LOOKS.index(100)]:.1f} / {error[-1]:.1f}")
        reporting.progress(f"{dataset}, {name}: {half}")

    add_audit(OURS, 1, "good")
    add_audit(f"{OURS}, first of 20 planned models", 20, "good")
    add_audit(f"{OURS}, shuffled surrogate", 1, "shuffled")
    add_audit(f"{OURS}, inverted surrogate", 1, "inverted")
    add_audit(FLAT, 1, "flat")
    others = [uniform(curve, model, runs, seed) for seed, curve in enumerate(pools)]
    for name in (BETTING, PLAIN):
        half = np.mean([each[name][0] for each in others], axis=0)
        drawn[name] = half
        add(name, half, share(sum(each[name][1] for each in others), total))
    bounds = []
    for curve in pools:
        open_points, errors = is_open(curve, model), curve.errors(model)
        probs = surrogate(curve, model, "good")[open_points]
        bounds.append([100 * information_bound(probs, errors[open_points], n) for n in LOOKS])
    drawn["information bound"] = np.mean(bounds, axis=0)
    add("information bound, any design", drawn["information bound"])
    return rows, drawn


def draw_figure(path: Path, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    styles = {
        BETTING: ("C1", "-", "o"),
        FLAT: ("C2", "-", "s"),
        OURS: ("C0", "-", "o"),
        "information bound": ("0.3", ":", ""),
        PLAIN: ("C3", "--", "x"),
    }
    for axes, (dataset, lines) in zip(panels, drawn.items(), strict=True):
        for name, (colour, style, marker) in styles.items():
            note = ": misses when looked at often" if name == PLAIN else ""
            axes.plot(
                LOOKS, lines[name], style, marker=marker, color=colour, label=name + note, lw=1.4
            )
        axes.set(title=dataset, xscale="log", yscale="log", xlabel="audit labels")
        axes.set_xticks(LOOKS, [str(each) for each in LOOKS])
        ticks = (1, 2, 3, 5, 10, 20)
        axes.set_yticks(ticks, [str(each) for each in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("half-width of the interval, points of accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-runs", type=int, default=100, help="audits of a pool")
    parser.add_argument("--num-wide", type=int, default=10, help="of which widths are computed")
    parser.add_argument("--num-pools", type=int, default=10)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves = {dataset: load_curves(dataset, arguments.num_pools) for dataset in KINDS}
    sections, drawn = [], {}
    for dataset, pools in curves.items():
        accuracy = np.mean([1 - curve.errors(FIRST[dataset]).mean() for curve in pools])
        rows, drawn[dataset] = width_rows(dataset, pools, arguments.num_runs, arguments.num_wide)
        ours = dict(zip(LOOKS, drawn[dataset][OURS].tolist(), strict=True))
        targets = ", ".join(
            f"{limit} at {n} labels ({reporting.verdict(ours[n], at_most=limit)})"
            for n, limit in TARGETS[dataset].items()
        )
        header = ["interval", *(f"{n} labels" for n in LOOKS), "runs that miss"]
        header.append("error of the estimate at 100 / 500")
        sections += [
            f"## Half-widths in points: {dataset}, one model",
            f"Trained on {BATCH_SIZE * FIRST[dataset]} labels, {accuracy:.1%} accurate (mean of "
            f"the pools). Targets, at most: {targets}.",
            reporting.table(header, rows),
        ]
    draw_figure(arguments.output / "coverage.png", drawn)
    total = arguments.num_runs * arguments.num_pools
    reporting.write(
        arguments.output / "coverage.md",
        "# An audit, looked at after every label",
        f"Made by `python -m {reporting.module(__file__)}` after `python -m "
        "experiments.head.encoder --dataset mnist`. Nominal: at most 5 % of runs miss. "
        f"{total:,} runs a cell, {NUM_LABELS} audit labels each, {arguments.num_pools} pools; "
        "every seed is fixed.",
        "## Runs that miss the truth at any look",
        coverage_table(curves, arguments.num_runs),
        "A run misses if the interval of any of its models excludes that model's accuracy after "
        "any label. The surrogate is the model's opinion where it may be wrong; shuffled and "
        "inverted ones must cost width only. For the coverage the wealth against the true number "
        "of errors is followed: the interval excludes the truth exactly when that wealth reaches "
        "1 / alpha.",
        *sections,
        f"Half-widths of the audit are means over {arguments.num_wide * arguments.num_pools} runs, "
        "of `bb.estimate_accuracy` itself; one model means alpha = 0.045, and so for hedged "
        "betting. The last column is the root mean square error of the estimate. The bound is "
        "defined in `experiments/audit/baselines.py`: an interval of this level, at a fixed number "
        "of labels and for points with such error rates, cannot be narrower with a probability of "
        "95 %, whatever it draws and knows. The plain interval is right for one look.",
        "![Half-widths against audit labels](coverage.png)",
        reporting.machine("bbald_jax", "jax", "numpy", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
