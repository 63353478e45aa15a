"""What the tables are made of: trials by name, and paired differences with their intervals."""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

#: Of the intervals, and of what is called a difference.
LEVEL = 0.95


class Value(NamedTuple):
    """What a trial had after some labels: shares, and a number of classes."""

    accuracy: float
    f1: float
    found: float


#: For each function the trials, by seed; of each what it had, by the number of labels.
Trials = dict[str, dict[int, dict[int, Value]]]


def read(path: Path, key: Callable[[dict[str, str]], str]) -> dict[str, Trials]:
    """A file of lines, apart by `key` (the cell, say); nothing where there is no file."""
    apart: dict[str, Trials] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                trial = apart[key(row)][row["acquisition"]][int(row["seed"])]
                labels = int(row["labels"] if "labels" in row else row["size"])
                accuracy = int(row["correct"]) / int(row["test"])
                trial[labels] = Value(accuracy, float(row["f1"]), float(row.get("found", "nan")))
    return apart


def values(trials: Trials, name: str, labels: int, what: str) -> dict[int, float]:
    """By seed."""
    there = trials.get(name, {})
    return {seed: getattr(at[labels], what) for seed, at in there.items() if labels in at}


class Difference(NamedTuple):
    """A paired difference: its mean, and half the width of its interval."""

    mean: float
    half: float
    number: int

    @property
    def sign(self) -> int:
        """1 above, -1 below, 0 where the interval has both."""
        return 0 if not abs(self.mean) > self.half else (1 if self.mean > 0 else -1)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Over the seeds that both have; Student's t. None with fewer than two."""
    seeds = sorted(set(one) & set(other))
    if len(seeds) < 2:
        return None
    apart = np.array([one[seed] - other[seed] for seed in seeds])
    error = apart.std(ddof=1) / math.sqrt(len(seeds))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(seeds) - 1) * error)
    return Difference(float(apart.mean()), half, len(seeds))


def compare(trials: Trials, one: str, other: str, labels: int, what: str) -> Difference | None:
    """`one` less `other` after some labels."""
    return difference(values(trials, one, labels, what), values(trials, other, labels, what))


def labels_needed(trials: Trials, name: str, accuracy: float) -> list[float]:
    """Of each trial, when it first reached an accuracy; infinite where it did not."""
    return [
        min((n for n, value in at.items() if value.accuracy >= accuracy), default=math.inf)
        for at in trials.get(name, {}).values()
    ]


def quartiles(counts: Iterable[float]) -> str:
    """Each one of the trials (inverted CDF)."""
    at = np.quantile(list(counts), (0.25, 0.5, 0.75), method="inverted_cdf")
    words = [f"{count:.0f}" if math.isfinite(count) else "-" for count in at]
    return words[0] if len(set(words)) == 1 else " / ".join(words)
