"""How few labels MNIST needs with the logistic head, from none: batches of 2 and of 10.

    python -m experiments.head.mnist_from_no_labels

Features: the neighbour graph of HOG (`image+graph`), made once of all 60,000 training images and no
test image. Each trial has a random pool of 10,000 of them, the same for every acquisition function,
and ends at a test accuracy of 95 %. Trials 0 to 19 of seed 0, fixed beforehand.
`--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the script.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bbald_jax.experiment import report
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.experiment.feature_files import load_or_make
from bbald_jax.experiment.results import Line
from experiments.common import curves, reporting

FEATURES = Path("results", "mnist_image+graph.safetensors")
POINTS = Path("results", "mnist_image+graph.npz")
TARGET = 0.95
#: Rounds of each acquisition size, and what is run: one by one all of them would take an hour.
NUM_ROUNDS = {2: 30, 10: 10}
ACQUISITIONS = {
    2: ("random", "batchbald", "margin", "gaussian-batchbald-closed", "batch-epig-closed"),
    10: (
        "random",
        "batchbald",
        "bald",
        "margin",
        "power-bald",
        "epig",
        "gaussian-batchbald-closed",
        "batch-epig-closed",
    ),
}
RUNS = {
    f"{name}, batches of {size}": {
        "dataset": str(POINTS),
        "learner": "logistic-head",
        "acquisition": name,
        "acquisition_size": size,
        "num_rounds": NUM_ROUNDS[size],
        "initial_per_class": 0,
        "pool_size": 10_000,
        "num_trials": 20,
        "target_accuracy": TARGET,
        "no_baseline": True,
    }
    for size, names in ACQUISITIONS.items()
    for name in names
}


def make_points() -> None:
    """A file of features in the place of the images, for `bbald run --dataset`."""
    if POINTS.exists():
        return
    POINTS.parent.mkdir(exist_ok=True)
    mnist = load_mnist()
    x_train, x_test = load_or_make(FEATURES, "image+graph", mnist.x_train, mnist.x_test)
    np.savez(POINTS, x_train=x_train, y_train=mnist.y_train, x_test=x_test, y_test=mnist.y_test)


def needed(lines: list[Line]) -> np.ndarray:
    """Labels to the target in each trial; where it was not reached, one round more than there was.

    That is less than it would have been, which is in favour of what did not reach it.
    """
    counts = report.labels_needed(lines, TARGET)
    most = max(line["num_acquired"] for line in lines)
    step = min(line["num_acquired"] for line in lines if line["num_acquired"])
    return np.array([most + step if math.isinf(count) else count for count in counts])


def compare(runs: curves.Runs) -> list[str]:
    """Paired differences to random acquisition on the same pools."""
    rows = []
    for size, names in ACQUISITIONS.items():
        at_random = needed(runs[f"random, batches of {size}"])
        for name in names[1:]:
            run = f"{name}, batches of {size}"
            difference = needed(runs[run]) - at_random
            mean, fewer = difference.mean(), int((difference < 0).sum())
            error = (
                difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0
            )
            rows.append([run, f"{mean:+.1f} ± {1.96 * error:.1f}", f"{fewer} of {len(difference)}"])
    table = reporting.table(
        ["run", "labels to 95 % less those of random", "trials with fewer"], rows
    )
    return [
        "## Beside random acquisition on the same pools",
        table,
        "Mean over the trials and its 95 % interval. A trial that did not reach 95 % counts as one "
        "round more than it had.",
    ]


def draw(figure: Figure, ours: curves.Runs, theirs: curves.Runs) -> None:
    """A panel for each acquisition size."""
    del theirs
    figure.set_size_inches(10, 4.4)
    for axes, (size, names) in zip(
        figure.subplots(1, 2, sharey=True), ACQUISITIONS.items(), strict=True
    ):
        for index, name in enumerate(names):
            lines = ours[f"{name}, batches of {size}"]
            axes.plot(
                *_mean_curve(lines), label=name, lw=1.4, color="0.45" if index == 0 else f"C{index}"
            )
        num_trials = len(report.by_trial(ours[f"random, batches of {size}"]))
        axes.set_title(f"batches of {size}: mean of {num_trials} trials")
        curves.finish(axes, num_initial=0)


def _mean_curve(lines: list[Line]) -> tuple[list[int], list[float]]:
    """A trial that has reached the target stays where it ended."""
    trials = [
        {line["num_acquired"]: line["accuracy"] for line in t} for t in report.by_trial(lines)
    ]
    acquired = sorted({count for trial in trials for count in trial})
    accuracies = [
        [trial[max(count for count in trial if count <= at)] for trial in trials] for at in acquired
    ]
    return acquired, [float(np.mean(each)) for each in accuracies]


if __name__ == "__main__":
    make_points()
    curves.main(
        __file__,
        "MNIST from no labels, with the logistic head",
        RUNS,
        at=(10, 20),
        compare=compare,
        notes=["A trial ends when it reaches 95 %: in the figure it then stays where it was."],
        draw=draw,
    )
