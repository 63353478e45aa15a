"""Two processes that write to one session are killed: what was acknowledged is there, once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbald_jax.labelling.session import Session

#: Loads the library once, and then for each line that it is given forks a process, whose id it
#: prints, and which does as `write` says: asks for the first points that are free, which the others
#: want, too; tells one of them; and writes down what each call had done when it has returned.
WRITERS = """
import os, signal, sys
import numpy as np
import bbald_jax as bb

bb.Session, bb.Acquisition, bb.CandidateBatch  # each is loaded when it is first used

def select(key, inputs, *, batch_size, available, pending):
    indices = np.flatnonzero(available)[:batch_size]  # nothing to be compiled
    return bb.CandidateBatch(indices, indices, indices, diagnostics=None)

def write(path, name, log):
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    first = bb.Acquisition("first", (), select)
    session = bb.Session.open(path)
    while True:
        points = session.ask(None, 3, first, annotator=name).tolist()
        os.write(log, "".join(f"asked {point}\\n" for point in points).encode())
        session.tell(points[:1], [points[0] % 7], annotator=name)
        os.write(log, f"told {points[0]}\\n".encode())

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
for line in sys.stdin:
    process = os.fork()
    if not process:
        try:
            write(*line.rstrip("\\n").split("|"))
        finally:
            os._exit(1)
    print(process, flush=True)
"""
#: Seconds until the writers get on; on a loaded machine they take their time.
PATIENCE = 400


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def kill_two(writers: subprocess.Popen[str], path: Path, number: int, seconds: float) -> list[Path]:
    """Two writers, killed while both are at it; the files in which they wrote what was done."""
    assert writers.stdin is not None
    assert writers.stdout is not None
    names = [f"writer {number} {i}" for i in range(2)]
    logs = [path.with_name(f"{name}.log") for name in names]
    processes = []
    for name, log in zip(names, logs, strict=True):
        print(path, name, log, sep="|", file=writers.stdin, flush=True)
        processes.append(int(writers.stdout.readline()))
    deadline = time.monotonic() + PATIENCE
    try:
        while not all(log.exists() and log.stat().st_size > 100 for log in logs):
            assert all(map(is_alive, processes))
            assert time.monotonic() < deadline, "the writers do not get on"
            time.sleep(0.01)
        time.sleep(seconds)
        assert all(map(is_alive, processes))
    finally:
        for process in filter(is_alive, processes):
            os.kill(process, signal.SIGKILL)
    while any(map(is_alive, processes)):
        time.sleep(0.01)
    return logs


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def check(path: Path, logs: list[Path]) -> int:
    """Nothing that was acknowledged is lost, and no point was handed out twice; the number told."""
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    asked = [int(point) for what, point in lines if what == "asked"]
    told = [int(point) for what, point in lines if what == "told"]
    with Session.open(path) as session:
        handed_out = [event.index for event in session.events("ask")]
        labels = {answer.point: answer.label for answer in session.answers}
        assert len({*handed_out}) == len(handed_out), "handed out twice"
        assert len({*asked}) == len(asked), "handed out twice"
        assert {*asked} <= {*handed_out}, "lost"
        assert all(labels.get(point) == point % 7 for point in told), "lost"
        # Each call is there as a whole, or not at all: three points to an ask.
        numbers = Counter(event.extra["ask"] for event in session.events("ask"))
        assert numbers == dict.fromkeys(range(len(handed_out) // 3), 3)
        # Whoever was killed leaves no lock.
        session.record("note")
    return len(told)


def test_two_writers_are_killed(writers: subprocess.Popen[str], tmp_path: Path):
    path = tmp_path / "labels.db"
    Session.create(path, num_points=3_000, num_classes=7).close()
    assert check(path, kill_two(writers, path, 0, 0)) >= 2


@pytest.mark.slow
def test_two_writers_are_killed_again_and_again(writers: subprocess.Popen[str], tmp_path: Path):
    path, logs, rng = tmp_path / "labels.db", [], random.Random(0)
    Session.create(path, num_points=30_000, num_classes=7).close()
    num_told = 0
    for round_number in range(20):
        logs += kill_two(writers, path, round_number, rng.uniform(0, 0.5))
        num_told = check(path, logs)
    print(f"20 kills, {num_told} labels acknowledged, none lost")
    assert num_told > 20 * 2 * 2
