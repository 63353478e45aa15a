"""BatchBALD beside its peers: seconds, and the true scores of the batches chosen.

    python -m experiments.benchmarks.benchmark_scoring --pools FOLDER --peers-venv FOLDER

One run does it all, one measurement after another, each in a process of its own with 2 threads:
it makes the pools (`scoring_pools.py`) and the peers' virtual environment (`scoring_peers.py`) if
they are not there, and writes `results/scoring/speed.md`. K = 100, C = 10, B = 10; a pool of N
points is the first N. On 2 quiet cores about 15 minutes and 6 GB, nearly all of it for the peers.
Other work on the machine slows torch more than JAX, so the report says how much there was.

Seconds are those of the call alone, the input in memory: for bbald_jax the median of some calls
after compilation, for the peers the only one. The true score of a batch is its joint mutual
information for the K samples, from trees of twice as many configurations, the mean over 5 keys.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from bbald_jax.information.gains import candidates, gains
from experiments.benchmarks import estimator_variance, scoring_peers
from experiments.common import reporting

BATCH_SIZE = 10
NUM_TRUE_SCORES = 5
OURS, DENSE, REDUX = "bbald_jax", "bbald_jax (no bounds)", "batchbald_redux"
# How many times faster than batchbald_redux, by N and pool.
SPEED_TARGETS = {10_000: {"mnist": 150, "synthetic": 75}, 4_000: {"mnist": 100, "synthetic": 60}}
WORK_TARGETS = {"mnist": 0.05, "synthetic": 0.15}
PEAK_TARGET = 0.75


# The measurements, each in a process of its own.


def select(
    pool: str, num_points: int, num_configurations: int, use_bounds: bool, repeats: int
) -> dict:
    """Time `select_batchbald`: compilation, the first call after it, and the median of others."""
    log_probs = _load(pool, num_points)
    key = jax.random.key(0)
    start = time.perf_counter()
    compiled = bb.select_batchbald.lower(
        key,
        log_probs,
        batch_size=BATCH_SIZE,
        num_configurations=num_configurations,
        use_bounds=use_bounds,
    ).compile()
    compile_seconds = time.perf_counter() - start
    batch = jax.block_until_ready(compiled(key, log_probs))
    first_seconds = time.perf_counter() - start
    return {
        "seconds": statistics.median(_times(lambda: compiled(key, log_probs), repeats)),
        "first": first_seconds,
        "compile": compile_seconds,
        "indices": batch.indices.tolist(),
        "work_fraction": float(batch.diagnostics.work_fraction),
    }


def dense_gains(
    pool: str, num_points: int, num_configurations: int, indices: list[int], repeats: int
) -> dict:
    """Rates in GFLOP/s: the gains of all points on a full tree, and plain matrix products."""
    log_probs = _load(pool, num_points)
    tree = estimator_variance.grow(
        jax.random.key(0), log_probs[jnp.array(indices)], capacity=num_configurations
    )
    all_candidates = candidates(log_probs)
    gains_of_all, product = jax.jit(gains), jax.jit(jnp.matmul)
    # A multiplication and an addition for every weight and probability.
    flop = 2 * int(tree.size) * log_probs.size
    calls: dict[str, tuple] = {"gains": (flop, gains_of_all, tree, all_candidates)}
    for side in (2048, 4096):
        matrix = jax.random.normal(jax.random.key(side), (side, side))
        array = np.asarray(matrix)
        calls[f"product {side}"] = (2 * side**3, product, matrix, matrix)
        calls[f"numpy {side}"] = (2 * side**3, np.matmul, array, array)
    seconds = {name: [] for name in calls}
    for _ in range(1 + repeats):  # in turn, so that a disturbance meets all of them
        for name, (_, function, *arrays) in calls.items():
            seconds[name] += _times(lambda f=function, xs=arrays: f(*xs), 1)
    best = {name: calls[name][0] / min(of_name) / 1e9 for name, of_name in seconds.items()}
    return {
        "nodes": int(tree.size),
        "gains": best["gains"],
        "median": flop / statistics.median(seconds["gains"]) / 1e9,
        "peak": max(best["product 2048"], best["product 4096"]),
        "numpy": max(best["numpy 2048"], best["numpy 4096"]),
    }


def true_scores(pool: str, batches: list[list[int]], num_configurations: int) -> dict:
    """Mean and standard error, for each batch, of its score over `NUM_TRUE_SCORES` keys."""
    log_probs = np.load(pool, mmap_mode="r")
    keys = jax.random.split(jax.random.key(1), NUM_TRUE_SCORES)
    means, errors = [], []
    for batch in batches:
        chosen = jnp.asarray(log_probs[np.array(batch)])
        scores = [
            float(
                bb.estimate_joint_mutual_information(
                    key, chosen, num_configurations=num_configurations
                )
            )
            for key in keys
        ]
        means.append(statistics.mean(scores))
        errors.append(statistics.stdev(scores) / NUM_TRUE_SCORES**0.5)
    return {"means": means, "errors": errors}


def _load(pool: str, num_points: int) -> jax.Array:
    return jnp.asarray(np.load(pool, mmap_mode="r")[:num_points])


def _times(call: Callable[[], object], count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


# The run, which asks for them, and its report.


class Case(NamedTuple):
    """One selection to measure."""

    pool: Path
    num_points: int
    num_configurations: int
    library: str

    @property
    def ours(self) -> "Case":
        """What it is compared with."""
        return self._replace(library=OURS)

    @property
    def labels(self) -> list[object]:
        """Its cells in a table."""
        return [self.pool.stem, *self[1:]]

    def __str__(self) -> str:
        return f"{self.pool.stem}, N = {self.num_points:,}"


def select_all(pool: Path, peers_python: Path, args: argparse.Namespace) -> dict[Case, dict]:
    """The answers for every selection on one pool, with the true scores of their batches."""
    full, fewer = args.num_configurations, args.num_configurations // 5
    smallest, largest = min(args.sizes), max(args.sizes)
    bounds = {"use_bounds": True, "repeats": args.repeats}
    no_bounds = {"use_bounds": False, "repeats": 1}
    peer = {"batch_size": BATCH_SIZE}
    cases = [
        *[(Case(pool, size, full, OURS), bounds) for size in args.sizes],
        (Case(pool, largest, fewer, OURS), bounds),
        (Case(pool, largest, full, DENSE), no_bounds),
        *[(Case(pool, size, full, REDUX), peer) for size in args.sizes],
        (Case(pool, smallest, full, "scikit_activeml"), peer),
        (Case(pool, smallest, full, "baal"), peer),
    ]
    answers = {}
    for case, how in cases:
        is_peer = how is peer
        answer = answers[case] = reporting.measure(
            Path(scoring_peers.__file__ if is_peer else __file__),
            case.library if is_peer else "select",
            python=peers_python if is_peer else sys.executable,
            pool=str(pool),
            num_points=case.num_points,
            num_configurations=case.num_configurations,
            **how,
        )
        result = answer.get("error") or f"{answer['seconds']:.2f} s"
        others = f"others: {answer['others_load']:.2f} cores"
        what = f"{case}, M = {case.num_configurations:,}, {case.library}"
        reporting.progress(f"{what}: {result} ({others})")

    done = [answer for answer in answers.values() if "error" not in answer]
    scores = reporting.measure(
        Path(__file__),
        "true_scores",
        pool=str(pool),
        batches=[answer["indices"] for answer in done],
        num_configurations=2 * full,
    )
    for answer, mean, error in zip(done, scores["means"], scores["errors"], strict=True):
        answer |= {"score": mean, "score_error": error}
    return answers


def measure_dense(pool: Path, answers: dict[Case, dict], args: argparse.Namespace) -> dict:
    """The rates of the dense evaluation, for the points that were chosen before the last one."""
    case = Case(pool, max(args.sizes), args.num_configurations, OURS)
    answer = reporting.measure(
        Path(__file__),
        "dense_gains",
        pool=str(pool),
        num_points=case.num_points,
        num_configurations=case.num_configurations,
        indices=answers[case]["indices"][:-1],
        repeats=args.repeats,
    )
    reporting.progress(f"{case}: {answer['gains'] / answer['peak']:.0%} of the matmul peak")
    return answer


def comparison_rows(answers: dict[Case, dict]) -> Iterator[list[object]]:
    for case, answer in answers.items():
        row = case.labels
        if "error" in answer:
            yield [*row, answer["error"]]
            continue
        ratio = answer["seconds"] / answers[case.ours]["seconds"]
        score = f"{answer['score']:.5f} ± {answer['score_error']:.5f}"
        yield [*row, answer["seconds"], ratio, score]


def own_rows(answers: dict[Case, dict]) -> Iterator[list[object]]:
    for case, answer in answers.items():
        if "work_fraction" in answer:
            seconds = (answer["compile"], answer["first"], answer["seconds"])
            work = f"{answer['work_fraction']:.1%}"
            yield [*case.labels, *seconds, work]


def target_rows(answers: dict[Case, dict], dense: dict[Path, dict]) -> Iterator[list[object]]:
    for case, answer in answers.items():
        own = answers[case.ours]
        if case.library in (OURS, DENSE) or "error" in answer:
            continue
        target = SPEED_TARGETS.get(case.num_points, {}).get(case.pool.stem)
        if case.library == REDUX and target:
            ratio = answer["seconds"] / own["seconds"]
            verdict = reporting.verdict(ratio, at_least=target)
            yield [f"{case}: times faster than {REDUX}", f"≥ {target}", ratio, verdict]
        lead = own["score"] - answer["score"]
        error = math.hypot(own["score_error"], answer["score_error"])
        verdict = "met" if lead >= 0 else f"missed by {-lead:.1e} nats"
        what = f"{case}: true score above that of {case.library}"
        yield [what, "≥ 0", f"{lead:+.5f} ± {error:.5f}", verdict]
    for pool, rates in dense.items():
        case = max(case for case in answers if case.pool == pool and case.library == OURS)
        work, target = answers[case]["work_fraction"], WORK_TARGETS[pool.stem]
        verdict = reporting.verdict(work, at_most=target)
        yield [f"{case}: work over dense", f"≤ {target:.0%}", f"{work:.1%}", verdict]
        fraction = rates["gains"] / rates["peak"]
        verdict = reporting.verdict(fraction, at_least=PEAK_TARGET)
        what = f"{case}: dense gains over matmul peak"
        yield [what, f"≥ {PEAK_TARGET:.0%}", f"{fraction:.0%}", verdict]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time BatchBALD beside its peers.")
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--peers-venv", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 4_000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-configurations", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    peers_python = scoring_peers.environment(args.peers_venv)
    answers, dense = {}, {}
    for pool in reporting.pools(args.pools):
        answers |= select_all(pool, peers_python, args)
        dense[pool] = measure_dense(pool, answers, args)
    columns = ["pool", "N", "M", "library"]
    rates = [
        [pool.stem, *(x[name] for name in ("nodes", "gains", "median", "peak", "numpy"))]
        for pool, x in dense.items()
    ]
    reporting.write(
        args.output / "speed.md",
        "# BatchBALD beside its peers",
        reporting.machine("bbald_jax", "jax", "numpy") + f" Peers: {scoring_peers.VERSIONS}.",
        f"K = 100, C = 10, B = {BATCH_SIZE}. Seconds of the call alone, without compilation: of "
        f"{OURS} the median of {args.repeats} (of {DENSE} one), of the peers one. Ratio: to {OURS} "
        "at the same N and M. True score: nats, the mean over "
        f"{NUM_TRUE_SCORES} trees of {2 * args.num_configurations:,} configurations ± its standard "
        f"error. {reporting.quietness(answers.values())}",
        reporting.table([*columns, "seconds", "ratio", "true score"], comparison_rows(answers)),
        f"## {OURS} alone",
        "First call: with compilation. Work: evaluations over those of the dense evaluation.",
        reporting.table([*columns, "compile s", "first call s", "s", "work"], own_rows(answers)),
        "The dense evaluation of all gains on one full tree, and matrix products in the same "
        "process, in GFLOP/s: the best of several, and the median.",
        reporting.table(
            ["pool", "nodes", "gains", "gains (median)", "JAX product", "NumPy product"], rates
        ),
        "## Targets",
        reporting.table(["what", "target", "result", "verdict"], target_rows(answers, dense)),
        "What bounds the missed ones: most of a small selection is merging and growing the tree, "
        "on one thread; see [where the time goes](parts.md), by `profile_scoring.py`.",
    )


if __name__ == "__main__" and not reporting.is_measuring(select, dense_gains, true_scores):
    main()
