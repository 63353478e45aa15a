"""One batch of 50, 100 or 200 points at once, for every acquisition function.

    python -m experiments.which_function.one_shot
    python -m experiments.which_function.one_shot --num-samples 1000 --cells digits fashion-graph
    python -m experiments.which_function.tables

The head learns from 20 random labels, the same for all functions; then one batch of 200 is chosen,
and its first 50, 100 and 200 points are labelled. A greedy batch of 50 is the beginning of one of
200; TypiClust, whose clusters depend on the size of the batch, is asked for each size. Seeds 0 to
19. With 1,000 samples one batch of 50.

BatchBALD is asked for 16 points, of which those count that were chosen before its samples were
spent; it goes on by the gains of Gaussian BatchBALD given what is chosen, or at random. The trials
of `batchbald, by rounding` (50 points) are of the library before `select_batchbald` itself went on
at random, which is what it does when it is run now: they cannot be run again.

What is in `results/which_function/one_shot-K.csv` is not run again.
"""

import argparse
import csv
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax import pool as pools
from bbald_jax.acquisition.warnings import num_informed
from bbald_jax.loop import rounds
from bbald_jax.loop.rounds import Data, Loop
from bbald_jax.pool import Labelled
from experiments.which_function import cells, run
from experiments.which_function.run import NUM_TARGETS, OUTPUT, POOL_SIZE, SEEDS, append, find

CELLS = ("digits", "mnist-graph", "fashion-graph", "fashion-hog", "r8")
SIZES = (50, 100, 200)
NUM_FIRST = 20
#: Points that BatchBALD is asked for.
INFORMED = 16

FUNCTIONS = (
    "random",
    "batch-epig-closed",
    "weighted-epig-closed",
    "gaussian-batchbald-closed",
    "margin-map",
    "badge",
    "coreset",
    "bait",
    "typiclust",
    "bald",
    "power-bald",
    "margin",
    "gaussian-batchbald",
    "kbald",
    "batch-epig",
    "batchbald, then gaussian",
    "batchbald, then random",
)
#: Left out with 1,000 samples: minutes a trial.
COSTLY = ("batch-epig", "kbald")
COLUMNS = ("cell", "acquisition", "samples", "seed", "size", "correct", "test", "f1", "informed")


class Shot:
    """One cell and seed: the head after its first labels."""

    def __init__(self, name: str, seed: int, num_samples: int):
        self.cell, self.seed = cells.load(name), seed
        x, y = self.cell.pool(seed, POOL_SIZE)
        x, self.y = jnp.asarray(x), jnp.asarray(y, jnp.int32)
        none = Labelled(jnp.zeros((0, x.shape[1])), jnp.zeros(0, jnp.int32), jnp.int32(0))
        x_test, y_test = jnp.asarray(self.cell.x_test), jnp.asarray(self.cell.y_test)
        self.data = Data(x, self.y, none, x_test, y_test, x[:NUM_TARGETS])
        self.learner = run.learner_of(self.cell.num_classes)
        self.num_samples = num_samples
        # The pool is in random order, and its last points are no targets.
        first = jnp.arange(len(y) - NUM_FIRST, len(y))
        state = rounds.init(
            jax.random.key(seed), self.y, num_classes=self.cell.num_classes, initial_per_class=0
        )
        self.state = rounds.tell(state, first, self.y[first])
        self.learned = rounds.fit(self.loop("random", 1), self.state, self.data)

    def loop(self, name: str, size: int, capacity: int = NUM_FIRST) -> Loop:
        """One acquisition function asked for one batch."""
        return Loop(self.learner, find(name), size, self.num_samples, capacity)

    def choose(self, name: str, size: int, pending: np.ndarray | None = None):
        """A batch, given points that were chosen before."""
        loop, state = self.loop(name, size, max(size, NUM_FIRST)), self.state
        if pending is not None:
            state = state._replace(pool=pools.ask(state.pool, jnp.asarray(pending)))
        narrow = loop._replace(capacity=NUM_FIRST)
        inputs = rounds.predict(narrow, state, self.learned, self.data)
        return rounds.ask(loop, state, inputs)[1]

    def batch(self, name: str, size: int) -> tuple[np.ndarray, int | str]:
        """Indices, and of BatchBALD how many were chosen before its samples were spent."""
        if not name.startswith("batchbald"):
            return np.asarray(self.choose(name, size).indices), ""
        batch = self.choose("batchbald", INFORMED)
        indices = np.asarray(batch.indices)
        remaining = np.asarray(batch.diagnostics.remaining_entropy).tolist()
        informed = num_informed(np.asarray(batch.scores).tolist(), remaining)
        indices = indices[:informed]
        then = "gaussian-batchbald" if name.endswith("gaussian") else "random"
        padded = np.full(size, -1, np.int32)
        padded[:informed] = indices
        rest = np.asarray(self.choose(then, size, padded).indices)
        return np.concatenate([indices, rest])[:size], informed

    def measure(self, indices: np.ndarray) -> tuple[int, int, str]:
        """The head after their labels."""
        state = rounds.tell(self.state, jnp.asarray(indices), self.y[indices])
        loop = self.loop("random", 1, max(SIZES) + NUM_FIRST)
        learned = rounds.fit(loop, state, self.data)
        predicted = np.asarray(self.learner.predict(learned, self.data.x_test)).argmax(axis=1)
        y_test = self.cell.y_test
        f1 = run.macro_f1(y_test, predicted)
        return int((predicted == y_test).sum()), len(y_test), f"{f1:.4f}"


def lines_of(shot: Shot, name: str) -> list[list[object]]:
    """All that is measured of one function."""
    lines = []
    sizes = SIZES[:1] if shot.num_samples > 100 else SIZES
    batches = [shot.batch(name, size) for size in (sizes if name == "typiclust" else sizes[-1:])]
    for size in sizes:
        indices, informed = next(each for each in batches if len(each[0]) >= size)
        row = (shot.cell.name, name, shot.num_samples, shot.seed, size)
        lines.append([*row, *shot.measure(indices[:size]), informed])
    return lines


def finished(path: Path) -> set[tuple[str, str, int]]:
    """Cell, function and seed of what need not be run again."""
    if not path.exists():
        return set()
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["cell"], row["acquisition"], int(row["seed"])) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-samples", type=int, choices=(100, 1000), default=100)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--acquisitions", nargs="+", choices=FUNCTIONS, default=FUNCTIONS)
    parser.add_argument("--num-seeds", type=int, default=len(SEEDS))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"one_shot-{arguments.num_samples}.csv"
    there = finished(path)
    for seed in SEEDS[: arguments.num_seeds]:
        for cell in arguments.cells:
            shot = None
            for name in arguments.acquisitions:
                is_left_out = arguments.num_samples > 100 and name in COSTLY
                if (cell, name, seed) in there or is_left_out:
                    continue
                start = time.perf_counter()
                shot = shot or Shot(cell, seed, arguments.num_samples)
                append(path, lines_of(shot, name), COLUMNS)
                print(cell, name, seed, f"{time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
