"""What the joint scores without a ceiling cost, and the baselines on features, beside BatchBALD.

    python -m experiments.benchmarks.benchmark_joint_forms

Each selection is measured in a process of its own with 2 threads, one after another, on random
predictions and features (time does not depend on them, but for the share of points that lazy
evaluation rules out). Seconds are the median of some calls after a first one, which compiles. The
ratio is to `select_batchbald`, M = 10,000, for 10 points of N = 10,000, K = 100 and C = 10, in the
same run. It writes `results/scoring/joint_forms.md`; on 2 quiet cores about five minutes and 5 GB.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import bbald_jax as bb
from experiments.common import reporting

NUM_TARGETS, NUM_FEATURES, NUM_LABELLED = 500, 100, 100
BASELINES = ("badge", "coreset", "bait", "typiclust")


class Case(NamedTuple):
    """One selection to measure, and the most seconds that it should take."""

    name: str
    num_points: int
    num_samples: int
    num_classes: int
    batch_size: int
    target: float | None = None


REFERENCE = Case("batchbald", 10_000, 100, 10, 10)
CASES = (
    REFERENCE,
    Case("gaussian-batchbald", 10_000, 100, 10, 100, 0.5),
    Case("gaussian-batchbald", 10_000, 100, 10, 1_000, 5),
    Case("gaussian-batchbald", 20_000, 20, 1_000, 100, 60),
    Case("batch-epig", 10_000, 100, 10, 10),
    Case("batch-epig", 10_000, 100, 10, 100),
    Case("batch-epig", 20_000, 20, 1_000, 100),
    *(
        Case(f"{name}-closed", 10_000, 0, 10, batch_size)
        for name in ("gaussian-batchbald", "batch-epig")
        for batch_size in (10, 100, 1_000)
    ),
    *(Case(name, 10_000, 0, 10, 10, 1) for name in BASELINES),
    *(Case(name, 10_000, 0, 10, 100) for name in BASELINES),
)


def select(
    name: str,
    num_points: int,
    num_samples: int,
    num_classes: int,
    batch_size: int,
    repeats: int,
) -> dict:
    """Seconds of the first call and of the median one after it, and MiB of memory."""
    inputs, available = _inputs(name, num_points, num_samples, num_classes)
    key, function = jax.random.key(0), bb.catalogue()[name]

    def choose(key: jax.Array, inputs: bb.Inputs) -> bb.CandidateBatch:
        return function.select(
            key, inputs, batch_size=batch_size, available=available, pending=None
        )

    start = time.perf_counter()
    compiled = jax.jit(choose).lower(key, inputs).compile()
    jax.block_until_ready(compiled(key, inputs))
    first_seconds = time.perf_counter() - start
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(key, inputs))
        seconds.append(time.perf_counter() - start)
    needed = compiled.memory_analysis()
    assert needed is not None
    return {
        "first": first_seconds,
        "seconds": statistics.median(seconds),
        "input": sum(leaf.nbytes for leaf in jax.tree.leaves(inputs)) / 2**20,
        "beside": needed.temp_size_in_bytes / 2**20,
    }


def _inputs(
    name: str, num_points: int, num_samples: int, num_classes: int
) -> tuple[bb.Inputs, jax.Array]:
    """Random ones, of what the function requires."""
    keys = iter(jax.random.split(jax.random.key(1), 8))
    everything = jnp.ones(num_points, bool)

    def predictions(num_rows: int) -> jax.Array:
        """Points that are certain to different degrees, and samples that differ."""
        shape = (num_rows, num_samples, num_classes)
        common = 2 * jax.random.normal(next(keys), (num_rows, 1, num_classes))
        return jax.nn.log_softmax(common + jax.random.normal(next(keys), shape))

    if num_samples:
        targets = predictions(NUM_TARGETS) if name == "batch-epig" else None
        return bb.Inputs(predictions(num_points), targets), everything
    if name in BASELINES:
        mean = 2 * jax.random.normal(next(keys), (num_points, num_classes))
        features = jax.random.normal(next(keys), (num_points, NUM_FEATURES))
        labelled = jnp.arange(num_points) < NUM_LABELLED
        inputs = bb.Inputs(None, None, jax.nn.log_softmax(mean), features, labelled)
        return inputs, ~labelled
    rows = [jax.random.normal(next(keys), (n, NUM_FEATURES)) for n in (num_points, NUM_TARGETS)]
    weights = [jax.random.uniform(next(keys), (len(x),), maxval=1 / num_classes) for x in rows]
    posterior = bb.GaussianPosterior(
        rows[0], weights[0], rows[1], weights[1], jnp.int32(num_classes)
    )
    return bb.Inputs(None, gaussian=posterior), everything


def rows_of(answers: dict[Case, dict]) -> Iterator[list[object]]:
    reference = answers[next(iter(answers))]
    for case, answer in answers.items():
        shape = [case.name, case.num_points, case.num_samples or "", case.num_classes]
        if "error" in answer:
            yield [*shape, case.batch_size, answer["error"]]
            continue
        ratio = answer["seconds"] / reference.get("seconds", float("nan"))
        target = verdict = None
        if case.target:
            target = f"≤ {case.target:g} s"
            verdict = reporting.verdict(answer["seconds"], at_most=case.target)
        memory = [round(answer[what]) for what in ("input", "beside")]
        times = [answer["first"], answer["seconds"], ratio]
        yield [*shape, case.batch_size, *times, *memory, target, verdict]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the joint forms and the baselines.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shrink", type=int, default=1, help="Divide N, C and B, for a trial.")
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    answers: dict[Case, dict] = {}
    for case in CASES:
        # A trial's targets would mean nothing.
        if args.shrink > 1:
            case = case._replace(
                num_points=case.num_points // args.shrink,
                num_classes=max(3, case.num_classes // args.shrink),
                batch_size=max(2, case.batch_size // args.shrink),
                target=None,
            )
        arguments = {field: value for field, value in case._asdict().items() if field != "target"}
        answer = answers[case] = reporting.measure(
            Path(__file__), "select", **arguments, repeats=args.repeats
        )
        result = answer.get("error") or f"{answer['seconds']:.3f} s"
        others = f"others: {answer['others_load']:.2f} cores"
        reporting.progress(f"{case.name}, N = {case.num_points:,}: {result} ({others})")

    header = ["function", "N", "K", "C", "B", "first call s", "s", "ratio", "input MiB"]
    reporting.write(
        args.output / "joint_forms.md",
        "# The joint forms and the baselines",
        "Command: `python -m experiments.benchmarks.benchmark_joint_forms`. "
        + reporting.machine("bbald_jax", "jax", "jaxlib"),
        f"s: the median of {args.repeats} calls after a first one, which compiles. Ratio: to the "
        "first line, in the same run. Beside: what the compiled program needs beside its input. "
        f"Batch EPIG has {NUM_TARGETS} targets; closed forms and baselines have {NUM_FEATURES} "
        f"features, and baselines {NUM_LABELLED} labelled points. "
        + reporting.quietness(answers.values()),
        reporting.table([*header, "beside MiB", "target", "verdict"], rows_of(answers)),
    )


if __name__ == "__main__" and not reporting.is_measuring(select):
    main()
