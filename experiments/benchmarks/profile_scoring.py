"""Where the time of one selection goes, and what keeps the dense gains from the matmul peak.

    python -m experiments.benchmarks.profile_scoring --pools POOLS

Runs the steps of `select_batchbald` one by one on the two pools of `scoring_pools.py` (made in
`POOLS` if they are not there), N = 10,000, K = 100, C = 10, B = 10, M = 10,000, and times each part
in a process with 2 threads, compilation left out. Writes `results/scoring/parts.md`.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import bbald_jax as bb
from bbald_jax.acquisition.bounds import ladder
from bbald_jax.acquisition.search import best_gains
from bbald_jax.acquisition.ties import priorities
from bbald_jax.information.configurations import branch, extend, remaining_entropy, root
from bbald_jax.information.entropy import xlogx
from bbald_jax.information.gains import _fast_xlogx, candidates
from experiments.common import reporting

BATCH_SIZE, NUM_CONFIGURATIONS = 10, 10_000
TILE_ROWS, TILE_OUTCOMES, NUM_TILES = 1024, 640, 200


def seconds_of(function, *args, **kwargs) -> float:
    """The best of five calls, after one that compiles."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(function(*args, **kwargs))
        times.append(time.perf_counter() - start)
    return min(times[1:])


def parts(pool: str) -> dict:
    """Seconds of each part of one selection, summed over its steps."""
    log_probs = jnp.asarray(np.load(pool))
    num_points, num_samples, _ = log_probs.shape
    key = jax.random.key(0)
    select = partial(
        bb.select_batchbald, batch_size=BATCH_SIZE, num_configurations=NUM_CONFIGURATIONS
    )
    batch = select(key, log_probs)
    find = jax.jit(partial(best_gains, num_best=BATCH_SIZE, use_bounds=True))
    branch_, extend_, merge = jax.jit(branch), jax.jit(extend), jax.jit(ladder)
    seconds = {
        "all": seconds_of(select, key, log_probs),
        "probabilities and entropies of the pool": seconds_of(jax.jit(candidates), log_probs),
        "growing and thinning the tree": 0.0,
        "merging its configurations": 0.0,
        "bounds and gains": 0.0,
    }
    points = jax.jit(candidates)(log_probs)
    tree = root(num_samples, NUM_CONFIGURATIONS, log_probs.dtype)
    available, remaining = jnp.ones(num_points, bool), remaining_entropy(tree)
    hint = jnp.full(num_points, jnp.inf, log_probs.dtype)
    for step, index in enumerate(batch.indices):
        search = partial(
            find,
            tree,
            points,
            available,
            num_wanted=jnp.int32(BATCH_SIZE if step == 0 else 1),
            num_needed=jnp.int32(1),
            enough=remaining,
            tolerance=jnp.float32(0),
            hint=hint,
            priority=priorities(key, jnp.arange(num_points)),
        )
        searching, merging = seconds_of(search), seconds_of(merge, tree)
        seconds["merging its configurations"] += merging
        seconds["bounds and gains"] += searching - merging
        hint, point = search().bounds, log_probs[index]
        children = branch_(tree, point)
        seconds["growing and thinning the tree"] += seconds_of(branch_, tree, point)
        seconds["growing and thinning the tree"] += seconds_of(extend_, key, tree, point, children)
        tree, remaining = extend_(key, tree, point, children), remaining_entropy(children)
        available = available.at[index].set(False)
    return seconds


def tile() -> dict:
    """Milliseconds of the work on one tile of the dense gains, and of its parts."""
    num_samples = 100
    weights = jax.random.uniform(jax.random.key(0), (TILE_ROWS, num_samples)) / num_samples
    outcomes = jax.random.uniform(jax.random.key(1), (TILE_OUTCOMES, num_samples)) / num_samples
    masses = jnp.full(TILE_ROWS, 1 / TILE_ROWS)

    def repeat(work):
        """The work, many times in a loop: each time on other weights, so that none is left out."""
        start = jnp.zeros((TILE_ROWS, num_samples))
        return jax.jit(
            lambda *args: lax.fori_loop(0, NUM_TILES, lambda i, x: work(x + i, *args), start)
        )

    def product(x, weights, outcomes):
        return weights + 1e-9 * jnp.matmul(weights + 1e-9 * x, outcomes.T)[:, :num_samples]

    def whole(logarithm, x, weights, outcomes, masses):
        predictive = jnp.matmul(weights + 1e-9 * x, outcomes.T)
        return weights + 1e-9 * jnp.matmul(masses, logarithm(predictive))[:num_samples]

    args = (weights, outcomes)
    times = {
        "the matrix product": seconds_of(repeat(product), *args),
        "all of it": seconds_of(repeat(partial(whole, _fast_xlogx)), *args, masses),
        "all of it, with XLA's own logarithm": seconds_of(
            repeat(partial(whole, xlogx)), *args, masses
        ),
    }
    return {name: 1e3 * seconds / NUM_TILES for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the parts of a selection.")
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    answers = {
        pool.stem: reporting.measure(Path(__file__), "parts", pool=str(pool))
        for pool in reporting.pools(args.pools)
    }
    of_tile = reporting.measure(Path(__file__), "tile")
    quietness = reporting.quietness([*answers.values(), of_tile])
    for answer in (*answers.values(), of_tile):
        del answer["others_load"]
    names = list(next(iter(answers.values())))
    flop = 2 * TILE_ROWS * TILE_OUTCOMES * 100
    reporting.write(
        args.output / "parts.md",
        "# Where the time of a selection goes",
        reporting.machine("bbald_jax", "jax", "numpy"),
        f"N = 10,000, K = 100, C = 10, B = {BATCH_SIZE}, M = {NUM_CONFIGURATIONS:,}. Seconds, each "
        "part compiled on its own and summed over the steps; the certificate's step is in *all* "
        f"only. {quietness}",
        reporting.table(
            ["part", *answers],
            [[name, *(answer[name] for answer in answers.values())] for name in names],
        ),
        "Merging, growing and thinning hardly use a second thread (their tiles are small), and do "
        "not depend on N: they are what is left of a selection from a small pool.",
        f"One tile of the dense gains, {TILE_ROWS} configurations x {TILE_OUTCOMES} outcomes:",
        reporting.table(
            ["work", "ms", "GFLOP/s of the product"],
            [[name, ms, flop / ms / 1e6] for name, ms in of_tile.items()],
        ),
        "What the gains lack to the peak is the logarithm of every element and the sum, which XLA "
        "does in passes of their own over the tile.",
    )


if __name__ == "__main__" and not reporting.is_measuring(parts, tile):
    main()
