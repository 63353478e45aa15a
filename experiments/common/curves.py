"""What the learning-curve experiments share: run `bbald run`, then a table, a figure and a CSV.

A script describes its runs as options of `bbald run`, and calls `main`. The runs leave their
folders under `--runs`, so that the same command again continues where it was interrupted, and a
later experiment finds what an earlier one has run.
"""

import argparse
import csv
import datetime
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bbald_jax.experiment import report, results
from bbald_jax.experiment.results import Line
from experiments.common import reporting

RUNS = Path("results")
RESULTS = Path(__file__).parents[1] / "results"
ACCURACIES = (0.9, 0.95)
#: What is used here of the published logs of the paper (github.com/BlackHC/BatchBALD).
PAPER_TRIALS = Path(__file__).with_name("paper_trials.csv")

COLOURS = {
    "batchbald": "C0",
    "bald": "C1",
    "random": "0.45",
    "batchbald, warm start": "C2",
}

Runs = dict[str, list[Line]]


def main(
    script: str,
    title: str,
    runs: dict[str, dict[str, object]],
    *,
    folders: dict[str, str] | None = None,
    paper: dict[str, str] | None = None,
    notes: Sequence[str] = (),
    at: Sequence[int] = (50, 100, 150, 200),
    draw=None,
    compare: Callable[[Runs], Sequence[str]] | None = None,
) -> None:
    """Run what is left, and write `results/NAME/{README.md,curves.png,trials.csv}`.

    Args:
      script: its `__file__`; NAME is its name.
      title: of the report.
      runs: for each run's name, options of `bbald run`.
      folders: under `--runs`, of runs that another experiment shares; by default NAME/RUN.
      paper: for each label, the name of a run of the paper's, to be shown beside ours.
      notes: paragraphs that say what is seen.
      at: labels at which the accuracy is tabulated.
      draw: `draw(figure, ours, theirs)`; by default all curves in one panel.
      compare: paragraphs of the report that are computed from the runs.
    """
    name = Path(script).stem
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of all runs")
    parser.add_argument("--output", type=Path, default=RESULTS / name)
    parser.add_argument("--num-rounds", type=int, help="fewer, to try the script")
    parser.add_argument("--num-trials", type=int, help="fewer, to try the script")
    arguments = parser.parse_args()
    fewer = {
        option: value
        for option in ("num_rounds", "num_trials")
        if (value := getattr(arguments, option)) is not None
    }
    below = {run: f"{name}/{run}".replace(", ", "-").replace(" ", "-") for run in runs}
    below |= folders or {}

    def command(run: str, root: Path) -> list[str]:
        options = _options({**runs[run], **fewer})
        return ["run", *options, "--output-dir", str(root / below[run])]

    for run in runs:
        print(shlex.join(["bbald", *command(run, arguments.runs)]), flush=True)
        subprocess.run(
            [sys.executable, "-m", "bbald_jax", *command(run, arguments.runs)], check=True
        )

    ours = {run: results.read_rounds(arguments.runs / below[run]) for run in runs}
    theirs = {label: paper_lines(run) for label, run in (paper or {}).items()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    (draw or draw_together)(figure, ours, theirs)
    figure.savefig(arguments.output / "curves.png", dpi=130)
    _write_trials(arguments.output / "trials.csv", ours)
    # In the report the default folders, whatever `--runs` is.
    shown = [shlex.join(["bbald", *command(run, RUNS)]) for run in runs]
    reporting.write(
        arguments.output / "README.md",
        f"# {title}",
        f"Made by `python -m {reporting.module(script)}`, which runs:",
        "```\n" + "\n".join(shown) + "\n```",
        "![Test accuracy against labels acquired](curves.png)",
        summary({**ours, **theirs}, at),
        "Labels acquired (the initial ones not counted) until a test accuracy is first reached: "
        "25 % / 50 % / 75 % quartiles over the trials, each one of the trials (inverted CDF: of 3 "
        "trials all, of 6 the second, third and fifth); > where the run ended before. Accuracies "
        "at so many labels are such medians too. Every trial that was run is in "
        "[trials.csv](trials.csv).",
        *(compare(ours) if compare else ()),
        *notes,
        _environment([arguments.runs / below[run] for run in runs]),
    )


def _environment(folders: Sequence[Path]) -> str:
    """Versions and device with which the runs were started."""
    (there, *others) = [results.read_environment(folder) for folder in folders]
    assert all(other == there for other in others), "the runs were made in different environments"
    versions = ", ".join(f"{name} {version}" for name, version in there["versions"].items())
    return f"Run on {there['device']}: {versions}. Report of {datetime.date.today()}."


def has_gpu() -> bool:
    """Whether the experiments run at full size."""
    return jax.default_backend() != "cpu"


def pool_note(pool: dict[str, int]) -> str:
    """What the pool of these runs is."""
    if not pool:
        return "Pool: all training images but those that the recipe validates on."
    return (
        f"Pool: {pool['pool_size']:,} random training points, another sample in every trial (the "
        "paper's pool is all of them)."
    )


def _options(options: dict[str, object]) -> list[str]:
    """As they are typed; True is a flag."""
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] + [str(value)] * (value is not True)
    return words


