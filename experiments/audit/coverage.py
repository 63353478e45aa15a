"""Do the audit's intervals hold at every look, and how wide are they? 1,000 simulated audits a row.

    python -m experiments.head.encoder --dataset mnist
    python -m experiments.audit.coverage

The models are heads on ten pools of 10,000 points of MNIST (graph of an encoder) and Fashion-MNIST
(graph of HOG features), see `experiments.audit.models`; only the draws differ between the 100
audits of a pool. 500 labels are audited in all, spread evenly over 1, 5 or 20 successive models
with 10 labels between them. A run misses if the interval of any model excludes that model's
accuracy after any label, while it is the current one or before. Seeds are fixed.
`--num-runs 10 --num-pools 1 --num-wide 1 --output /tmp/out` tries the script. The same command
again goes on where it was interrupted: what is in `coverage.json` is not run again.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bbald_jax.labelling.audit import estimate_accuracy
from bbald_jax.labelling.draws import Audit, AuditSettings, Draw, start_audit
from experiments.audit.baselines import hedged_betting, information_bound, wilson
from experiments.audit.models import BATCH_SIZE, KINDS, Curve, load_curves
from experiments.audit.simulate import (
    SURROGATES,
    Audits,
    draw_audits,
    is_open,
    replay,
    surrogate,
)
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "audit"
NUM_LABELS = 500
NUM_MODELS = (1, 5, 20)
LOOKS: tuple[int, ...] = (50, 100, 200, 500)
#: The first audited model: so many batches of labels.
FIRST = {"mnist": 30, "fashion-mnist": 20}
TARGETS = {"mnist": {100: 4.5, 500: 2.1}, "fashion-mnist": {100: 11.0, 500: 5.0}}
NUM_CANDIDATES = 400
OURS, FLAT, BETTING, PLAIN, BOUND = (
    "audit",
    "audit, uniform draws and no surrogate",
    "uniform draws, hedged betting",
    "uniform draws, plain 95 % interval (Wilson)",
    "information bound, any design",
)
KINDS_OF_SURROGATE = (*SURROGATES, "none")
#: What half-widths are shown of: models planned, and the surrogate.
VARIANTS = (
    (OURS, 1, "good"),
    (f"{OURS}, first of 20 planned models", 20, "good"),
    (FLAT, 1, "none"),
    (f"{OURS}, shuffled surrogate", 1, "shuffled"),
    (f"{OURS}, inverted surrogate", 1, "inverted"),
)


def draw_all(
    pools: list[Curve], models: range, kind: str, settings: AuditSettings, runs: int
) -> Audits:
    """`[P, R, T]` draws, spread evenly over the models."""
    weights, drawn = [], []
    for seed, curve in enumerate(pools):
        rng = np.random.default_rng((seed, len(models), KINDS_OF_SURROGATE.index(kind)))
        weights.append(start_audit(opinion(curve, models[0], kind), settings).weights)
        phases = [is_open(curve, model) for model in models]
        drawn.append(draw_audits(rng, weights[-1], phases, NUM_LABELS // len(models), runs))
    points, totals = map(np.stack, zip(*drawn, strict=True))
    return Audits(np.stack(weights), points, totals)


def opinion(curve: Curve, model: int, kind: str) -> np.ndarray:
    """The surrogate, or none."""
    return np.full(len(curve.y), 0.1) if kind == "none" else surrogate(curve, model, kind)


def misses(pools: list[Curve], first: int, num_models: int, kind: str, runs: int) -> int:
    """How many of the runs miss at any look."""
    settings = AuditSettings(planned_models=num_models)
    models = range(first, first + num_models)
    audits = draw_all(pools, models, kind, settings, runs)
    missed = np.zeros((len(pools), runs), bool)
    for number, model in enumerate(models, start=1):
        opens = [is_open(curve, model) for curve in pools]
        errors = [curve.errors(model) for curve in pools]
        truths = [each[open_points].sum() for each, open_points in zip(errors, opens, strict=True)]
        end = number * NUM_LABELS // num_models
        probs = [opinion(curve, model, kind) for curve in pools]
        largest, _ = replay(audits, probs, opens, errors, np.array(truths)[:, None], [end])[end]
        missed |= largest[:, :, 0] >= -np.log(settings.model_alpha(number))
    return int(missed.sum())


def widths(
    pools: list[Curve], model: int, planned: int, kind: str, runs: int
) -> tuple[np.ndarray, np.ndarray]:
    """`[looks]`, mean half-width and root mean square error of the estimate, in points.

    Of the first audited model. One run is compared with what the library says.
    """
    settings = AuditSettings(planned_models=planned)
    audits = draw_all(pools, range(model, model + 1), kind, settings, runs)
    opens = [is_open(curve, model) for curve in pools]
    errors = [curve.errors(model) for curve in pools]
    probs = [opinion(curve, model, kind) for curve in pools]
    num_open = int(opens[0].sum())
    shares = np.sin(np.linspace(0, np.pi / 2, NUM_CANDIDATES)) ** 2
    candidates = np.unique(np.round(num_open * shares))
    tiled = np.tile(candidates, (len(pools), 1))
    limit = -np.log(settings.model_alpha(1))
    truths = np.array([each[o].sum() for each, o in zip(errors, opens, strict=True)])
    half, off = [], []
    for look, (largest, now) in replay(audits, probs, opens, errors, tiled, LOOKS, limit).items():
        least, most, best = ends(candidates, largest, now, limit)
        half.append(50 * np.mean(most - least) / len(pools[0].y))
        off.append(100 * np.sqrt(np.mean((best - truths[:, None]) ** 2)) / len(pools[0].y))
        compare(pools[0], model, audits, settings, probs[0], look, least[0, 0], most[0, 0])
    return np.array(half), np.array(off)


def ends(
    candidates: np.ndarray, largest: np.ndarray, now: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least, most and best errors, rounded outwards as in the library."""
    alive = largest < limit
    first, last = alive.argmax(axis=-1), alive.shape[-1] - 1 - alive[..., ::-1].argmax(axis=-1)
    least = np.where(first > 0, candidates[first - 1] + 1, candidates[0])
    beyond = candidates[np.minimum(last + 1, len(candidates) - 1)]
    most = np.where(last + 1 < len(candidates), beyond - 1, candidates[-1])
    return least, most, candidates[np.where(alive, now, np.inf).argmin(axis=-1)]


