"""What a round of the logistic head costs: seconds and memory at up to a million embeddings.

    python -m experiments.head.costs [--most 10000]

Embeddings of 512 dimensions: random directions around one centre a class, which is what it costs,
not what it is worth. 200 labels; K = 100 posterior samples for 10 classes, 20 for 1,000. Each size
in a process of its own, so that its peak memory is its own. `fit`, `sample` and the selections run
once to be compiled, and then once to be timed.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "head" / "costs.md"
NUM_FEATURES, NUM_LABELS, BATCH_SIZE = 512, 200, 10
#: N, C, K
SIZES = (
    (10_000, 10, 100),
    (100_000, 10, 100),
    (1_000_000, 10, 100),
    (10_000, 1_000, 20),
    (100_000, 1_000, 20),
)


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Of the second call, and what it returned."""
    jax.block_until_ready(function())
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def make_embeddings(num_points: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """`[N, D]` float32 and classes; made in place, so that nothing else sets the peak."""
    rng = np.random.default_rng(0)
    classes = rng.integers(num_classes, size=num_points, dtype=np.int32)
    x = rng.standard_normal((num_points, NUM_FEATURES), np.float32)
    centres = 2 * rng.standard_normal((num_classes, NUM_FEATURES), np.float32)
    for start in range(0, num_points, 10_000):
        x[start : start + 10_000] += centres[classes[start : start + 10_000]]
    return x, classes


def round_of(num_points: int, num_classes: int, num_samples: int) -> dict[str, float]:
    """Seconds and gigabytes of one size."""
    pool, classes = make_embeddings(num_points, num_classes)
    x = jnp.asarray(pool)
    del pool
    learner: Any = bb.logistic_head(num_classes)
    key = jax.random.key(0)
    examples = jnp.asarray(classes[:NUM_LABELS])
    labelled = bb.pool.Labelled(x[:NUM_LABELS], examples, jnp.int32(NUM_LABELS))
    before = reporting.peak_bytes()
    found = {"init": seconds(lambda: learner.init(key, x))[0]}
    start = learner.init(key, x)
    found["fit"], state = seconds(lambda: learner.fit(key, start, labelled, labelled))
    found["predict"], _ = seconds(lambda: learner.predict(state, x))
    found["gaussian"], posterior = seconds(lambda: learner.gaussian(state, x, x[:200]))
    found["closed EPIG"], _ = seconds(
        lambda: bb.select_batch_epig_closed(posterior, batch_size=BATCH_SIZE)
    )
    del posterior
    found["closed peak"] = (reporting.peak_bytes() - before) / 1e9
    # Twice as many predictions would be held if the first were not let go.
    jax.block_until_ready(learner.sample(key, state, x[:5_000], num_samples))
    clock = time.perf_counter()
    log_probs = jax.block_until_ready(learner.sample(key, state, x, num_samples))
    found["sample, first call"] = time.perf_counter() - clock
    found["BALD"], _ = seconds(lambda: bb.select_bald(log_probs, batch_size=BATCH_SIZE))
    if num_classes <= 10:
        found["BatchBALD"], _ = seconds(
            lambda: bb.select_batchbald(key, log_probs, batch_size=BATCH_SIZE)
        )
    found["predictions"] = log_probs.nbytes / 1e9
    found["peak"] = (reporting.peak_bytes() - before) / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1_000_000, help="the largest pool")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    columns = {
        "init": "mean of the pool, s",
        "fit": "fit, s",
        "predict": "predict (MAP), s",
        "gaussian": "Gaussian posterior, s",
        "closed EPIG": "select batch EPIG (closed, 200 targets), s",
        "closed peak": "memory so far, GB",
        "sample, first call": "sample, s (compiling included)",
        "BALD": "select BALD, s",
        "BatchBALD": "select BatchBALD, s",
        "predictions": "predictions, GB",
        "peak": "memory in all, GB",
    }
    rows, answers = [], []
    for num_points, num_classes, num_samples in SIZES:
        if num_points > arguments.most:
            continue
        answer = reporting.measure(
            Path(__file__),
            "round_of",
            num_points=num_points,
            num_classes=num_classes,
            num_samples=num_samples,
        )
        answers.append(answer)
        reporting.progress(f"{num_points:,} points, {num_classes} classes: {answer}")
        cells = [answer.get(name) for name in columns]
        if "error" in answer:
            cells = [answer["error"]]
        rows.append([f"{num_points:,}", num_classes, num_samples, *cells])
    reporting.write(
        arguments.output,
        "# What a round of the logistic head costs",
        f"Made by `python -m experiments.head.costs`: embeddings of {NUM_FEATURES} dimensions, "
        f"{NUM_LABELS} labels, batches of {BATCH_SIZE}. Memory is the peak of the process beyond "
        "what it held with the embeddings in place; they are 2 GB for each million points. With "
        "1,000 classes BatchBALD is not timed here (128 s for 10 of 20,000 points in an earlier "
        "measurement).",
        reporting.table(["N", "C", "K", *columns.values()], rows),
        reporting.quietness(answers),
        reporting.machine("jax", "jaxlib", "bbald_jax"),
    )


if __name__ == "__main__":
    if not reporting.is_measuring(round_of):
        main()