def paper_lines(run: str) -> list[Line]:
    """The rounds of one of the paper's runs, as far as its log has them."""
    with open(PAPER_TRIALS) as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == run]
    seeds = sorted({row["seed"] for row in rows})
    lines = []
    for row in rows:
        num_test = 10_000
        accuracy = float(row["accuracy"])
        lines.append(
            {
                "trial": seeds.index(row["seed"]),
                "num_acquired": int(row["num_acquired"]),
                "num_correct": round(accuracy * num_test),
                "num_test": num_test,
                "accuracy": accuracy,
            }
        )
    return lines


def labels_cell(lines: list[Line], accuracy: float) -> str:
    """Quartiles over the trials; one number where they are the same."""
    most = max(line["num_acquired"] for line in lines)
    counts = [
        f"> {most}" if math.isinf(count) else f"{count:.0f}"
        for count in report.quartiles(report.labels_needed(lines, accuracy))
    ]
    return counts[0] if len(set(counts)) == 1 else " / ".join(counts)


def summary(runs: Runs, at: Sequence[int]) -> str:
    """One row a run: labels needed, and accuracy on the way."""
    rows = []
    for name, lines in runs.items():
        acquired, (_, median, _) = report.learning_curve(lines)
        at_labels = dict(zip(acquired, median, strict=True))
        rows.append(
            [
                name,
                len(report.by_trial(lines)),
                *(labels_cell(lines, accuracy) for accuracy in ACCURACIES),
                *(f"{at_labels[n]:.2%}" if n in at_labels else "" for n in at),
            ]
        )
    header = ["run", "trials", *(f"labels to {a:.0%}" for a in ACCURACIES)]
    return reporting.table([*header, *(f"at {n}" for n in at)], rows)


def draw_curve(axes: Axes, name: str, lines: list[Line], *, style: str = "-", colour=None) -> None:
    """One run, with its number of trials."""
    label = report.curve_label(name, lines)
    report.draw_learning_curve(axes, label, lines, style, color=colour, lw=1.4)


def finish(axes: Axes, num_initial: int = 20) -> None:
    """Labels, grid, and the two accuracies that are counted."""
    for accuracy in ACCURACIES:
        axes.axhline(accuracy, color="0.6", lw=0.7, ls=":")
    axes.set_ylim(min(0.6, axes.get_ylim()[0]), 1)
    axes.locator_params(axis="x", integer=True)
    beyond = f" (beyond the initial {num_initial})" if num_initial else ""
    axes.set_xlabel(f"labels acquired{beyond}")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def draw_together(figure: Figure, ours: Runs, theirs: Runs) -> None:
    """All curves in one panel; the paper's are dashed."""
    axes = figure.add_subplot()
    for name, lines in ours.items():
        draw_curve(axes, name, lines, colour=COLOURS.get(name))
    for name, lines in theirs.items():
        acquisition = next((a for a in COLOURS if name.startswith(f"paper: {a}")), None)
        draw_curve(axes, name, lines, style="--", colour=COLOURS.get(acquisition or ""))
    finish(axes)


def _write_trials(path: Path, runs: Runs) -> None:
    fields = ("trial", "trial_key", "num_acquired", "num_correct", "num_test", "nll")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", *fields))
        for name, lines in runs.items():
            for line in sorted(lines, key=lambda line: (line["trial"], line["round"])):
                key = " ".join(map(str, line["trial_key"]))
                nll = "" if line["nll"] is None else f"{line['nll']:.4f}"
                row = {**line, "trial_key": key, "nll": nll}
                writer.writerow((name, *(row[field] for field in fields)))
