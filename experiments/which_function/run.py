"""Which acquisition function for the logistic head: every trial, one line a round.

    python -m experiments.which_function.run --part sweep        # batches of 10, to 200 labels
    python -m experiments.which_function.run --part fifties      # batches of 50, to 200 labels
    python -m experiments.which_function.run --part small        # batches of 2, to 60 labels
    python -m experiments.which_function.run --part rules        # the rules for rare classes
    python -m experiments.which_function.run --part targets-2    # labels in all, pools of 10,000
    python -m experiments.which_function.run --part targets-10
    python -m experiments.which_function.tables

Each trial starts from no label on a pool of its own, the same for all functions; seeds 0 to 19 were
fixed beforehand. A trial that is in `results/which_function/PART.csv` is not run again, so that the
same command goes on where it was interrupted; seeds are run one after the other, all cells and
functions of each, so that what there is can be compared at any time.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import f1_score

from bbald_jax.acquisition import functions
from bbald_jax.acquisition.inputs import Acquisition
from bbald_jax.learning.head import logistic_head
from bbald_jax.loop import rounds
from bbald_jax.loop.rounds import Data, Loop
from bbald_jax.pool import Labelled
from experiments.which_function import cells, rules
from experiments.which_function.cells import Cell

OUTPUT = Path("results", "which_function")
SEEDS = range(20)
POOL_SIZE = 3_000
NUM_SAMPLES = 100
#: Targets of EPIG and batch EPIG: the first points of the pool, which is in random order.
NUM_TARGETS = 200
CONFIGURATIONS = 10_000
#: Rows of the buffer of labels.
CAPACITIES = (50, 100, 200)
COLUMNS = ("cell", "acquisition", "batch", "seed", "labels", "correct", "test", "f1", "found", "s")

CELLS = (*cells.CHOOSE, *cells.CONFIRM)
#: Samples of 20 and more classes take minutes a trial: functions that look at samples are run in
#: the other cells only.
MANY_CLASSES = ("zipf", "newsgroups", "r52")
FEW_CLASSES = tuple(cell for cell in CELLS if cell not in MANY_CLASSES)

CHEAP = (
    "random",
    "margin-map",
    "gaussian-batchbald-closed",
    "batch-epig-closed",
    "weighted-epig-closed",
)
BASELINES = ("badge", "coreset", "bait", "typiclust")
SAMPLED = (
    "batchbald",
    "gaussian-batchbald",
    "batch-epig",
    "bald",
    "power-bald",
    "kbald",
    "margin",
    "epig",
)
SIX = (
    "random",
    "margin",
    "batchbald",
    "badge",
    "gaussian-batchbald-closed",
    "batch-epig-closed",
)


class Part(NamedTuple):
    """Batches of one size, up to so many labels, of some functions in some cells."""

    batch: int
    labels: int
    acquisitions: Sequence[str]
    cells: Sequence[str] = CELLS
    pool_size: int = POOL_SIZE


PARTS = {
    "sweep": [Part(10, 200, CHEAP), Part(10, 200, BASELINES), Part(10, 100, SAMPLED, FEW_CLASSES)],
    "fifties": [
        Part(50, 200, (*CHEAP, *BASELINES)),
        Part(50, 100, SAMPLED, ("digits", "mnist-graph", "fashion-graph", "r8")),
    ],
    "small": [Part(2, 60, SIX, FEW_CLASSES)],
    "rules": [Part(10, 200, tuple(rules.RULES)[1:])],
    "targets-2": [Part(2, 60, CHEAP, ("mnist-graph", "mnist-encoder"), 10_000)],
    "targets-10": [Part(10, 200, CHEAP, ("mnist-graph", "mnist-encoder", "fashion-graph"), 10_000)],
}


class Trial(NamedTuple):
    """What identifies a trial."""

    cell: str
    acquisition: str
    batch: int
    seed: int


def find(name: str) -> Acquisition:
    """From the catalogue, or one of the rules."""
    if name in rules.RULES:
        return rules.RULES[name]
    return functions.find(name, num_configurations=CONFIGURATIONS)


def run(cell: Cell, acquisition: Acquisition, part: Part, seed: int) -> Iterator[list[object]]:
    """The lines of a trial."""
    x, y = cell.pool(seed, part.pool_size)
    none = Labelled(jnp.zeros((0, x.shape[1])), jnp.zeros(0, jnp.int32), jnp.int32(0))
    x, y = jnp.asarray(x), jnp.asarray(y, jnp.int32)
    num_rounds = part.labels // part.batch
    data = Data(x, y, none, jnp.asarray(cell.x_test), jnp.asarray(cell.y_test), x[:NUM_TARGETS])
    learner = learner_of(cell.num_classes)
    loop = Loop(learner, acquisition, part.batch, NUM_SAMPLES, part.labels)
    state = rounds.init(jax.random.key(seed), y, num_classes=cell.num_classes, initial_per_class=0)
    found: set[int] = set()
    for number in range(num_rounds + 1):
        start = time.perf_counter()
        # The same fit and the same samples to rounding, sooner.
        capacity = min(size for size in CAPACITIES if size >= number * part.batch)
        small = loop._replace(capacity=capacity)
        learned = rounds.fit(small, state, data)
        predicted = np.asarray(learner.predict(learned, data.x_test)).argmax(axis=1)
        correct = int((predicted == cell.y_test).sum())
        f1 = macro_f1(cell.y_test, predicted)
        line = [number * part.batch, correct, len(predicted), f"{f1:.4f}", len(found)]
        if number < num_rounds:
            state, batch = rounds.ask(loop, state, rounds.predict(small, state, learned, data))
            labels = rounds.oracle(data, batch.indices)
            state = rounds.tell(state, batch.indices, labels)
            found |= set(np.asarray(labels)[np.asarray(batch.indices) >= 0].tolist())
        seconds = time.perf_counter() - start
        yield [cell.name, acquisition.name, part.batch, seed, *line, f"{seconds:.3f}"]


def macro_f1(classes: np.ndarray, predicted: np.ndarray) -> float:
    """The mean over the classes; 0 for one that is never predicted."""
    return float(f1_score(classes, predicted, average="macro", zero_division=0))  # pyright: ignore


_LEARNERS = {}


def learner_of(num_classes: int):
    """One head for each number of classes, so that nothing is compiled again."""
    return _LEARNERS.setdefault(num_classes, logistic_head(num_classes))


def wanted(part: Part, seeds: Sequence[int]) -> Iterator[Trial]:
    """All trials of a part, a few seeds at a time."""
    for some in (seeds[at : at + 5] for at in range(0, len(seeds), 5)):
        for cell in part.cells:
            for acquisition in part.acquisitions:
                for seed in some:
                    yield Trial(cell, acquisition, part.batch, seed)


def finished(path: Path) -> set[Trial]:
    """What need not be run again."""
    if not path.exists():
        return set()
    with open(path, newline="") as file:
        return {
            Trial(row["cell"], row["acquisition"], int(row["batch"]), int(row["seed"]))
            for row in csv.DictReader(file)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--cells", nargs="+", choices=CELLS)
    parser.add_argument("--acquisitions", nargs="+")
    parser.add_argument("--num-seeds", type=int, default=len(SEEDS))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{arguments.part}.csv"
    for part in PARTS[arguments.part]:
        there = finished(path)
        for trial in wanted(part, SEEDS[: arguments.num_seeds]):
            left_out = (arguments.cells and trial.cell not in arguments.cells) or (
                arguments.acquisitions and trial.acquisition not in arguments.acquisitions
            )
            if trial in there or left_out:
                continue
            start = time.perf_counter()
            lines = list(run(cells.load(trial.cell), find(trial.acquisition), part, trial.seed))
            append(path, lines)
            print(*trial, f"{time.perf_counter() - start:.1f} s", flush=True)


def append(path: Path, lines: list[list[object]], columns: Sequence[str] = COLUMNS) -> None:
    """A whole trial, or nothing of it."""
    is_new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *lines] if is_new else lines)


if __name__ == "__main__":
    main()