def compare(
    curve: Curve,
    model: int,
    audits: Audits,
    settings: AuditSettings,
    probs: np.ndarray,
    look: int,
    least: float,
    most: float,
) -> None:
    """The library's interval is the same but for finer candidates."""
    draws = tuple(
        Draw(int(i), float(audits.weights[0, i] / total), 1, int(curve.y[i]))
        for i, total in zip(audits.points[0, 0, :look], audits.totals[0, 0, :look], strict=True)
    )
    labelled = curve.chosen[: BATCH_SIZE * model]
    found = estimate_accuracy(
        Audit(settings, audits.weights[0], draws),
        curve.predicted[model],
        probs,
        labelled=labelled,
        labels=curve.y[labelled],
    )
    size = len(curve.y)
    trained = curve.errors(model)[labelled].sum()
    errors = size * (1 - np.array([found.upper, found.lower])) - trained
    # Between the library's 1,000 candidates and these.
    assert np.all(np.abs(errors - [least, most]) <= 0.006 * size), (errors, least, most)


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


def once(path: Path, what: str, make: Callable[[], Any]) -> Any:
    """A part of the report, from a file where it was made before."""
    there = json.loads(path.read_text()) if path.exists() else {}
    if what not in there:
        there[what] = make()
        path.write_text(json.dumps(there, indent=0))
        reporting.progress(f"{what}: {there[what]}")
    return there[what]


def coverage_table(curves: dict[str, list[Curve]], runs: int, kept: Path) -> str:
    rows = []
    for num_models in NUM_MODELS:
        for dataset, pools in curves.items():
            cells = []
            for kind in SURROGATES:
                make = partial(misses, pools, FIRST[dataset], num_models, kind, runs)
                missed = once(kept, f"misses, {dataset}, {num_models}, {kind}", make)
                cells.append(share(missed, runs * len(pools)))
            rows.append([dataset, num_models, *cells])
    header = ["data set", "audited models", *(f"surrogate: {kind}" for kind in SURROGATES)]
    return reporting.table(header, sorted(rows, key=lambda row: list(curves).index(str(row[0]))))


