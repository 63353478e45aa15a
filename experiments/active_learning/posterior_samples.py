"""Experiment 5: what more posterior samples buy, K = 10, 20, 100 and 500.

    python -m experiments.active_learning.posterior_samples

On one set of trained models (the paper's network and recipe, 60 random MNIST labels, 3 models), 10
points are chosen from a pool of 5,000 by BatchBALD, by the highest BALD scores, and at random. Each
batch is scored by its joint mutual information under 5,000 posterior samples of the same model that
did not choose it. `--num-models 1 --num-repeats 1 --output /tmp/out` tries the script.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import bbald_jax as bb
from bbald_jax.experiment import report
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.pool import Labelled
from experiments.common import reporting

NUM_LABELLED, NUM_POOL, BATCH_SIZE = 60, 5000, 10
NUM_SAMPLES, NUM_HELD_OUT = (10, 20, 100, 500), 5000
OUTPUT = Path(__file__).parents[1] / "results" / "posterior_samples"


def main() -> None:
    parser = argparse.ArgumentParser(description="What more posterior samples buy.")
    parser.add_argument("--num-models", type=int, default=3)
    parser.add_argument("--num-repeats", type=int, default=3, help="selections for each K")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()

    data = load_mnist()
    learner = bb.mc_dropout_learner(bb.flax_model(bb.PaperCNN(10)), bb.PAPER)
    held_out: dict[tuple[str, int], list[float]] = {}
    own: dict[int, list[float]] = {}
    for index in range(arguments.num_models):
        keys = jax.random.split(jax.random.key(index), 4)
        order = np.asarray(jax.random.permutation(keys[0], len(data.y_train)))
        parts = np.split(order, np.cumsum([NUM_LABELLED, bb.PAPER.num_validation, NUM_POOL]))
        labelled, validation = (
            Labelled(
                jnp.asarray(data.x_train[part]),
                jnp.asarray(data.y_train[part]),
                jnp.int32(len(part)),
            )
            for part in parts[:2]
        )
        pool = jnp.asarray(data.x_train[parts[2]])
        initial = learner.init(keys[1], pool)
        learned = learner.fit(keys[2], initial, labelled, validation)

        def add(name, num_samples, batch, key, learned=learned, pool=pool):
            fresh_key, thinning_key = jax.random.split(key)
            fresh = learner.sample(fresh_key, learned, pool[batch.indices], NUM_HELD_OUT)
            worth = bb.estimate_joint_mutual_information(
                thinning_key, fresh, num_configurations=10_000
            )
            held_out.setdefault((name, num_samples), []).append(float(worth))
            if name == "BatchBALD":
                own.setdefault(num_samples, []).append(float(batch.scores[-1]))

        for repeat in range(arguments.num_repeats):
            sample_key, select_key, score_key = jax.random.split(
                jax.random.fold_in(keys[3], repeat), 3
            )
            for num_samples in NUM_SAMPLES:
                log_probs = learner.sample(sample_key, learned, pool, num_samples)
                batch = bb.select_batchbald(select_key, log_probs, batch_size=BATCH_SIZE)
                add("BatchBALD", num_samples, batch, score_key)
                add(
                    "BALD", num_samples, bb.select_bald(log_probs, batch_size=BATCH_SIZE), score_key
                )
            everything = jnp.ones(NUM_POOL, bool)
            batch = bb.select_random(select_key, batch_size=BATCH_SIZE, available=everything)
            add("random", 0, batch, score_key)
            reporting.progress(f"model {index}, selection {repeat}")

    def cell(values: list[float]) -> str:
        low, median, high = report.quartiles(values)
        return f"{median:.2f} ({low:.2f} to {high:.2f})"

    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in (("BatchBALD", "C0"), ("BALD", "C1")):
        low, median, high = report.quartiles(
            list(zip(*(held_out[name, num_samples] for num_samples in NUM_SAMPLES), strict=True))
        )
        axes.plot(NUM_SAMPLES, median, "o-", color=colour, label=f"{name}, held-out samples")
        axes.fill_between(NUM_SAMPLES, low, high, color=colour, alpha=0.15, lw=0)
    claimed = [np.median(own[num_samples]) for num_samples in NUM_SAMPLES]
    axes.plot(NUM_SAMPLES, claimed, "o:", color="C0", label="BatchBALD's own score, on its K")
    axes.axhline(np.median(held_out["random", 0]), color="0.45", ls="--", label="random")
    axes.set_xscale("log")
    axes.set_xticks(NUM_SAMPLES, [str(num_samples) for num_samples in NUM_SAMPLES])
    axes.set_xlabel("K, posterior samples that choose the batch")
    axes.set_ylabel("joint mutual information of the batch, nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(arguments.output / "held_out.png", dpi=130)

    num = arguments.num_models * arguments.num_repeats
    rows = [
        [
            num_samples,
            cell(held_out["BatchBALD", num_samples]),
            cell(own[num_samples]),
            f"{np.log(num_samples):.2f}",
            cell(held_out["BALD", num_samples]),
        ]
        for num_samples in NUM_SAMPLES
    ]
    reporting.write(
        arguments.output / "README.md",
        "# What more posterior samples buy",
        f"Made by `python -m {reporting.module(__file__)} --num-models {arguments.num_models} "
        f"--num-repeats {arguments.num_repeats}`: MNIST, {NUM_LABELLED} random labels, recipe "
        f"`paper`, {BATCH_SIZE} points from a pool of {NUM_POOL:,}; {arguments.num_models} models, "
        f"{arguments.num_repeats} selections of each from samples of their own ({num} batches).",
        "![Joint mutual information on held-out samples](held_out.png)",
        reporting.table(
            ["K", "BatchBALD, held out", "BatchBALD, own score", "log K", "BALD, held out"], rows
        ),
        f"Nats; medians (quartiles). *Held out*: under {NUM_HELD_OUT:,} posterior samples of the "
        "same model that did not choose the batch (at most "
        f"log {NUM_HELD_OUT:,} = {np.log(NUM_HELD_OUT):.2f}), estimated with "
        "M = 10,000. *Own score*: under the K samples that chose it, which cannot exceed log K. "
        "Random batches, held out: "
        f"{cell(held_out['random', 0])}.",
        reporting.machine("bbald_jax", "jax", "flax", "optax"),
    )


if __name__ == "__main__":
    main()
