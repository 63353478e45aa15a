"""Why BatchBALD with 1,000 samples takes seconds a point: what its bounds leave, and the peak.

    python -m experiments.benchmarks.profile_many_samples

Runs the steps of `select_batchbald` one by one, until the samples are spent, on the pool of
`benchmark_size.py` with N = 10,000, K = 1,000, C = 10, M = 10,000, and looks at each: the time and
the work of the search, the gains of all points, the bounds of the finest merged tree. Writes
`results/scoring/many_samples.md`; about three minutes. `--scale 10` divides N, K and M by 10, to
try the script.
"""

import argparse
import time
from functools import partial
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from bbald_jax.acquisition.bounds import SMALL, ladder
from bbald_jax.acquisition.certificate import SPENT
from bbald_jax.acquisition.search import best_gains
from bbald_jax.acquisition.ties import priorities
from bbald_jax.information.configurations import branch, extend, remaining_entropy, root
from bbald_jax.information.gains import candidates, gains
from experiments.benchmarks.benchmark_size import random_pool
from experiments.common import reporting

NUM_POINTS, NUM_SAMPLES, NUM_CLASSES, NUM_CONFIGURATIONS = 10_000, 1_000, 10, 10_000
BATCH_SIZE = 10
#: A sample with less weight has no part in a node that anyone would see.
LEAST_WEIGHT = 1e-6


def timed(function, *args):
    """Its result, and the seconds of a call after the first, which compiles."""
    jax.block_until_ready(function(*args))
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - start


def steps(num_points: int, num_samples: int, num_configurations: int) -> dict:
    """One row a point of the batch, until the samples are spent."""
    key = jax.random.key(0)
    log_probs = random_pool(key, num_points, num_samples, NUM_CLASSES)
    select = partial(
        bb.select_batchbald, batch_size=BATCH_SIZE, num_configurations=num_configurations
    )
    batch = select(key, log_probs)
    remaining = np.asarray(batch.diagnostics.remaining_entropy)
    num_informed = int(np.sum(remaining >= SPENT)) + 1
    pool = jax.jit(candidates)(log_probs)
    tree = root(num_samples, num_configurations, log_probs.dtype)
    available = jnp.ones(num_points, bool)
    priority = priorities(key, jnp.arange(num_points))
    hint = jnp.full(num_points, jnp.inf, log_probs.dtype)

    def search(tree, pool, available, hint):
        return best_gains(
            tree,
            pool,
            available,
            num_best=1,
            num_wanted=jnp.int32(1),
            num_needed=jnp.int32(1),
            enough=remaining_entropy(tree),
            tolerance=jnp.float32(0),
            hint=hint,
            priority=priority,
            use_bounds=True,
        )

    search_, gains_, ladder_ = jax.jit(search), jax.jit(gains), jax.jit(ladder)
    rows = []
    for index in np.asarray(batch.indices[:num_informed]):
        size = int(tree.size)
        best, seconds = timed(search_, tree, pool, available, hint)
        exact, dense_seconds = timed(gains_, tree, pool)
        exact = np.asarray(exact)
        rivals = np.argsort(-exact)[: num_points // 10]
        flop = 2.0 * num_points * size * num_samples * NUM_CLASSES
        row = {
            "remaining": float(remaining_entropy(tree)),
            "nodes": size,
            "samples": float(np.median((np.asarray(tree.weights[:size]) > LEAST_WEIGHT).sum(1))),
            "seconds": seconds,
            "dense": dense_seconds,
            "work": float(best.work) / (num_points * size),
            "near": float(np.mean(exact >= 0.9 * exact.max())),
            "rate": flop / dense_seconds / 1e9,
        }
        if num_configurations > SMALL:
            bounds = np.asarray(gains_(jax.tree.map(itemgetter(1), ladder_(tree)), pool))
            row["excess"] = float(np.median(bounds[rivals] / exact[rivals])) - 1
        rows.append(row)
        hint, point = best.bounds, log_probs[int(index)]
        tree = extend(key, tree, point, branch(tree, point))
        available = available.at[int(index)].set(False)
    return {"rows": rows}


def product(num_samples: int) -> dict:
    """GFLOP/s of matrix products alone, of the size of a tile."""
    rows, outcomes = 1_024, 640
    weights = jax.random.uniform(jax.random.key(0), (rows, num_samples))
    probs = jax.random.uniform(jax.random.key(1), (outcomes, num_samples))

    @jax.jit
    def products(weights, probs):
        def multiply(i, total):
            return total + jnp.matmul(weights + i, probs.T)

        return jax.lax.fori_loop(0, 50, multiply, jnp.zeros((rows, outcomes)))

    _, seconds = timed(products, weights, probs)
    return {"rate": 50 * 2 * rows * outcomes * num_samples / seconds / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="divide N, K and M by this")
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()
    sizes = [n // args.scale for n in (NUM_POINTS, NUM_SAMPLES, NUM_CONFIGURATIONS)]
    names = ("num_points", "num_samples", "num_configurations")
    answer = reporting.measure(Path(__file__), "steps", **dict(zip(names, sizes, strict=True)))
    peak = reporting.measure(Path(__file__), "product", num_samples=sizes[1])
    if "error" in answer or "error" in peak:
        raise SystemExit(answer.get("error") or peak.get("error"))
    header = ["point", "nats left before", "nodes", "samples a node", "search s", "all gains s"]
    header += ["work", "points within 10 %", "bound's excess", "GFLOP/s of all gains"]
    rows = [
        [
            i + 1,
            row["remaining"],
            row["nodes"],
            row["samples"],
            row["seconds"],
            row["dense"],
            f"{row['work']:.0%}",
            f"{row['near']:.1%}",
            f"{row['excess']:.1%}" if "excess" in row else None,
            row["rate"],
        ]
        for i, row in enumerate(answer["rows"])
    ]
    reporting.write(
        args.output / "many_samples.md",
        "# What bounds BatchBALD with 1,000 samples",
        "Command: `python -m experiments.benchmarks.profile_many_samples`. "
        + reporting.machine("bbald_jax", "jax"),
        f"N = {sizes[0]:,}, K = {sizes[1]:,}, C = {NUM_CLASSES}, M = {sizes[2]:,}; the points that "
        "are chosen before the samples are spent. Samples a node: of a weight above "
        f"{LEAST_WEIGHT:g}, median. All gains: every point on every node, without bounds. Work: "
        "what the search evaluates, on the merged trees too, as a share of that. Points within "
        "10 %: those whose gain is at least nine tenths of the best. Bound's excess: the bound of "
        "the finest merged tree, M / 4 nodes, over the gain, median of the tenth of the points "
        f"that gain most. {reporting.quietness([answer, peak])}",
        reporting.table(header, rows),
        f"Matrix products alone, of the size of a tile: {peak['rate']:.0f} GFLOP/s.",
        "Once the tree is full a point takes as long as all its matrix products: they run near the "
        "rate of products alone, and the bounds rule out little, because the bound of a merged "
        "tree exceeds the gain by more than the gains of the best points differ. Each node is "
        "about few of the samples, but each about others: no tile of nodes shares them, and sums "
        "over every node's own samples would read their predictions from all over memory.",
    )


if __name__ == "__main__" and not reporting.is_measuring(steps, product):
    main()
