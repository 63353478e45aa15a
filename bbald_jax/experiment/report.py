"""Drawing and tabulating results: learning curves, acquired points, labels needed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich import box
from rich.table import Table

from bbald_jax.acquisition import warnings
from bbald_jax.acquisition.certificate import ROUNDING
from bbald_jax.experiment import results
from bbald_jax.experiment.results import Line

#: Quartiles over trials; each is one of the trials (inverted CDF), so a count stays a count.
QUARTILES = (25, 50, 75)

# Of fewer trials, quartiles say less than the trials themselves.
_FEWEST_FOR_QUARTILES = 5

# More would be too small to see, and too slow to draw.
_MAX_ROUNDS_DRAWN = 20
_MAX_POINTS_DRAWN = 20
_MAX_LETTERS = 9
_PARTS = ("fit", "predict", "select")


def quartiles(values: Sequence[Any]) -> np.ndarray:
    """The quartiles over trials (the first axis), inverted CDF; infinity (never) is allowed."""
    return np.percentile(np.asarray(values), QUARTILES, axis=0, method="inverted_cdf")


def labels_needed(
    lines: list[Line], accuracy: float, *, at_least: bool = False
) -> list[int | float]:
    """For each trial, the labels acquired until the test accuracy first reached `accuracy`.

    Counted in whole test points, the initial labels not counted, infinity where it never did.

    Args:
      lines: of one run.
      accuracy: a fraction.
      at_least: count what was acquired so far for a trial that has not reached it but is not over
        either, which will need more than that, instead of infinity.
    """
    return [
        min(
            (
                line["num_acquired"]
                for line in trial
                if line["num_correct"] >= results.num_correct_for(accuracy, line["num_test"])
            ),
            default=trial[-1]["num_acquired"]
            if at_least and not trial[-1]["is_last"]
            else math.inf,
        )
        for trial in by_trial(lines)
    ]


def by_trial(lines: list[Line]) -> list[list[Line]]:
    """The lines of each trial, in order."""
    trials = sorted({line["trial"] for line in lines})
    return [[line for line in lines if line["trial"] == trial] for trial in trials]


def learning_curve(lines: list[Line]) -> tuple[list[int], np.ndarray]:
    """Labels acquired, and the quartiles of the test accuracy over the trials of a run.

    Only where every trial was evaluated: a median over fewer would jump.
    """
    # A round that could acquire nothing is followed by another with as many labels: the last.
    trials = [{line["num_acquired"]: line["accuracy"] for line in each} for each in by_trial(lines)]
    acquired = sorted(set.intersection(*map(set, trials)))
    return acquired, quartiles([[trial[n] for n in acquired] for trial in trials])


def curve_label(name: str, lines: list[Line]) -> str:
    """What `draw_learning_curve` draws of a run, for the legend."""
    num_trials = len(by_trial(lines))
    if num_trials == 1:
        return name
    what = "each" if num_trials < _FEWEST_FOR_QUARTILES else "median and quartiles"
    return f"{name}: {what} of {num_trials} trials"


def draw_learning_curve(axes: Axes, label: str, lines: list[Line], *style: str, **options) -> None:
    """Median and quartiles of one run, or its trials, each a thin line, where they are few.

    Args:
      axes: to draw into.
      label: for the legend.
      lines: of the run.
      style: of `Axes.plot`.
      options: of `Axes.plot`.
    """
    trials = by_trial(lines)
    if len(trials) >= _FEWEST_FOR_QUARTILES:
        acquired, (low, median, high) = learning_curve(lines)
        (curve,) = axes.plot(acquired, median, *style, label=label, **options)
        axes.fill_between(acquired, low, high, color=curve.get_color(), alpha=0.15, lw=0)
        return
    if len(trials) > 1:
        options |= {"lw": 0.8}
    for trial in trials:
        acquired = [line["num_acquired"] for line in trial]
        (curve,) = axes.plot(
            acquired, [line["accuracy"] for line in trial], *style, label=label, **options
        )
        options |= {"color": curve.get_color()}
        label = "_"  # which is in no legend


def draw_learning_curves(path: Path, runs: dict[str, list[Line]]) -> None:
    """Test accuracy against labels acquired: median and quartiles of each run, or its trials."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, lines in runs.items():
        draw_learning_curve(axes, curve_label(name, lines), lines, marker="o", markersize=3)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("labels acquired (beyond the initial ones)")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.grid(alpha=0.3)
    for text in axes.legend(loc="lower right").get_texts():
        text.set_parse_math(False)  # a file may be called "$5_$"
    figure.savefig(path, dpi=150)


