"""Features from the pool: seconds, memory, and what a linear classifier makes of them.

    python -m experiments.benchmarks.benchmark_features

Each of `bb.image_features`, `bb.graph_features` and `bb.text_features` on a pool of 60,000 points
and 10,000 outside, in a process of its own with 2 threads: MNIST, Fashion-MNIST, and texts that are
made up (`texts` says how). Then scikit-learn's logistic regression (C = 16, no intercept; rows
normalised, half the pool's mean subtracted, normalised again) is fitted to random labels of the
pool, and its accuracy on the points outside is averaged over 10 pools. Writes
`results/features/features.md`.

Linux only. About 10 minutes on 2 quiet cores. To try it: `--num-points 2000 --pools 1 --output
/tmp/features.md`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bbald_jax as bb
from bbald_jax.experiment.feature_files import make_features
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "features" / "features.md"
NUM_POOL, NUM_OUTSIDE = 60_000, 10_000
NUM_LABELS = (10, 20, 50, 100, 200)
SECONDS = 60
#: Points and the kind of features, in the words of `make_features`.
CASES = (
    ("mnist", "image"),
    ("mnist", "image+graph"),
    ("fashion-mnist", "image"),
    ("fashion-mnist", "image+graph"),
    ("texts", "text"),
    ("mnist", "graph"),
)
NUM_TOPICS, NUM_WORDS = 20, 30_000


def texts(num_texts: int) -> tuple[list[str], np.ndarray]:
    """Texts of 20 to 100 words on 20 topics, and their topics.

    A topic has its own order of 30,000 words. Each word of a text comes, with probability 0.3,
    from the order of its topic, else from an order that is common to all; the word at place r with
    a probability in proportion to 1 / (r + 3).
    """
    rng = np.random.default_rng(0)
    shares = 1 / (np.arange(NUM_WORDS) + 3)
    shares /= shares.sum()
    words = np.array([f"word{number}" for number in range(NUM_WORDS)])
    orders = np.stack([rng.permutation(NUM_WORDS) for _ in range(NUM_TOPICS + 1)])
    topics = rng.integers(NUM_TOPICS, size=num_texts)
    lengths = rng.integers(20, 101, size=num_texts)
    places = rng.choice(NUM_WORDS, size=lengths.sum(), p=shares)
    is_common = rng.random(lengths.sum()) >= 0.3
    chosen = orders[np.where(is_common, NUM_TOPICS, topics.repeat(lengths)), places]
    return [" ".join(words[part]) for part in np.split(chosen, lengths.cumsum()[:-1])], topics


def measured(points: str, kind: str, num_points: int, pools: int) -> dict:
    """Seconds on the clock and of all cores, the peak of memory, and accuracies in per cent."""
    if points == "texts":
        x, y = texts(num_points + num_points // 6)
        train, test, y_train, y_test = (
            x[:num_points],
            x[num_points:],
            y[:num_points],
            y[num_points:],
        )
    else:
        data = bb.datasets.load_dataset(points)
        train, y_train = data.x_train[:num_points], data.y_train[:num_points]
        test, y_test = data.x_test[: num_points // 6], data.y_test[: num_points // 6]
    before = reporting.peak_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    pool, outside = make_features(kind, train, test)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = reporting.peak_bytes()
    accuracies = [*_accuracies(_half_centred(pool, outside), (y_train, y_test), pools)]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak,
        "above": peak - before,
        "size": list(pool.shape),
        "accuracies": np.mean(accuracies, axis=0).tolist(),
    }


def _half_centred(*rows: np.ndarray) -> tuple[np.ndarray, ...]:
    units = [_unit(each) for each in rows]
    return tuple(_unit(each - units[0].mean(axis=0) / 2) for each in units)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def _accuracies(
    features: tuple[np.ndarray, ...], labels: tuple[np.ndarray, ...], pools: int
) -> Iterator[list[float]]:
    """For each pool, the accuracy after each number of labels."""
    from sklearn.linear_model import LogisticRegression

    for seed in range(pools):
        order = np.random.default_rng(seed).permutation(len(features[0]))
        fits = (
            LogisticRegression(C=16, fit_intercept=False, max_iter=1000).fit(
                features[0][order[:number]], labels[0][order[:number]]
            )
            for number in NUM_LABELS
        )
        yield [100 * float(fit.score(features[1], labels[1])) for fit in fits]


def report(answers: dict[tuple[str, str], dict], num_points: int, pools: int, path: Path) -> None:
    """Write what is known so far."""
    good = {case: answer for case, answer in answers.items() if "error" not in answer}
    speed = [
        [
            *case,
            answer["size"][1],
            answer["seconds"],
            answer["cpu"],
            reporting.verdict(answer["seconds"], at_most=SECONDS),
            answer["peak"] / 1e9,
            answer["above"] / 1e9,
            answer["others_load"],
        ]
        for case, answer in good.items()
    ]
    accuracy = [[*case, *np.round(answer["accuracies"], 1)] for case, answer in good.items()]
    failures = [
        f"{kind} of {points}: {answers[points, kind]['error']}."
        for points, kind in answers.keys() - good.keys()
    ]
    within = f"within {SECONDS} s"
    reporting.write(
        path,
        "# Features from the pool",
        reporting.machine("bbald_jax", "faiss-cpu", "scikit-image", "scikit-learn", "scipy"),
        f"{num_points} points in the pool, {num_points // 6} outside. Seconds on the clock and of "
        "all cores; GB: the peak of resident memory, and what of it came after the data were "
        "there. Others: how many cores other processes kept busy meanwhile.",
        reporting.table(
            ["points", "kind", "D", "seconds", "CPU s", within, "GB", "GB above", "others"], speed
        ),
        "## Accuracy from random labels",
        f"Logistic regression (C = 16), in per cent on the points outside, mean of {pools} pools, "
        "after so many labels.",
        reporting.table(["points", "kind", *map(str, NUM_LABELS)], accuracy),
        *failures,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=f"{__doc__}".partition("\n")[0])
    parser.add_argument("--num-points", type=int, default=NUM_POOL)
    parser.add_argument("--pools", type=int, default=10)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    answers: dict[tuple[str, str], dict] = {}
    for points, kind in CASES:
        reporting.progress(f"{kind} of {points}")
        answers[points, kind] = reporting.measure(
            Path(__file__),
            "measured",
            points=points,
            kind=kind,
            num_points=options.num_points,
            pools=options.pools,
        )
        report(answers, options.num_points, options.pools, options.output)


if __name__ == "__main__" and not reporting.is_measuring(measured):
    main()