def width_rows(
    dataset: str, pools: list[Curve], runs: int, wide: int, kept: Path
) -> tuple[list[list], dict[str, np.ndarray]]:
    """Rows of the table of half-widths, and what is drawn."""
    model, total = FIRST[dataset], runs * len(pools)
    rows, drawn = [], {}

    def add(name: str, half: list[float], missed: str = "", error: str = "") -> None:
        rows.append([name, *(f"{each:.1f}" for each in half), missed, error])
        drawn[name] = np.array(half)

    for name, planned, kind in VARIANTS:

        def make(planned: int = planned, kind: str = kind) -> list[list[float]]:
            return [each.tolist() for each in widths(pools, model, planned, kind, wide)]

        half, error = once(kept, f"widths, {dataset}, {name}", make)
        add(name, half, "", f"{error[LOOKS.index(100)]:.1f} / {error[-1]:.1f}")

    def make_others() -> dict[str, list]:
        each = [uniform(curve, model, runs, seed) for seed, curve in enumerate(pools)]
        return {
            name: [
                np.mean([one[name][0] for one in each], axis=0).tolist(),
                sum(one[name][1] for one in each),
            ]
            for name in (BETTING, PLAIN)
        }

    made: dict[str, Any] = once(kept, f"uniform, {dataset}", make_others)
    for name, (half, missed) in made.items():
        add(name, half, share(missed, total))
    bounds = []
    for curve in pools:
        open_points, errors = is_open(curve, model), curve.errors(model)
        probs = surrogate(curve, model, "good")[open_points]
        bounds.append([100 * information_bound(probs, errors[open_points], n) for n in LOOKS])
    add(BOUND, np.mean(bounds, axis=0).tolist())
    return rows, drawn


def draw_figure(path: Path, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    styles = {
        BETTING: ("C1", "-", "o"),
        FLAT: ("C2", "-", "s"),
        OURS: ("C0", "-", "o"),
        BOUND: ("0.3", ":", ""),
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
    parser.add_argument("--num-wide", type=int, default=5, help="of which widths are computed")
    parser.add_argument("--num-pools", type=int, default=10)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves = {dataset: load_curves(dataset, arguments.num_pools) for dataset in KINDS}
    kept = arguments.output / "coverage.json"
    sections, drawn = [], {}
    for dataset, pools in curves.items():
        accuracy = np.mean([1 - curve.errors(FIRST[dataset]).mean() for curve in pools])
        rows, drawn[dataset] = width_rows(
            dataset, pools, arguments.num_runs, arguments.num_wide, kept
        )
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
    covered = coverage_table(curves, arguments.num_runs, kept)
    total = arguments.num_runs * arguments.num_pools
    reporting.write(
        arguments.output / "coverage.md",
        "# An audit, looked at after every label",
        f"Made by `python -m {reporting.module(__file__)}` after `python -m "
        "experiments.head.encoder --dataset mnist`. Nominal: at most 5 % of runs miss. "
        f"{total:,} runs a cell, {NUM_LABELS} audit labels each, {arguments.num_pools} pools; "
        "every seed is fixed.",
        "## Runs that miss the truth at any look",
        covered,
        "A run misses if the interval of any of its models excludes that model's accuracy after "
        "any label. The surrogate is the model's opinion where it may be wrong; shuffled and "
        "inverted ones must cost width only. For the coverage the wealth against the true number "
        "of errors is followed: the interval excludes the truth exactly when that wealth reaches "
        "1 / alpha.",
        *sections,
        f"Half-widths of the audit are means over {arguments.num_wide * arguments.num_pools} runs, "
        "the first of which is compared with `bb.estimate_accuracy`; one model "
        "means alpha = 0.045, and so for hedged betting. The last column is the root mean square "
        "error of the estimate. The bound is "
        "defined in `experiments/audit/baselines.py`: an interval of this level, at a fixed number "
        "of labels and for points with such error rates, cannot be narrower with a probability of "
        "95 %, whatever it draws and knows. The plain interval is right for one look.",
        "![Half-widths against audit labels](coverage.png)",
        reporting.machine("bbald_jax", "jax", "numpy", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
