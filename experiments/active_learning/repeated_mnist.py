"""Experiment 3: RepeatedMNIST, where BALD buys the same image several times.

    python -m experiments.active_learning.repeated_mnist

Each image three times, each copy with Gaussian noise of its own (0.1 of the normalised pixels), K =
10, 10 points a round, recipe `paper`, a pool of 30,000: 10,000 random images with all their copies
(on a GPU: all). `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the
script.
"""

from experiments.common import curves

POOL = {} if curves.has_gpu() else {"pool_size": 30_000}
OPTIONS = {
    "dataset": "repeated-mnist",
    **POOL,
    "num_samples": 10,
    "num_rounds": 15,
    "num_trials": 3,
}
RUNS = {name: {**OPTIONS, "acquisition": name} for name in ("batchbald", "bald", "random")}
PAPER = {
    "paper: batchbald": "rmnist_w_noise_multibald_bald_k10_b10",
    "paper: bald": "rmnist_w_noise_independent_bald_k10_b10",
    "paper: random (5 a round)": "rmnist_w_noise_independent_random_k10_b5",
}

if __name__ == "__main__":
    curves.main(
        __file__,
        "RepeatedMNIST (three copies of each image)",
        RUNS,
        paper=PAPER,
        at=(30, 60, 90, 120, 150),
        notes=[
            curves.pool_note(POOL),
            "An image is in the pool with all its copies, or not at all.",
        ],
    )
