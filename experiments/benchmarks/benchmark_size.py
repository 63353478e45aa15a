"""BatchBALD at sizes where the peers do not fit: seconds, and memory beside the formula.

    python -m experiments.benchmarks.benchmark_size

Selects with M = 10,000 from random linear-softmax models over 8 features, the hardest case (the K
samples are soon told apart), each size in a process of its own with 2 threads. Writes
`results/scoring/size.md`. `--scale 100` divides N and M by 100, to try the script.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import bbald_jax as bb
from experiments.common import reporting

NUM_FEATURES, NUM_CONFIGURATIONS, MEMORY_TARGET = 8, 10_000, 24e9


class Size(NamedTuple):
    """The sizes of one selection, by the letters of the library."""

    N: int
    K: int
    C: int
    B: int


SIZES = (
    Size(N=10_000, K=20, C=10, B=10),
    Size(N=100_000, K=20, C=10, B=10),
    Size(N=1_000_000, K=20, C=10, B=10),
    Size(N=20_000, K=10, C=1_000, B=10),
    Size(N=10_000, K=1_000, C=10, B=50),
    Size(N=2_000, K=1_000, C=10, B=100),
)


def expected_bytes(size: Size, num_configurations: int) -> int:
    """The formula in the docstring of `select_batchbald`, and the input, in float32."""
    N, K, C, _ = size
    beside = 2 * N * K * (C + 1) + 6 * num_configurations * (K + C)
    return 4 * (beside + N * K * C)


@partial(jax.jit, static_argnums=(1, 2, 3))
def random_pool(key, N: int, K: int, C: int):
    """`[N, K, C]` log-probabilities, made a chunk at a time: only the result is large."""
    weight_key, point_key = jax.random.split(key)
    weights = jax.random.normal(weight_key, (K, NUM_FEATURES, C))
    chunk = math.gcd(N, 1_000)

    def make_chunk(chunk_key):
        x = jax.random.normal(chunk_key, (chunk, NUM_FEATURES))
        return jax.nn.log_softmax(jnp.einsum("nd,kdc->nkc", x, weights), axis=-1)

    return lax.map(make_chunk, jax.random.split(point_key, N // chunk)).reshape(N, K, C)


def select(N: int, K: int, C: int, B: int, num_configurations: int) -> dict:
    """Seconds and bytes of one selection; `start`: the peak before there is any input."""
    key = jax.random.key(0)
    start = time.perf_counter()
    compiled = bb.select_batchbald.lower(
        key,
        jax.ShapeDtypeStruct((N, K, C), jnp.float32),
        batch_size=B,
        num_configurations=num_configurations,
    ).compile()
    compile_seconds = time.perf_counter() - start
    start_bytes = reporting.peak_bytes()
    log_probs = jax.block_until_ready(random_pool(key, N, K, C))
    start = time.perf_counter()
    batch = jax.block_until_ready(compiled(key, log_probs))
    return {
        "seconds": time.perf_counter() - start,
        "compile": compile_seconds,
        "start": start_bytes,
        "peak": reporting.peak_bytes(),
        "score": float(batch.scores[-1]),
        "work_fraction": float(batch.diagnostics.work_fraction),
        "num_filled": int(jnp.sum(batch.indices >= 0)),
    }


def row(size: Size, num_configurations: int, answer: dict) -> list[object]:
    if "error" in answer:
        return [*size, answer["error"]]
    return [
        *size,
        answer["seconds"],
        answer["compile"],
        f"{answer['work_fraction']:.1%}",
        (answer["peak"] - answer["start"]) / 1e9,
        expected_bytes(size, num_configurations) / 1e9,
        answer["peak"] / 1e9,
        reporting.verdict(answer["peak"], at_most=MEMORY_TARGET),
        f"{answer['num_filled']}, {answer['score']:.3f} of {math.log(size.K):.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time BatchBALD at large sizes.")
    parser.add_argument("--scale", type=int, default=1, help="divide N and M by this")
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    num_configurations = NUM_CONFIGURATIONS // args.scale
    sizes = [size._replace(N=size.N // args.scale) for size in SIZES]
    answers = []
    for size in sizes:
        request = {**size._asdict(), "num_configurations": num_configurations}
        answer = reporting.measure(Path(__file__), "select", **request)
        answers.append(answer)
        result = answer.get("error") or f"{answer['seconds']:.1f} s, {answer['peak'] / 1e9:.2f} GB"
        reporting.progress(f"{size}: {result}")

    header = ["N", "K", "C", "B", "seconds", "compile s", "work", "GB", "formula GB"]
    header += ["GB in all", "within 24 GB", "points chosen, score of log K"]
    reporting.write(
        args.output / "size.md",
        "# BatchBALD at large sizes",
        reporting.machine("bbald_jax", "jax"),
        f"M = {num_configurations:,}. Seconds without compilation. GB: the peak of "
        "resident memory, input included, above that after compilation, without input; beside it "
        f"the formula. GB in all: the process. {reporting.quietness(answers)}",
        reporting.table(
            header,
            [
                row(size, num_configurations, answer)
                for size, answer in zip(sizes, answers, strict=True)
            ],
        ),
    )


if __name__ == "__main__" and not reporting.is_measuring(select):
    main()
