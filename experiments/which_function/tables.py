"""The tables and figures of `experiments.which_function`, from what was run.

    python -m experiments.which_function.tables

Leaves `experiments/results/which_function/`: tables.md, cells.md (each cell), one_shot.md,
trials.csv and one_shot-K.csv (every trial), and the figures.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

from experiments.common import reporting
from experiments.which_function import cells
from experiments.which_function.comparisons import (
    RANDOM,
    Cells,
    cell_table,
    draw,
    matrix,
    needed_table,
    overview,
)
from experiments.which_function.one_shot_tables import one_shot
from experiments.which_function.run import OUTPUT
from experiments.which_function.statistics import Trials, read

RESULTS = Path(__file__).parents[1] / "results" / "which_function"
BUDGETS = (20, 50, 100, 200)
SMALL_BUDGETS = (10, 20, 40, 60)
BEST = "batch-epig-closed"


def read_part(*parts: str) -> Cells:
    """The trials of some parts, by cell."""
    together: Cells = {}
    for part in parts:
        for cell, trials in read(OUTPUT / f"{part}.csv", lambda row: row["cell"]).items():
            there = together.setdefault(cell, {})
            there.update(trials)
    return together


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
    reporting.write(RESULTS / "one_shot.md", *one_shot(RESULTS), made)
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
