"""Experiment 4: acquisition sizes 5, 10 and 40, for BALD and BatchBALD.

    python experiments/acquisition_sizes.py

MNIST by the paper's protocol up to 160 labels, K = 100, from a random pool of 10,000 (on a GPU:
all). `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the script.
"""

import curves
from matplotlib.figure import Figure

POOL = {} if curves.has_gpu() else {"pool_size": 10_000}
NUM_LABELS, SIZES = 160, (5, 10, 40)
OPTIONS = {"dataset": "mnist", **POOL, "num_trials": 3}
RUNS = {
    f"{name} {size}": {
        **OPTIONS,
        "acquisition": name,
        "acquisition_size": size,
        "num_rounds": NUM_LABELS // size,
    }
    for name in ("bald", "batchbald")
    for size in SIZES
}
PAPER = {
    "paper: bald 10": "mnist_independent_bald_k100_b10",
    **{f"paper: batchbald {size}": f"mnist_multibald_bald_k100_b{size}" for size in SIZES},
}


def draw(figure: Figure, ours: curves.Runs, theirs: curves.Runs) -> None:
    """A panel for each acquisition function."""
    figure.set_size_inches(10, 4.4)
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("bald", "batchbald"), strict=True):
        for colour, size in zip(("C2", "C0", "C3"), SIZES, strict=True):
            run = f"{name} {size}"
            curves.draw_curve(axes, f"{size} points a round", ours[run], colour=colour)
            if (paper := f"paper: {run}") in theirs:
                curves.draw_curve(axes, f"paper: {size}", theirs[paper], style="--", colour=colour)
        axes.set_title(name)
        curves.finish(axes)


if __name__ == "__main__":
    curves.main(
        __file__,
        "Acquisition sizes 5, 10 and 40",
        RUNS,
        paper=PAPER,
        at=(40, 80, 120, 160),
        notes=[
            curves.pool_note(POOL),
            "Compare the accuracies at equal numbers of labels: with small rounds an accuracy is "
            "looked at more often, and so first reached earlier by luck.",
        ],
        draw=draw,
    )
