"""Two processes that write to one session are killed: what was acknowledged is there, once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bbald_jax.labelling.session import Session

#: Asks for the first points that are free, which the other one wants, too; tells one of them; and
#: writes down what each call had done when it has returned.
WRITER = """
import os, sys
import jax.numpy as jnp
import bbald_jax as bb

path, name, log = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def select(key, inputs, *, batch_size, available, pending):
    indices = jnp.flatnonzero(available)[:batch_size]
    return bb.CandidateBatch(indices, indices, indices, diagnostics=None)

first = bb.Acquisition("first", (), select)
session = bb.Session.open(path)
while True:
    points = session.ask(None, 3, first, annotator=name).tolist()
    os.write(log, "".join(f"asked {point}\\n" for point in points).encode())
    session.tell(points[:1], [points[0] % 7], annotator=name)
    os.write(log, f"told {points[0]}\\n".encode())
"""


def kill_writers(path: Path, round_number: int, seconds: float) -> list[Path]:
    """Two writers, ended while both are at it; the files in which they wrote down what was done."""
    names = [f"writer {round_number} {i}" for i in range(2)]
    logs = [path.with_name(f"{name}.log") for name in names]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(log)])
        for name, log in zip(names, logs, strict=True)
    ]
    try:
        deadline = time.monotonic() + 120
        while not all(log.exists() and log.stat().st_size > 100 for log in logs):
            assert all(writer.poll() is None for writer in writers)
            assert time.monotonic() < deadline, "the writers do not get on"
            time.sleep(0.01)
        time.sleep(seconds)
    finally:
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        assert {writer.wait() for writer in writers} == {-signal.SIGKILL}
    return logs


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


def test_two_writers_are_killed(tmp_path: Path):
    path = tmp_path / "labels.db"
    Session.create(path, num_points=3_000, num_classes=7).close()
    assert check(path, kill_writers(path, 0, 0)) >= 2


@pytest.mark.slow
def test_two_writers_are_killed_again_and_again(tmp_path: Path):
    path, logs, rng = tmp_path / "labels.db", [], random.Random(0)
    Session.create(path, num_points=30_000, num_classes=7).close()
    for round_number in range(20):
        logs += kill_writers(path, round_number, rng.uniform(0, 0.5))
        num_told = check(path, logs)
    print(f"20 kills, {num_told} labels acknowledged, none lost")
    assert num_told > 20 * 2 * 2
