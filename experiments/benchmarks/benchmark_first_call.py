"""What a person waits for before anything is warm: `bbald`, and the first selection in a notebook.

    python -m experiments.benchmarks.benchmark_first_call

Several rounds, each with a cache folder of its own that is empty at the start: `import jax` alone,
`bbald --help`, `bbald select` on 200 points twice (K = 20, C = 10), and in one more process the
first `select_batchbald` on 2,000 points, by its stages, without a cache. Every measurement is a
process of its own with 2 threads. Writes `results/scoring/first_call.md`.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from experiments.common import reporting

COMMANDS = {
    "`python -c 'import jax'`": ["-c", "import jax"],
    "`bbald --help`": ["-m", "bbald_jax", "--help"],
    "`bbald select`, 200 points, first call": ["-m", "bbald_jax", "select"],
    "`bbald select`, 200 points, second call": ["-m", "bbald_jax", "select"],
}
#: Seconds on the clock, in the median.
AT_MOST = {"`bbald --help`": 0.3, "`bbald select`, 200 points, second call": 1.2}
FIRST = "first `select_batchbald`, 2,000 points"


def command(arguments: list[str], caches: str) -> dict:
    """Seconds of one process, on the clock and of all cores."""
    variables = {"HOME": caches, "XDG_CACHE_HOME": caches, "BBALD_COMPILATION_CACHE": "1"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMP")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env={**others, **variables},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": {"all": (wall, cpu)}}


def first_selection(num_points: int) -> dict:
    """Seconds of the stages of the first selection in a process, on the clock and of all cores."""
    seconds, since = {}, (time.perf_counter(), time.process_time())

    def note(stage: str) -> None:
        nonlocal since
        now = (time.perf_counter(), time.process_time())
        seconds[stage] = tuple(b - a for a, b in zip(since, now, strict=True))
        since = (time.perf_counter(), time.process_time())

    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    note("import jax")
    import numpy as np

    import bbald_jax as bb

    select = bb.select_batchbald
    note("import bbald_jax")
    log_probs = bb.from_probs(predictions(num_points))
    key = jax.block_until_ready(jax.random.key(0))
    note("predictions and key")
    sizes = {"batch_size": 10, "num_configurations": 10_000}
    traced = select.trace(key, log_probs, **sizes)
    note("trace")
    lowered = traced.lower()
    note("lower")
    compiled = lowered.compile()
    note("compile")
    for stage in ("run", "run again"):
        jax.block_until_ready(compiled(key, log_probs))
        note(stage)
    assert np.isfinite(compiled(key, log_probs).scores).all()
    return {"seconds": seconds}


def predictions(num_points: int):
    """`[N, 20, 10]`, probabilities."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(10), size=(num_points, 20)).astype(np.float32)


def round_(points: Path, num_points: int) -> dict[tuple[str, str], dict]:
    """One measurement of everything: by what was measured and by stage, what `measure` returned."""
    answers = {}
    with tempfile.TemporaryDirectory() as caches:
        for name, arguments in COMMANDS.items():
            if "select" in arguments:
                arguments = [*arguments, str(points), "--kind", "probs"]
            answers[name] = reporting.measure(
                Path(__file__), "command", arguments=arguments, caches=caches
            )
    answers[FIRST] = reporting.measure(Path(__file__), "first_selection", num_points=num_points)
    return answers


def spread(values: Iterable[float]) -> str:
    """Median, least and largest."""
    values = [*values]
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what a person waits for at first.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--num-points", type=int, default=2_000, help="of the first selection")
    parser.add_argument("--output", type=Path, default=reporting.RESULTS)
    args = parser.parse_args()

    import numpy as np

    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "probs.npy"
        np.save(points, predictions(200))
        for number in range(args.rounds):
            rounds.append(round_(points, args.num_points))
            reporting.progress(f"round {number + 1} of {args.rounds}")
    rows = []
    for name in rounds[0]:
        for stage in rounds[0][name]["seconds"]:
            walls, cpus = zip(*(answers[name]["seconds"][stage] for answers in rounds), strict=True)
            most = AT_MOST.get(name)
            target = (
                most and f"{most} s: {reporting.verdict(statistics.median(walls), at_most=most)}"
            )
            rows.append(
                [
                    name if stage == "all" else f"{name}: {stage}",
                    spread(walls),
                    spread(cpus),
                    target,
                ]
            )
    quietness = reporting.quietness(answer for answers in rounds for answer in answers.values())
    reporting.write(
        args.output / "first_call.md",
        "# What the first call takes",
        reporting.machine("bbald_jax", "jax", "numpy"),
        f"Seconds, median (least to largest) of {args.rounds} rounds. Random predictions, K = 20, "
        "C = 10, B = 10, M = 10,000: `bbald select` chooses from 200 points, the first "
        f"`select_batchbald` of a process from {args.num_points:,}. The cache folder is empty "
        "before the first call of `bbald select`, and `select_batchbald` compiles without one. "
        f"{quietness}",
        reporting.table(["what", "on the clock", "of all cores", "target"], rows),
    )


if __name__ == "__main__" and not reporting.is_measuring(command, first_selection):
    main()
