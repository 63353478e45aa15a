"""The tables and figures of `experiments.which_function`, from what was run.

    python -m experiments.which_function.tables

Leaves `experiments/results/which_function/`: README.md (what follows from the runs), cells.md (each
cell), one_shot.md, trials.csv and one_shot.csv (every trial), and the figures.
"""

import csv
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.common import reporting
from experiments.which_function import cells
from experiments.which_function.one_shot import SIZES
from experiments.which_function.run import OUTPUT
from experiments.which_function.statistics import (
    Difference,
    Trials,
    compare,
    labels_needed,
    quartiles,
    read,
    values,
)

RESULTS = Path(__file__).parents[1] / "results" / "which_function"
BUDGETS = (20, 50, 100, 200)
SMALL_BUDGETS = (10, 20, 40, 60)
RANDOM, BEST = "random", "batch-epig-closed"
Cells = dict[str, Trials]


def read_part(*parts: str) -> Cells:
    """The trials of some parts, by cell."""
    together: Cells = {}
    for part in parts:
        for cell, trials in read(OUTPUT / f"{part}.csv", lambda row: row["cell"]).items():
            there = together.setdefault(cell, {})
            there.update(trials)
    return together


def names_of(trials: Iterable[Trials]) -> list[str]:
    """All functions that were run in any cell, random first."""
    names = dict.fromkeys(name for each in trials for name in each)
    return sorted(names, key=lambda name: (name != RANDOM, " " in name, name))


def words(apart: Difference | None, scale: float = 100) -> str:
    """Mean and interval; bold where it is not zero."""
    if apart is None:
        return ""
    text = f"{scale * apart.mean:+.1f} ± {scale * apart.half:.1f}"
    return f"**{text}**" if apart.sign else text


def mean_of(trials: Trials, name: str, labels: int, what: str, scale: float = 100) -> str:
    """Over the seeds."""
    found = values(trials, name, labels, what)
    return f"{scale * np.mean(list(found.values())):.1f}" if found else ""


def count_signs(
    by_cell: Cells, name: str, what: str, budgets: Iterable[int], among: Iterable[str]
) -> tuple[int, int, int, float]:
    """Cells and budgets where it is above, no different from, and below random; mean difference."""
    signs, means = [], []
    for cell in among:
        for labels in budgets:
            apart = compare(by_cell.get(cell, {}), name, RANDOM, labels, what)
            if apart is not None:
                signs.append(apart.sign)
                means.append(apart.mean)
    mean = 100 * float(np.mean(means)) if means else float("nan")
    return signs.count(1), signs.count(0), signs.count(-1), mean


def overview(by_cell: Cells, budgets: tuple[int, ...], among: Iterable[str]) -> str:
    """One row a function: in how many cells it is above and below random."""
    among = [cell for cell in among if cell in by_cell]
    rows = []
    for name in names_of(by_cell.values()):
        if name == RANDOM:
            continue
        row: list[object] = [name]
        if not any(
            compare(by_cell[cell], name, RANDOM, labels, "accuracy")
            for cell in among
            for labels in budgets
        ):
            continue
        for what in ("accuracy", "f1"):
            above, same, below, mean = count_signs(by_cell, name, what, budgets, among)
            row += [f"{above} / {same} / {below}", f"{mean:+.1f}"]
        rows.append(row)
    rows.sort(key=lambda row: -float(row[2]))
    header = ["function", "accuracy: above / as / below random", "mean, points"]
    return reporting.table([*header, "macro-F1: above / as / below", "mean, points"], rows)


def matrix(by_cell: Cells, budgets: tuple[int, ...]) -> str:
    """In how many cells and budgets the row is above the column less those where it is below."""
    names = names_of(by_cell.values())
    rows = []
    for one in names:
        row: list[object] = [one]
        for other in names:
            signs = [
                apart.sign
                for trials in by_cell.values()
                for labels in budgets
                if one != other
                and (apart := compare(trials, one, other, labels, "accuracy")) is not None
            ]
            row.append(f"{signs.count(1)}:{signs.count(-1)}" if signs else "")
        rows.append(row)
    return reporting.table(["above : below", *names], rows)


def cell_table(trials: Trials, budgets: tuple[int, ...]) -> str:
    """Accuracy and macro-F1 less those of random, and classes found."""
    rows = []
    for name in names_of([trials]):
        row: list[object] = [name, len(trials[name])]
        for what in ("accuracy", "f1"):
            for labels in budgets:
                if name == RANDOM:
                    row.append(mean_of(trials, name, labels, what))
                else:
                    row.append(words(compare(trials, name, RANDOM, labels, what)))
        row += [mean_of(trials, name, labels, "found", 1) for labels in budgets]
        rows.append(row)
    header = ["function", "trials"]
    for what in ("accuracy", "F1", "classes"):
        header += [f"{what} at {labels}" for labels in budgets]
    return reporting.table(header, rows)


