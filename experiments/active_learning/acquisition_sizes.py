"""Experiment 4: acquisition sizes 5, 10 and 40, for BALD and BatchBALD.

    python -m experiments.active_learning.acquisition_sizes

MNIST by the paper's protocol, K = 100, 3 trials each, from a random pool of 10,000 (on a GPU: all),
up to 120 labels; of size 5 to 40. The runs of size 10 are those of experiment 1, which go on to
250. `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the script.
"""

from matplotlib.figure import Figure

from experiments.active_learning import mnist_paper
from experiments.common import curves

NUM_ROUNDS = {5: 8, 10: 25, 40: 3}
ACQUISITIONS = ("bald", "batchbald")
RUNS = {
    f"{name} {size}": {
        **mnist_paper.RUNS[name],
        "acquisition_size": size,
        "num_rounds": num_rounds,
    }
    for name in ACQUISITIONS
    for size, num_rounds in NUM_ROUNDS.items()
}
PAPER = {
    "paper: bald 10": "mnist_independent_bald_k100_b10",
    **{f"paper: batchbald {size}": f"mnist_multibald_bald_k100_b{size}" for size in NUM_ROUNDS},
}


def draw(figure: Figure, ours: curves.Runs, theirs: curves.Runs) -> None:
    """A panel for each acquisition function."""
    figure.set_size_inches(10, 4.4)
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ACQUISITIONS, strict=True):
        for colour, size in zip(("C2", "C0", "C3"), NUM_ROUNDS, strict=True):
            run = f"{name} {size}"
            curves.draw_curve(axes, f"{size} points a round", ours[run], colour=colour)
            if (paper := f"paper: {run}") in theirs:
                curves.draw_curve(axes, f"paper: {size}", theirs[paper], style="--", colour=colour)
        axes.set_title(name)
        curves.finish(axes)
        axes.set_xlim(0, 120)


if __name__ == "__main__":
    curves.main(
        __file__,
        "Acquisition sizes 5, 10 and 40",
        RUNS,
        folders={f"{name} 10": f"mnist_paper/{name}" for name in ACQUISITIONS},
        paper=PAPER,
        at=(20, 40, 80, 120),
        notes=[
            curves.pool_note(mnist_paper.POOL),
            "Compare the accuracies at equal numbers of labels: with small rounds an accuracy is "
            "looked at more often, and so first reached earlier by luck.",
        ],
        draw=draw,
    )
