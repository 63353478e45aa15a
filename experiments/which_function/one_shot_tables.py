"""The tables and the figure of one batch at once, from what `one_shot` ran."""

import csv
import shutil
import statistics
from pathlib import Path

from experiments.common import reporting
from experiments.which_function.comparisons import (
    RANDOM,
    Cells,
    draw,
    mean_of,
    names_of,
    overview,
    words,
)
from experiments.which_function.one_shot import SIZES
from experiments.which_function.run import OUTPUT
from experiments.which_function.statistics import compare, read

THEN_RANDOM = "batchbald, then random"
OTHERWISE = ("batchbald, by rounding", "batchbald, then gaussian")


def informed_points(source: Path) -> dict[str, list[int]]:
    """Of each cell, how many points BatchBALD chose before its samples were spent; a trial each."""
    by_cell: dict[str, list[int]] = {}
    with open(source, newline="") as file:
        for row in csv.DictReader(file):
            if row["acquisition"] == THEN_RANDOM and row["size"] == str(SIZES[0]):
                by_cell.setdefault(row["cell"], []).append(int(row["informed"]))
    return by_cell


def spent_table(by_cell: Cells, informed: dict[str, list[int]], sizes: tuple[int, ...]) -> str:
    """What follows when BatchBALD's samples are spent: a random rest less other ways to go on."""
    header = ["cell", "size of batch", "informed points: median (least to most)"]
    rows = []
    for cell, counts in informed.items():
        for size in sizes:
            apart = [
                words(compare(by_cell[cell], THEN_RANDOM, other, size, "accuracy"))
                for other in OTHERWISE
            ]
            if any(apart):
                middle = f"{statistics.median(counts):g} ({min(counts)} to {max(counts)})"
                rows.append([cell, size, middle, *apart])
    return reporting.table([*header, "random - rounding", "random - Gaussian gains"], rows)


def one_shot(results: Path) -> list[str]:
    """The paragraphs of one_shot.md; leaves the trials and the figures beside it."""
    paragraphs = ["# One batch of 50, 100 or 200 points at once"]
    for num_samples in (100, 1000):
        source = OUTPUT / f"one_shot-{num_samples}.csv"
        if not source.exists():
            continue
        shutil.copy(source, results / source.name)
        by_cell = read(source, lambda row: row["cell"])
        sizes = SIZES if num_samples == 100 else SIZES[:1]
        draw(
            by_cell,
            sizes,
            results / f"one_shot-{num_samples}.png",
            f"After one batch, K = {num_samples}",
        )
        paragraphs += [
            f"## K = {num_samples}",
            f"![Accuracy less that of random](one_shot-{num_samples}.png)",
            overview(by_cell, sizes, by_cell),
            "### When BatchBALD's samples are spent",
            "Points of accuracy of a rest drawn at random, which is what `select_batchbald` does, "
            "less that of going on in another way.",
            spent_table(by_cell, informed_points(source), sizes),
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
