"""Experiment 2: how few labels MNIST needs, with the recipe `augmented`.

    python -m experiments.active_learning.mnist_augmented

As experiment 1, but with light deformations, a fixed number of steps, averaged parameters and no
validation labels; 6 trials of BatchBALD, 3 of BALD and of random acquisition with the same recipe,
so that what the recipe gives and what the acquisition gives can be told apart; and 3 of BatchBALD
that start each round from the parameters of the round before. How the recipe was chosen:
`choose_recipe.py`. `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries
the script.
"""

from experiments.common import curves

POOL = {} if curves.has_gpu() else {"pool_size": 10_000}
OPTIONS = {"dataset": "mnist", **POOL, "recipe": "augmented"}
RUNS = {
    "batchbald": {**OPTIONS, "acquisition": "batchbald", "num_rounds": 12, "num_trials": 6},
    "bald": {**OPTIONS, "acquisition": "bald", "num_rounds": 12, "num_trials": 3},
    "random": {**OPTIONS, "acquisition": "random", "num_rounds": 18, "num_trials": 3},
    "batchbald, warm start": {
        **OPTIONS,
        "acquisition": "batchbald",
        "recipe": "augmented-warm",
        "num_rounds": 12,
        "num_trials": 3,
    },
}
PAPER = {"paper: batchbald, its recipe": "mnist_multibald_bald_k100_b10"}

if __name__ == "__main__":
    curves.main(
        __file__,
        "MNIST with the recipe `augmented`",
        RUNS,
        paper=PAPER,
        at=(30, 60, 90, 120, 180),
        notes=[curves.pool_note(POOL)],
    )
