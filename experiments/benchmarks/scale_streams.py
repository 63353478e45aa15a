"""What a selection costs whose predictions are read from a file piece by piece.

    python -m experiments.benchmarks.scale_streams

Files of float16 predictions of a random linear-softmax model (K = 20, C = 10) on disk, in
`--folder`, removed afterwards; beside each the time of `cat FILE > /dev/null` and, where it fits,
the selection in memory. Each selection is in a process of its own, with two threads, after one
of a small file that compiles everything. Writes `results/scale/streams.md`. `--scale 100` divides N
by 100, to try the script.
"""

import argparse
import contextlib
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import bbald_jax as bb
from experiments.common import reporting

SIZES = (100_000, 1_000_000, 10_000_000)
NUM_SAMPLES, NUM_CLASSES, NUM_FEATURES, BATCH_SIZE = 20, 10, 16, 10
# In memory, the predictions in float32 and what is made of them take three times as much.
MOST_IN_MEMORY = 1_000_000
# Points of the file that compiles everything: more than the buffer holds, so that it is verified.
NUM_FIRST = 60_000
TARGET = 6.0
RESULTS = reporting.RESULTS.parent / "scale"


def write_predictions(path: Path, num_points: int) -> None:
    """A `.npy` of log-probabilities, 50,000 points at a time."""
    rng = np.random.default_rng(0)
    shared = 0.7 * rng.standard_normal((NUM_FEATURES, 1, NUM_CLASSES))
    own = 0.4 * rng.standard_normal((NUM_FEATURES, NUM_SAMPLES, NUM_CLASSES))
    weights = (shared + own).reshape(NUM_FEATURES, -1).astype(np.float32)
    shape = (num_points, NUM_SAMPLES, NUM_CLASSES)
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, num_points, 50_000):
            size = min(50_000, num_points - start)
            inputs = rng.standard_normal((size, NUM_FEATURES), np.float32)
            logits = (inputs @ weights).reshape(size, *shape[1:])
            logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
            file.write(logits.astype(np.float16).tobytes())


@contextlib.contextmanager
def anonymous_memory() -> Iterator[list[int]]:
    """The peak of the memory that is this process's own, in bytes, in a list when it is over."""
    peak, is_over, answer = 0, threading.Event(), []

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.02):
            text = Path("/proc/self/smaps_rollup").read_text()
            peak = max(peak, 1024 * int(re.findall(r"Anonymous: *(\d+) kB", text)[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    yield answer
    is_over.set()
    thread.join()
    answer.append(peak)


def stream(path: str, first: str) -> dict:
    """Seconds, CPU seconds and memory of a streamed selection, by pass."""
    marks: list[tuple[int, float, float]] = []

    def progress(at) -> None:
        if at.num_read == at.num_points:
            marks.append((at.num_pass, time.perf_counter(), time.process_time()))

    def select(path: str) -> bb.CandidateBatch:
        return bb.select_stream(jax.random.key(0), path, batch_size=BATCH_SIZE, progress=progress)

    select(first)
    marks.clear()
    with anonymous_memory() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        batch = jax.block_until_ready(select(path))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu": cpu_seconds,
        "first": marks[0][1] - start,
        "first_cpu": marks[0][2] - cpu,
        "passes": int(batch.diagnostics.num_passes),
        "verified": int(batch.diagnostics.num_verified),
        "peak": peak[0],
        "indices": batch.indices.tolist(),
    }


def in_memory(path: str, first: str) -> dict:
    """The same selection by `bb.select_batchbald`, checks and conversion included."""
    select = lambda array: bb.select_batchbald(  # noqa: E731
        jax.random.key(0), bb.check_log_probs(array), batch_size=BATCH_SIZE
    )
    mapped = np.load(path, mmap_mode="r")
    jax.block_until_ready(select(mapped))  # compiles for this N
    with anonymous_memory() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        batch = jax.block_until_ready(select(mapped))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    answer = {"seconds": seconds, "cpu": cpu_seconds, "peak": peak[0]}
    return answer | {"indices": batch.indices.tolist()}


def seconds_to_read(path: Path) -> float:
    start = time.perf_counter()
    with path.open("rb") as file:
        subprocess.run(["cat"], stdin=file, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def write_report(path: Path, rows: list[list[object]], answers: list[dict]) -> None:
    """After each size, so that an interrupted run leaves what it has."""
    header = ["N", "GB", "`cat` s", "streamed s", "CPU s", "pass 1, CPU s a GB"]
    header += ["the rest, CPU s a GB", f"{TARGET:g} s a GB", "passes", "verified picks", "MB"]
    header += ["in memory s", "CPU s ", "MB ", "same batch"]
    reporting.write(
        path,
        "# Selections from files that are read piece by piece",
        reporting.machine("bbald_jax", "jax"),
        f"BatchBALD, M = 10,000, B = {BATCH_SIZE}, K = {NUM_SAMPLES}, C = {NUM_CLASSES}, float16, "
        "buffer of 50,000 points. Seconds without compilation; the rest is the guess in the buffer "
        "and the verification. MB: the peak of the process's own memory (the cache of the file "
        "system is not its own). In memory: checks and conversion to float32 included. "
        f"{reporting.quietness(answers)}",
        reporting.table(header, rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time streamed selections.")
    parser.add_argument("--scale", type=int, default=1, help="divide N by this")
    parser.add_argument("--folder", type=Path, help="where the files are, meanwhile")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()

    rows, answers = [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        first, path = Path(folder, "first.npy"), Path(folder, "predictions.npy")
        write_predictions(first, NUM_FIRST)
        for num_points in (size // args.scale for size in SIZES):
            write_predictions(path, num_points)
            size = path.stat().st_size / 1e9
            reading = seconds_to_read(path)
            script = Path(__file__)
            answer = reporting.measure(script, "stream", path=str(path), first=str(first))
            beside = {}
            if num_points <= MOST_IN_MEMORY:
                beside = reporting.measure(script, "in_memory", path=str(path), first=str(first))
            answers += [answer, beside] if beside else [answer]
            if "error" in answer:
                rows.append([num_points, size, reading, answer["error"]])
                continue
            is_same = None
            if "indices" in beside:
                is_same = "yes" if beside["indices"] == answer["indices"] else "no"
            rows.append(
                [
                    f"{num_points:,}",
                    size,
                    reading,
                    answer["seconds"],
                    answer["cpu"],
                    answer["first_cpu"] / size,
                    (answer["cpu"] - answer["first_cpu"]) / size,
                    reporting.verdict(answer["seconds"] / size, at_most=TARGET),
                    answer["passes"],
                    answer["verified"],
                    answer["peak"] / 1e6,
                    beside.get("seconds"),
                    beside.get("cpu"),
                    beside["peak"] / 1e6 if "peak" in beside else None,
                    is_same,
                ]
            )
            reporting.progress(f"{num_points:,} points: {answer['seconds']:.1f} s")
            path.unlink()
            write_report(args.output / "streams.md", rows, answers)


if __name__ == "__main__" and not reporting.is_measuring(stream, in_memory):
    main()
