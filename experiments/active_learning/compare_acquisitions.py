"""Every acquisition function on scikit-learn's digits: labels needed, and seconds a selection.

    python -m experiments.active_learning.compare_acquisitions

Ten trials of each function of the catalogue, with the paper's training recipe; trial t of every
function has the same pool and starts from the same 20 labels. Each function runs in a process of
its own, with 2 threads, and leaves a results folder of `bbald run` under `--runs`: the same command
again continues where it was interrupted. Writes `results/acquisitions/digits.md` and `digits.png`.
`--num-trials 2 --num-rounds 2 --output /tmp/out --runs /tmp/runs` tries the script.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import bbald_jax as bb
from bbald_jax.acquisition import inputs
from bbald_jax.experiment import report, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.results import Line
from experiments.common import curves, reporting

OUTPUT = Path(__file__).parents[1] / "results" / "acquisitions"

#: What each panel of the figure shows; `IN_ALL` are there in every one, to compare with.
IN_ALL = {"random": "0.55", "batchbald": "black"}
PANELS = {
    "uncertainty about one label": (
        "predictive-entropy",
        "margin",
        "variation-ratio",
        "mean-std",
    ),
    "BALD, and drawn by its score": ("bald", "power-bald", "softmax-bald", "softrank-bald"),
    "looking at other labels": ("epig", "kbald"),
}


def run(folder: str, **options) -> dict:
    """Run what is left of one function's trials."""
    jax.config.update("jax_platforms", "cpu")
    config = Config(**options)
    with results.locked(Path(folder)):
        results.open_folder(Path(folder), vars(config), trials.environment())
        return {"num_rounds": sum(1 for _ in trials.run(config, Path(folder)))}


def median_seconds(lines: list[Line], part: str) -> float:
    """Of the rounds that acquired something; compilation, in one of them, hardly moves a median."""
    return float(np.median([line[f"seconds_{part}"] for line in lines if not line["is_last"]]))


def draw(path: Path, runs: dict[str, list[Line]]) -> None:
    """Test accuracy against labels acquired: median and quartiles over the trials."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
    for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
        for name in (*IN_ALL, *names):
            style, colour = ("--", IN_ALL[name]) if name in IN_ALL else ("-", None)
            report.draw_learning_curve(axes, name, runs[name], style, color=colour, lw=1.3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("labels acquired (beyond the initial 20)")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    panels[0].set_ylabel("test accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare all acquisition functions on digits.")
    parser.add_argument("--num-trials", type=int, default=10)
    parser.add_argument("--num-rounds", type=int, default=30)
    parser.add_argument("--runs", type=Path, default=Path("results/acquisitions"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    runs: dict[str, list[Line]] = {}
    answers = []
    for name in bb.catalogue():
        folder = args.runs / name
        options = {
            "acquisition": name,
            "num_rounds": args.num_rounds,
            "num_trials": args.num_trials,
        }
        answer = reporting.measure(Path(__file__), "run", folder=str(folder), **options)
        if "error" in answer:
            sys.exit(f"{name}: {answer['error']}")
        answers.append(answer)
        runs[name] = results.read_rounds(folder)
        reporting.progress(f"{name}: {answer['num_rounds']} rounds run, {len(runs[name])} there")

    args.output.mkdir(parents=True, exist_ok=True)
    draw(args.output / "digits.png", runs)
    config, sizes = Config(), f"--num-trials {args.num_trials} --num-rounds {args.num_rounds}"
    # A run that was there already says nothing about the machine while it ran.
    fresh = [answer for answer in answers if answer["num_rounds"]]
    reporting.write(
        args.output / "digits.md",
        "# Acquisition functions on digits",
        reporting.machine("bbald_jax", "jax", "flax", "scikit-learn"),
        f"Made by `python -m {reporting.module(__file__)} {sizes}`, which runs, for each name, "
        f"`bbald run --acquisition NAME {sizes}`: {config.dataset}, recipe {config.recipe}, "
        f"B = {config.acquisition_size}, K = {config.num_samples}, "
        f"M = {config.num_configurations:,}, {config.initial_per_class} initial labels a class, "
        f"trials 0 to {args.num_trials - 1} of seed {config.seed}. EPIG's targets: "
        f"{inputs.NUM_TARGETS} points of the pool.",
        "Labels acquired until a test accuracy is first reached, the initial ones not counted: "
        f"25 % / 50 % / 75 % quartiles over {args.num_trials} trials, one number where they are "
        "the same; > where the run ended before. Seconds a round, medians: of the selection alone, "
        "and of the predictions it requires." + (f" {reporting.quietness(fresh)}" if fresh else ""),
        reporting.table(
            [
                "acquisition",
                *(f"labels to {a:.0%}" for a in curves.ACCURACIES),
                "select s",
                "predict s",
            ],
            [
                [
                    f"`{name}`",
                    *(curves.labels_cell(lines, accuracy) for accuracy in curves.ACCURACIES),
                    median_seconds(lines, "select"),
                    median_seconds(lines, "predict"),
                ]
                for name, lines in runs.items()
            ],
        ),
        "![Learning curves: medians and quartiles](digits.png)",
    )


if __name__ == "__main__" and not reporting.is_measuring(run):
    main()
