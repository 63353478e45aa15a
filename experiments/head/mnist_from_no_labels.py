"""How few labels MNIST needs with the logistic head, from none: batches of 2 and of 10.

    python -m experiments.head.encoder --dataset mnist
    python -m experiments.head.mnist_from_no_labels

Features: the neighbour graph of HOG, and that of a small self-supervised encoder, made once of all
60,000 training images and no test image. Each trial has a random pool of 10,000 of them, the same
for every acquisition function, and ends at a test accuracy of 95 %. Trials 0 to 19 of seed 0, fixed
beforehand. `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the script.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bbald_jax.experiment import report
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.experiment.results import Line
from experiments.common import curves, reporting
from experiments.head.features_table import features

TARGET = 0.95
#: Rounds of each acquisition size: up to 60 and 100 labels.
NUM_ROUNDS = {2: 30, 10: 10}
#: What is run on which features: all of it on both would take some hours.
ACQUISITIONS = {
    ("image+graph", 2): ("random", "batchbald", "margin"),
    ("image+graph", 10): ("random", "batchbald", "bald"),
    ("encoder+graph", 2): (
        "random",
        "batchbald",
        "margin",
        "gaussian-batchbald-closed",
        "batch-epig-closed",
    ),
    ("encoder+graph", 10): ("random", "batchbald"),
}
NAMES = {"image+graph": "HOG graph", "encoder+graph": "encoder graph"}


def points(kind: str) -> Path:
    """The file that holds features in the place of the images."""
    return Path("results", f"mnist_{kind}.npz")


def run_name(kind: str, size: int, acquisition: str) -> str:
    """What the tables call a run."""
    return f"{NAMES[kind]}, {size}: {acquisition}"


RUNS = {
    run_name(kind, size, acquisition): {
        "dataset": str(points(kind)),
        "learner": "logistic-head",
        "acquisition": acquisition,
        "acquisition_size": size,
        "num_rounds": NUM_ROUNDS[size],
        "initial_per_class": 0,
        "pool_size": 10_000,
        "num_trials": 20,
        "target_accuracy": TARGET,
        "no_baseline": True,
    }
    for (kind, size), acquisitions in ACQUISITIONS.items()
    for acquisition in acquisitions
}
FOLDERS = {
    run_name(kind, size, acquisition): f"mnist_from_no_labels/{kind}-{size}-{acquisition}"
    for (kind, size), acquisitions in ACQUISITIONS.items()
    for acquisition in acquisitions
}


def make_points() -> None:
    """Files for `bbald run --dataset`."""
    mnist = load_mnist()
    for kind in NAMES:
        if not points(kind).exists():
            x_train, x_test = features(mnist, kind)
            np.savez(
                points(kind),
                x_train=x_train,
                y_train=mnist.y_train,
                x_test=x_test,
                y_test=mnist.y_test,
            )


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
    for (kind, size), acquisitions in ACQUISITIONS.items():
        at_random = needed(runs[run_name(kind, size, "random")])
        for acquisition in acquisitions[1:]:
            name = run_name(kind, size, acquisition)
            difference = needed(runs[name]) - at_random
            mean, fewer = difference.mean(), int((difference < 0).sum())
            error = 0.0
            if len(difference) > 1:
                error = difference.std(ddof=1) / math.sqrt(len(difference))
            rows.append(
                [name, f"{mean:+.1f} ± {1.96 * error:.1f}", f"{fewer} of {len(difference)}"]
            )
    header = ["run", "labels to 95 % less those of random", "trials with fewer"]
    return [
        "## Beside random acquisition on the same pools",
        reporting.table(header, rows),
        "Mean over the trials and its 95 % interval. A trial that did not reach 95 % counts as one "
        "round more than it had: too few.",
    ]


def draw(figure: Figure, ours: curves.Runs, theirs: curves.Runs) -> None:
    """A panel for each kind of features and each acquisition size."""
    del theirs
    figure.set_size_inches(10, 8)
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, ((kind, size), acquisitions) in zip(panels, ACQUISITIONS.items(), strict=True):
        num_trials = 0
        for index, acquisition in enumerate(acquisitions):
            lines = ours[run_name(kind, size, acquisition)]
            num_trials = len(report.by_trial(lines))
            colour = f"C{index}" if index else "0.45"
            axes.plot(*_mean_curve(lines), label=acquisition, lw=1.4, color=colour)
        axes.set_title(f"{NAMES[kind]}, batches of {size}: mean of {num_trials} trials")
        curves.finish(axes, num_initial=0)


def _mean_curve(lines: list[Line]) -> tuple[list[int], list[float]]:
    """A trial that has reached the target stays where it ended."""
    trials = [
        {line["num_acquired"]: line["accuracy"] for line in trial}
        for trial in report.by_trial(lines)
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
        folders=FOLDERS,
        at=(10, 20),
        compare=compare,
        notes=["A trial ends when it reaches 95 %: in the figure it then stays where it was."],
        draw=draw,
    )
