"""Experiment 1: the paper's MNIST experiment, by its own protocol, beside its own runs.

    python -m experiments.active_learning.mnist_paper

BatchBALD, BALD and random acquisition of 10 points a round, K = 100, recipe `paper`, 3 trials each,
from a random pool of 10,000 (on a GPU: all 60,000 less the validation set). About two hours on two
cores. `--num-rounds 1 --num-trials 1 --runs /tmp/runs --output /tmp/out` tries the script.
"""

from experiments.common import curves

POOL = {} if curves.has_gpu() else {"pool_size": 10_000}
OPTIONS = {"dataset": "mnist", **POOL, "num_rounds": 25, "num_trials": 3}
RUNS = {name: {**OPTIONS, "acquisition": name} for name in ("batchbald", "bald", "random")}
PAPER = {
    "paper: batchbald": "mnist_multibald_bald_k100_b10",
    "paper: bald": "mnist_independent_bald_k100_b10",
}

if __name__ == "__main__":
    curves.main(
        __file__,
        "MNIST by the paper's protocol",
        RUNS,
        paper=PAPER,
        notes=[curves.pool_note(POOL)],
    )
