"""Sessions of up to a million points: seconds to create, ask, tell and open again.

    python -m experiments.benchmarks.benchmark_session

Each size, with and without names for the points, in a process of its own. All steps are on a file,
and each ends when its content is on the disk. `tell` is called once for each label, as people
answer; `import` takes labels of a tenth of the points in one call. "open" is the first opening
after the file was closed, and checks its structure; "open full", the same with the imported labels
in it. Writes `results/session/session.md`. A minute on 2 quiet cores. To try it: `--scale 10
--output /tmp/session.md`.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bbald_jax as bb
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "session" / "session.md"
SIZES = (10_000, 100_000, 1_000_000)
NUM_CLASSES, BATCH_SIZE, NUM_TOLD, OPEN_SECONDS = 10, 10, 200, 1.0


class Clock:
    """Seconds of each step, on the clock and of this process."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        """Do some work, and keep how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall[step] = time.perf_counter() - wall
        self.cpu[step] = time.process_time() - cpu
        return result


def use(num_points: int, named: bool) -> dict:
    """Seconds of each step in the life of a session."""
    clock = Clock()
    ids = [f"images/{number:08d}.png" for number in range(num_points)] if named else None
    size = None if named else num_points
    _warm_up(num_points)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.db"
        session = clock.time(
            "create",
            lambda: bb.Session.create(path, num_points=size, ids=ids, num_classes=NUM_CLASSES),
        )
        session.close()
        session = clock.time("open", lambda: bb.Session.open(path))
        empty_bytes = path.stat().st_size

        def ask() -> np.ndarray:
            return session.ask(None, BATCH_SIZE, "random")

        asked = [clock.time("ask", ask)]
        while BATCH_SIZE * len(asked) < NUM_TOLD:
            asked.append(ask())
        each = []
        for index in np.concatenate(asked):
            start = time.perf_counter()
            session.tell([index], [index % NUM_CLASSES])
            each.append(time.perf_counter() - start)
        labelled = set(session.labelled.indices.tolist())
        rest = [point for point in range(num_points // 10) if point not in labelled]
        labels = np.arange(len(rest)) % NUM_CLASSES
        clock.time("import", lambda: session.import_labels(rest, labels))
        session.close()
        session = clock.time("open full", lambda: bb.Session.open(path))
        clock.time("ask full", ask)
        found = clock.time("labelled", lambda: session.labelled)
        assert found.indices.size == len(rest) + NUM_TOLD
        session.close()
        full_bytes = path.stat().st_size
    return {
        "wall": clock.wall,
        "cpu": clock.cpu,
        "tell": statistics.median(each),
        "slowest tell": max(each),
        "empty": empty_bytes,
        "full": full_bytes,
        "peak": reporting.peak_bytes(),
    }


def _warm_up(num_points: int) -> None:
    """Compile what `ask` needs: the benchmark is about the session."""
    bb.Session(num_points, NUM_CLASSES).ask(None, BATCH_SIZE, "random")


STEPS = ("create", "open", "ask", "import", "open full", "ask full", "labelled")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time sessions with people who label.")
    parser.add_argument("--scale", type=int, default=1, help="divide the numbers of points by this")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    cases = [(size // args.scale, named) for size in SIZES for named in (False, True)]
    answers = []
    for num_points, named in cases:
        answer = reporting.measure(Path(__file__), "use", num_points=num_points, named=named)
        answers.append(answer)
        reporting.progress(f"{num_points:,} points, {'names' if named else 'no names'}")

    rows, cpu_rows = [], []
    for (num_points, named), answer in zip(cases, answers, strict=True):
        case = [f"{num_points:,}", "names" if named else ""]
        if "error" in answer:
            rows.append([*case, answer["error"]])
            continue
        wall = answer["wall"]
        rows.append(
            [
                *case,
                *(wall[step] for step in STEPS),
                1000 * answer["tell"],
                1000 * answer["slowest tell"],
                reporting.verdict(max(wall["open"], wall["open full"]), at_most=OPEN_SECONDS),
                answer["empty"] / 1e6,
                answer["full"] / 1e6,
                answer["peak"] / 1e9,
            ]
        )
        cpu_rows.append([*case, *(answer["cpu"][step] for step in STEPS)])
    header = ["points", "ids", *STEPS]
    more = ["tell, ms", "slowest, ms", "opens within 1 s", "MB", "MB full", "GB of memory"]
    reporting.write(
        args.output,
        "# Sessions on disk",
        reporting.machine("bbald_jax", "jax")[:-1] + f", SQLite {sqlite3.sqlite_version}.",
        f"Seconds on the clock. ask: {BATCH_SIZE} points, at random, compiled before. tell: one "
        f"label, the median and the slowest of {NUM_TOLD}. import: labels of a tenth of the points "
        "in one call; full: with these in the file. MB: the file. "
        f"{reporting.quietness(answers)}",
        reporting.table([*header, *more], rows),
        "The same in seconds of the processor.",
        reporting.table(header, cpu_rows),
    )


if __name__ == "__main__" and not reporting.is_measuring(use):
    main()
