"""What the benchmarks share: measurements in processes of their own, and Markdown reports.

A script measures by calling itself, or another one, in a fresh process: `measure` asks, and
`is_measuring` in that process answers with one line of JSON. Only the standard library is imported
here, since some of those processes run in a virtual environment without bbald_jax.
"""

import datetime
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

NUM_THREADS = 2
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results" / "scoring"

_START = time.monotonic()
# NPROC is what the CPU client of JAX reads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")


def pools(folder: Path) -> list[Path]:
    """The files of the two pools of `scoring_pools.py`, made if they are not there."""
    paths = [folder / "mnist.npy", folder / "synthetic.npy"]
    if not all(path.exists() for path in paths):
        script = ROOT / "experiments" / "benchmarks" / "scoring_pools.py"
        subprocess.run([sys.executable, "-m", module(script), folder], check=True)
    return paths


def progress(text: str) -> None:
    print(f"[{time.monotonic() - _START:6.0f} s] {text}", flush=True)


def module(script: Path | str) -> str:
    """What `python -m` takes for a script of ours, from the root of the repository."""
    return ".".join(Path(script).resolve().relative_to(ROOT).with_suffix("").parts)


def measure(script: Path, what: str, *, python: Path | str = sys.executable, **arguments) -> dict:
    """Call `what(**arguments)` of a script in a process with two threads, and wait for it.

    Returns:
      What the function returned, or `{"error": ...}` when the process failed; and in
      `others_load` how many cores other processes kept busy meanwhile (NaN if not on Linux).
    """
    variables = dict.fromkeys(_THREAD_VARIABLES, str(NUM_THREADS))
    variables |= {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}
    start, busy = time.monotonic(), _busy_seconds() - _children_seconds()
    process = subprocess.run(
        [python, "-m", module(script), "--measure", what, json.dumps(arguments)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    others = _busy_seconds() - _children_seconds() - busy
    answer = {"others_load": others / (time.monotonic() - start)}
    if process.returncode:
        return {**answer, "error": f"failed (exit status {process.returncode})"}
    return {**answer, **json.loads(process.stdout.splitlines()[-1])}


def _busy_seconds() -> float:
    """The time that all cores together have been busy since the start of the machine."""
    if not sys.platform.startswith("linux"):
        return math.nan
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def quietness(answers: Iterable[dict]) -> str:
    """A sentence on how far other processes may have disturbed some measurements."""
    loads = [answer["others_load"] for answer in answers]
    return (
        f"Other processes kept {statistics.mean(loads):.2f} cores busy meanwhile, on average over "
        f"the measurements, {max(loads):.2f} at most."
    )


def is_measuring(*functions: Callable[..., dict[str, Any]]) -> bool:
    """Whether this process was started by `measure`; if so, what it asked for is done."""
    if sys.argv[1:2] != ["--measure"]:
        return False
    what, arguments = sys.argv[2:]
    by_name = {function.__name__: function for function in functions}
    print(json.dumps(by_name[what](**json.loads(arguments))))
    return True


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def machine(*packages: str) -> str:
    """The processor, the date and the versions of some packages, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(": ")[1] for x in lines if x.startswith("model name")), model)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"{model}, {os.cpu_count()} cores, {NUM_THREADS} threads used; {datetime.date.today()}; "
        f"Python {platform.python_version()}, {versions}."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats with four significant digits, short rows filled up."""

    def cell(value: object) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    filled = ([*row, *[None] * (len(header) - len(row))] for row in rows)
    lines = [header, ["---"] * len(header), *filled]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def verdict(value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Whether a target is met, or by how much it is missed."""
    if at_least is not None and not value >= at_least:
        return f"missed by {1 - value / at_least:.0%}"
    if at_most is not None and not value <= at_most:
        return f"missed by {value / at_most - 1:.0%}"
    return "met"


def write(path: Path, *paragraphs: str) -> None:
    """Print a report and write it to a file."""
    text = "\n\n".join(paragraphs) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"\n{text}\nwrote {path}")