def needed_table(by_cell: Cells, wanted: dict[str, tuple[float, ...]]) -> str:
    """Labels until an accuracy."""
    rows = []
    for cell, accuracies in wanted.items():
        for name in names_of([by_cell.get(cell, {})]):
            counts = [labels_needed(by_cell[cell], name, accuracy) for accuracy in accuracies]
            rows.append(
                [cell, name, len(counts[0])]
                + [f"{a:.0%}: {quartiles(c)}" for a, c in zip(accuracies, counts, strict=True)]
            )
    return reporting.table(["cell", "function", "trials", "labels", "labels"], rows)


def draw(by_cell: Cells, budgets: tuple[int, ...], path: Path, title: str) -> None:
    """Accuracy less that of random: a row a function, a column a cell and budget."""
    in_order = [cell for cell in (*cells.CHOOSE, *cells.CONFIRM) if cell in by_cell]
    names = [name for name in names_of(by_cell.values()) if name != RANDOM]
    columns = [(cell, labels) for cell in in_order for labels in budgets]
    shown = np.full((len(names), len(columns)), np.nan)
    figure = Figure(figsize=(3 + 0.42 * len(columns), 2.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(names):
        for j, (cell, labels) in enumerate(columns):
            apart = compare(by_cell[cell], name, RANDOM, labels, "accuracy")
            if apart is not None:
                shown[i, j] = 100 * apart.mean
                weight = "bold" if apart.sign else "normal"
                colour = "white" if abs(shown[i, j]) > 12 else "black"
                axes.text(
                    j,
                    i,
                    f"{shown[i, j]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    weight=weight,
                    color=colour,
                )
    image = axes.imshow(shown, cmap="RdBu", vmin=-20, vmax=20, aspect="auto")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(len(columns)), [str(labels) for _, labels in columns], fontsize=7)
    for index, cell in enumerate(in_order):
        at = index * len(budgets)
        axes.text(at - 0.3, -0.9, cell, fontsize=8, rotation=20, ha="left", va="bottom")
        axes.axvline(at - 0.5, color="black", lw=0.8)
    axes.set_xlabel("labels")
    figure.suptitle(title, fontsize=10)
    figure.colorbar(image, label="points of accuracy above random", shrink=0.8)
    figure.savefig(path, dpi=130)


def write_trials(path: Path, parts: Iterable[str]) -> None:
    """Every trial in a line: right answers, macro-F1 and classes at every budget."""
    shown = sorted({*BUDGETS, *SMALL_BUDGETS})
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{what}@{n}" for what in ("accuracy", "f1", "found") for n in shown]
        writer.writerow(["part", "cell", "acquisition", "seed", *columns])
        for part in parts:
            for cell, trials in read_part(part).items():
                for name, seeds in trials.items():
                    for seed, at in sorted(seeds.items()):
                        row = [
                            f"{getattr(at[n], what):.4g}" if n in at else ""
                            for what in ("accuracy", "f1", "found")
                            for n in shown
                        ]
                        writer.writerow([part, cell, name, seed, *row])


def one_shot() -> list[str]:
    """The paragraphs of one_shot.md."""
    paragraphs = ["# One batch of 50, 100 or 200 points at once"]
    for num_samples in (100, 1000):
        source = OUTPUT / f"one_shot-{num_samples}.csv"
        if not source.exists():
            continue
        shutil.copy(source, RESULTS / source.name)
        by_cell = read(source, lambda row: row["cell"])
        sizes = SIZES if num_samples == 100 else SIZES[:1]
        draw(
            by_cell,
            sizes,
            RESULTS / f"one_shot-{num_samples}.png",
            f"After one batch, K = {num_samples}",
        )
        paragraphs += [
            f"## K = {num_samples}",
            f"![Accuracy less that of random](one_shot-{num_samples}.png)",
            overview(by_cell, sizes, by_cell),
        ]
        for cell, trials in by_cell.items():
            rows = []
            for name in names_of([trials]):
                row: list[object] = [name, len(trials[name])]
                for size in sizes:
                    shown = words(compare(trials, name, RANDOM, size, "accuracy"))
                    row.append(mean_of(trials, name, size, "accuracy") if name == RANDOM else shown)
                rows.append(row)
            paragraphs += [
                f"### {cell}",
                reporting.table(["function", "trials", *(f"batch of {n}" for n in sizes)], rows),
            ]
    return paragraphs


HEAD = """Every cell is a data set with features; each trial has a pool of 3,000 random training
points of it (all 1,200 of digits), starts from no label, and is scored on the test points; the
pools are the same for all functions. Differences are paired by pool, in points, with 95 % intervals
(Student's t); what is bold is not zero at that level, and no correction is made for the number of
comparisons. Random acquisition has the same learner, `bb.logistic_head` at its defaults."""


CUT = """What was cut, for time: 5 to 20 seeds (the column "trials" of each cell says how many, the
first ones always; pairs are of those that both have); pools of 3,000 instead of 10,000; functions
that look at samples only in the nine cells of up to 10 classes, and to 100 labels; batches of 2 in
the same cells; the rules for rare classes on the cells they were chosen on, and only those that
were chosen, and two that begin with TypiClust, on the others. Batch EPIG with "targets by doubt"
was chosen on the first six cells before any rule was run on the other six; `weighted-epig-closed`
is its form in the library. The rules that begin with TypiClust were thought of last, when the sweep
had been seen. Half-centring and the prior were set before, on MNIST training labels outside the
pools and on most of these data sets."""


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    made = f"Made by `python -m {reporting.module(__file__)}`; " + reporting.machine("jax", "numpy")
    sweep, rules, small = read_part("sweep"), read_part("sweep", "rules"), read_part("small")
    fifties, targets = read_part("fifties"), read_part("targets-10")
    closed = {cell: _only(trials) for cell, trials in rules.items()}
    draw(sweep, BUDGETS, RESULTS / "sweep.png", "Batches of 10, from no label")
    if small:
        draw(small, SMALL_BUDGETS, RESULTS / "small.png", "Batches of 2, from no label")
    if fifties:
        draw(fifties, (50, 100, 200), RESULTS / "fifties.png", "Batches of 50, from no label")
    draw(closed, BUDGETS, RESULTS / "rules.png", "Rules for rare classes, batches of 10")
    reporting.write(
        RESULTS / "tables.md",
        "# Which acquisition function for the logistic head: the tables",
        HEAD,
        CUT,
        "The same for [each cell](cells.md), with classes found; [one batch at once](one_shot.md); "
        "[every trial](trials.csv).",
        "## Batches of 10: above and below random",
        "![Accuracy less that of random, batches of 10](sweep.png)",
        overview(sweep, BUDGETS, sweep),
        "Cells and budgets (20, 50, 100, 200 labels) that are significantly above random, not "
        "different, and below; functions that look at samples to 100 labels, in cells of up to 10 "
        "classes.",
        "## Who is above whom",
        matrix(sweep, BUDGETS),
        "In how many cells and budgets the row is significantly above the column : below it.",
        *_other("## Batches of 2", "small.png", small, SMALL_BUDGETS),
        *_other("## Batches of 50", "fifties.png", fifties, (50, 100, 200)),
        "## Rules for rare classes",
        "![Accuracy less that of random](rules.png)",
        f"Cells they were chosen on ({', '.join(cells.CHOOSE)}):",
        overview(closed, BUDGETS, cells.CHOOSE),
        f"Cells that confirm ({', '.join(cells.CONFIRM)}):",
        overview(closed, BUDGETS, cells.CONFIRM),
        f"Of all these the imbalanced ones ({', '.join(cells.IMBALANCED)}):",
        overview(closed, BUDGETS, cells.IMBALANCED),
        "## Labels in all, pools of 10,000",
        "Batches of 2:",
        needed_table(
            read_part("targets-2"), {"mnist-graph": (0.9, 0.95), "mnist-encoder": (0.9, 0.95)}
        ),
        "Batches of 10:",
        needed_table(
            targets,
            {
                "mnist-graph": (0.9, 0.95),
                "mnist-encoder": (0.9, 0.95),
                "fashion-graph": (0.75, 0.8),
            },
        ),
        "25 % / 50 % / 75 % quartiles over the trials; - where it was not reached with 60 labels "
        "(batches of 2) or 200.",
        made,
    )
    reporting.write(
        RESULTS / "cells.md",
        "# Each cell, batches of 10",
        HEAD,
        *(
            paragraph
            for cell in (*cells.CHOOSE, *cells.CONFIRM)
            if cell in rules
            for paragraph in (f"## {cell}", cell_table(rules[cell], BUDGETS))
        ),
        *(
            paragraph
            for cell, trials in small.items()
            for paragraph in (f"## {cell}, batches of 2", cell_table(trials, SMALL_BUDGETS))
        ),
        *(
            paragraph
            for cell, trials in fifties.items()
            for paragraph in (f"## {cell}, batches of 50", cell_table(trials, (50, 100, 200)))
        ),
        made,
    )
    reporting.write(RESULTS / "one_shot.md", *one_shot(), made)
    write_trials(
        RESULTS / "trials.csv", ("sweep", "rules", "small", "fifties", "targets-2", "targets-10")
    )


def _only(trials: Trials) -> Trials:
    kept = (RANDOM, BEST, "weighted-epig-closed", "margin-map", "gaussian-batchbald-closed")
    return {name: each for name, each in trials.items() if " " in name or name in kept}


def _other(title: str, figure: str, by_cell: Cells, budgets: tuple[int, ...]) -> tuple[str, ...]:
    if not by_cell:
        return ()
    return (
        title,
        f"![Accuracy less that of random]({figure})",
        overview(by_cell, budgets, by_cell),
        matrix(by_cell, budgets),
    )


if __name__ == "__main__":
    main()
