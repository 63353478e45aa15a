"""How precise the estimate of a BatchBALD score is, beside batchbald_redux's, at equal M.

    python -m experiments.benchmarks.estimator_variance --pools FOLDER --peers-venv FOLDER

Nine points are chosen; what matters for the tenth is the *differences* of the candidates' gains.
For 50 candidates (the 25 of highest gain and 25 others) the joint score with the nine is estimated
20 times, each with another key, by both libraries with M = 10,000 configurations:

- bbald_jax: the weighted tree of `bbald_jax/configurations.py`, in float32;
- batchbald_redux: its `SampledJointEntropy` on M sampled configurations, in float64.

The reference is the mean over larger trees with keys of their own; they are unbiased. The
mean errors show whether the peer's estimate tends to the same value. Writes
`results/scoring/variance.md`.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import bbald_jax as bb
from bbald_jax.information.configurations import (
    Configurations,
    branch,
    extend,
    remaining_entropy,
    root,
)
from bbald_jax.information.gains import candidates, gains
from experiments.benchmarks import scoring_peers
from experiments.common import reporting

NUM_CHOSEN, NUM_BEST, NUM_OTHERS = 9, 25, 25
# What is compared, and the ratio of variances aimed at.
TARGETS = {"differences, best 25": None, "differences, all 50": 30, "total": 1_000}


@partial(jax.jit, static_argnames="capacity")
def grow(key, chosen, *, capacity: int) -> Configurations:
    """The tree of at most `capacity` configurations of some chosen points, `[n, K, C]`."""

    def join(tree, key_and_point):
        step_key, point = key_and_point
        return extend(step_key, tree, point, branch(tree, point)), None

    keys = jax.random.split(key, chosen.shape[0])
    tree, _ = lax.scan(join, root(chosen.shape[1], capacity, chosen.dtype), (keys, chosen))
    return tree


@partial(jax.jit, static_argnames="capacity")
def joint_scores(key, chosen, others, *, capacity: int):
    """`[n]`: the joint mutual information of the chosen points with each of n others in turn."""
    tree = grow(key, chosen, capacity=capacity)
    score = jnp.log(chosen.shape[1]) - remaining_entropy(tree)
    return score + gains(tree, candidates(others))


def estimate(stream: int, num_keys: int, *arrays, capacity: int) -> np.ndarray:
    """`[num_keys, n]`, float64: the joint scores with `num_keys` keys of one stream."""
    keys = jax.random.split(jax.random.key(stream), num_keys)
    scores = [np.asarray(joint_scores(key, *arrays, capacity=capacity)) for key in keys]
    return np.stack(scores).astype(np.float64)


def mean_squares(errors: np.ndarray) -> dict[str, float]:
    """Mean squared errors, from those of the joint scores, `[seeds, candidates]`, best first."""

    def of_differences(errors):
        # The mean of (e_i - e_j)^2 over all pairs is twice the variance within a seed.
        return 2 * float(np.mean(np.var(errors, axis=1, ddof=1)))

    return {
        "differences, best 25": of_differences(errors[:, :NUM_BEST]),
        "differences, all 50": of_differences(errors),
        "total": float(np.mean(errors**2)),
    }


class Comparison(NamedTuple):
    """Joint scores of one pool's candidates, `[seeds, candidates]`, best candidates first."""

    pool: str
    reference: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray


def compare(pool: Path, peers_python: Path, args: argparse.Namespace) -> Comparison:
    capacity = args.num_configurations
    log_probs = jnp.asarray(np.load(pool)[: args.num_points])
    batch = bb.select_batchbald(
        jax.random.key(0), log_probs, batch_size=NUM_CHOSEN + 1, num_configurations=capacity
    )
    indices = batch.indices[:NUM_CHOSEN]
    chosen = log_probs[indices]
    tree = grow(jax.random.key(1), chosen, capacity=capacity)
    ranks = np.argsort(-np.asarray(gains(tree, candidates(log_probs))))
    ranks = ranks[~np.isin(ranks, indices)]
    drawn = np.random.default_rng(0).choice(ranks[NUM_BEST:], NUM_OTHERS, replace=False)
    others = log_probs[np.concatenate([ranks[:NUM_BEST], drawn])]

    reporting.progress(f"{pool.stem}: the reference")
    large = args.reference_factor * capacity
    reference = estimate(2, args.num_references, chosen, others, capacity=large)
    reporting.progress(f"{pool.stem}: bbald_jax")
    ours = estimate(3, args.num_seeds, chosen, others, capacity=capacity)
    reporting.progress(f"{pool.stem}: batchbald_redux")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, chosen=chosen, candidates=others)
        answer = reporting.measure(
            Path(scoring_peers.__file__),
            "redux_scores",
            python=peers_python,
            path=str(path),
            num_configurations=capacity,
            num_seeds=args.num_seeds,
        )
    return Comparison(pool.stem, reference, ours, np.array(answer["scores"]))


def precision_rows(scores: Comparison) -> list[list[object]]:
    truth = np.mean(scores.reference, axis=0)
    ours, theirs = mean_squares(scores.ours - truth), mean_squares(scores.theirs - truth)
    # Of the mean of the larger trees, by their scatter.
    reference = mean_squares(scores.reference - truth)
    degrees = len(scores.reference) - 1
    rows = []
    for what, target in TARGETS.items():
        ratio = theirs[what] / ours[what]
        errors = (theirs[what] ** 0.5, ours[what] ** 0.5, (reference[what] / degrees) ** 0.5)
        judged = (f"{target:,.0f}", reporting.verdict(ratio, at_least=target)) if target else ()
        rows.append([scores.pool, what, *errors, ratio, *judged])
    return rows


def bias_row(scores: Comparison) -> list[object]:
    truth = np.mean(scores.reference, axis=0)

    def mean_error(estimates):
        of_seeds = np.mean(estimates - truth, axis=1)
        return f"{np.mean(of_seeds):+.1e} ± {np.std(of_seeds, ddof=1) / len(of_seeds) ** 0.5:.0e}"

    return [scores.pool, mean_error(scores.theirs), mean_error(scores.ours)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Variance of BatchBALD estimators.")
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--peers-venv", type=Path, required=True)
    parser.add_argument("--num-seeds", type=int, default=20)
    parser.add_argument("--num-points", type=int, default=10_000)
    parser.add_argument("--num-configurations", type=int, default=10_000)
    parser.add_argument("--reference-factor", type=int, default=10, help="its M, over M")
    parser.add_argument("--num-references", type=int, default=20)
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    peers_python = scoring_peers.environment(args.peers_venv)
    compared = [compare(pool, peers_python, args) for pool in reporting.pools(args.pools)]
    header = ["pool", "error of", "batchbald_redux", "bbald_jax", "reference", "ratio of variances"]
    reporting.write(
        args.output / "variance.md",
        "# Precision of the joint score",
        reporting.machine("bbald_jax", "jax") + f" Peers: {scoring_peers.VERSIONS}.",
        f"RMS errors in nats over {args.num_seeds} seeds; N = {args.num_points:,}, M = "
        f"{args.num_configurations:,}, {NUM_CHOSEN} points chosen, the {NUM_BEST} best candidates "
        f"and {NUM_OTHERS} others. Reference: {args.num_references} trees of "
        f"{args.reference_factor * args.num_configurations:,} nodes; its column is the standard "
        "error of their mean.",
        reporting.table(
            [*header, "target", "verdict"], [row for x in compared for row in precision_rows(x)]
        ),
        "Mean error of the total, and its standard error, in nats:",
        reporting.table(["pool", "batchbald_redux", "bbald_jax"], map(bias_row, compared)),
    )


if __name__ == "__main__":
    main()
