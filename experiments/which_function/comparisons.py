"""How functions compare, in words, tables and figures."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.common import reporting
from experiments.which_function import cells
from experiments.which_function.statistics import (
    Difference,
    Trials,
    compare,
    labels_needed,
    quartiles,
    values,
)

RANDOM = "random"
Cells = dict[str, Trials]


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