def draw_acquired(
    path: Path,
    lines: list[Line],
    images: np.ndarray,
    title: str,
    class_names: Sequence[str] = (),
) -> None:
    """The images acquired, one row a round, with their classes: repeats show at a glance.

    Three channels or four are drawn in colour; of any other number, the first, in grey.

    Args:
      path: of the PNG.
      lines: the rounds of one trial; the first 20 that acquired something are drawn, and the
        first 20 points of each.
      images: `[N, H, W, c]`, into which the lines' indices point.
      title: above the picture.
      class_names: C of them, the first letters of which are shown; the classes' numbers without.
    """
    rounds = [line for line in lines if line["indices"]]
    drawn = rounds[:_MAX_ROUNDS_DRAWN]
    num_points = max((len(line["indices"]) for line in drawn), default=1)
    num_columns = min(num_points, _MAX_POINTS_DRAWN)
    num_rows = max(len(drawn), 1)
    figure = Figure(figsize=(0.62 * num_columns + 1.2, 0.78 * num_rows + 0.6), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for row, line in zip(grid, drawn, strict=False):
        row[0].set_ylabel(f"round {line['round']}", rotation=0, ha="right", va="center", fontsize=8)
        for axes, index, label in zip(row, line["indices"], line["classes"], strict=False):
            axes.imshow(_drawable(images[index]), cmap="gray")
            name = class_names[label] if class_names else str(label)
            axes.set_title(name[:_MAX_LETTERS], fontsize=8, pad=2, parse_math=False)
    if len(drawn) < len(rounds):
        title += f" (the first {len(drawn)} of {len(rounds)} rounds)"
    if num_columns < num_points:
        title += f" (the first {num_columns} of {num_points} points)"
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.savefig(path, dpi=120)


def _drawable(image: np.ndarray) -> np.ndarray:
    """`[H, W]`, or `[H, W, 3]` in [0, 1], to which it is stretched where it is beyond."""
    if image.shape[-1] not in (3, 4):
        return image[..., 0]
    image = image[..., :3]
    low, high = min(0, image.min()), max(1, image.max())
    return (image - low) / (high - low)


def spent_samples(lines: list[Line], num_samples: int) -> str | None:
    """One line for those whose batches were arbitrary, in whole or from some point on, or None."""
    rounds = {(line["trial"], line["round"]): line for line in lines if line["indices"]}
    num_informed = {
        place: informed
        for place, line in rounds.items()
        if (entropies := line["remaining_entropy"])
        and (informed := warnings.num_informed(line["scores"], entropies)) < len(entropies)
    }
    if num_informed:
        (trial, round_index), first = next(iter(num_informed.items()))
        return warnings.spent_samples(
            num_samples,
            needed=max(
                warnings.samples_needed(num_samples, informed, len(rounds[place]["indices"]))
                for place, informed in num_informed.items()
            ),
            subject=f"In {len(num_informed)} of {len(rounds)} rounds the",
            when=f"before the batch was full (trial {trial}, round {round_index}: after point "
            f"{first})",
            samples="--num-samples",
            size="--acquisition-size",
        )
    tied = [place for place, line in rounds.items() if _tells_nothing(line)]
    if not tied:
        return None
    trial, round_index = tied[0]
    return (
        f"In {len(tied)} of {len(rounds)} rounds no point of the batch had a score above rounding "
        f"(first in trial {trial}, round {round_index}), so the choice was arbitrary: the samples "
        f"do not differ on the pool. Raise --num-samples, which is {num_samples}, or "
        "--initial-per-class."
    )


def _tells_nothing(line: Line) -> bool:
    """No point of a batch tells anything, as far as a line says."""
    gains = line["gains"]
    if None in gains:  # infinite
        return False
    if line["remaining_entropy"]:
        return max(gains) <= ROUNDING
    return max(map(abs, gains)) <= warnings.EQUAL


def beside_random(runs: dict[str, list[Line]]) -> str:
    """One line: the accuracy of a run and of random acquisition, with as many labels."""
    acquired = sorted(set.intersection(*({*learning_curve(lines)[0]} for lines in runs.values())))
    most = acquired[-1]
    words = []
    for name, lines in runs.items():
        at, (_, median, _) = learning_curve(lines)
        words.append(f"{name} {median[at.index(most)]:.2%}")
    return f"With {most} labels acquired: {', '.join(words)} (median over the trials)."


def rounds_table(lines: list[Line]) -> Table:
    """One row a round."""
    table = Table(
        title=f"{lines[0]['num_test']} test points; the first round's seconds include compilation",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns = ("trial", "round", "labels", "accuracy", "correct", "nll", "score")
    for name in (*columns, "fit s", "pred. s", "select s"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        nll, scores = line["nll"], line["scores"]
        table.add_row(
            str(line["trial"]),
            str(line["round"]),
            str(line["num_labelled"]),
            f"{line['accuracy']:.2%}",
            str(line["num_correct"]),
            "-" if nll is None else f"{nll:.3f}",
            f"{scores[-1]:.3f}" if scores and scores[-1] is not None else "-",
            *(f"{line[f'seconds_{part}']:.1f}" for part in _PARTS),
        )
    return table


def labels_needed_table(runs: dict[str, list[Line]], accuracies: Sequence[float]) -> Table:
    """Labels acquired until each accuracy is reached: quartiles over the trials of each run."""
    table = Table(
        title="labels acquired until an accuracy is reached (25 % / 50 % / 75 %)",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("run")
    table.add_column("trials", justify="right")
    table.add_column("best accuracy", justify="right")
    for accuracy in accuracies:
        table.add_column(f"{accuracy * 100:g} %", justify="right")
    for name, lines in runs.items():
        trials = by_trial(lines)
        best = quartiles([max(line["accuracy"] for line in trial) for trial in trials])[1]
        cells = []
        for accuracy in accuracies:
            # Trials that are not over can move a quartile, but only between these two.
            bounds = (labels_needed(lines, accuracy, at_least=x) for x in (True, False))
            needed = [
                "not yet" if low != high else "never" if np.isinf(low) else f"{low:.0f}"
                for low, high in zip(*map(quartiles, bounds), strict=True)
            ]
            cells.append(needed[1] if len(trials) == 1 else " / ".join(needed))
        table.add_row(name, str(len(trials)), f"{best:.2%}", *cells)
    return table
