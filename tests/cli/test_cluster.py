"""A command on several processes: which options go together, and what is said of a lost one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from runs import lines_of
from several_devices import with_devices

from bbald_jax.cli import cluster
from bbald_jax.cli.main import main
from bbald_jax.experiment.results import Line

LOST = "bbald: another process of the cluster has ended or no longer answers"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-processes=2"], "go with --coordinator"),
        (["--process-id=0", "--coordinator=auto"], "go with --coordinator"),
        (["--coordinator=here", "--num-processes=2", "--process-id=0"], "not HOST:PORT"),
        (["--coordinator=here:1", "--num-processes=2"], "needs --num-processes and --process-id"),
        (["--coordinator=here:1", "--num-processes=2", "--process-id=2"], "numbers 0 to 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], words: str):
    result = CliRunner().invoke(main, ["run", *options])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


FATAL = (
    "F1124 18:36:39.870997   30664 client.h:80] Terminating process because the JAX distributed "
    "service detected fatal errors. This most likely indicates that another task died\\n"
    "*** Check failure stack trace: ***\\n"
)


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (
            f"print('before\\n{FATAL}', file=sys.stderr); os.abort()",
            cluster.LOST,
            "before\n" + LOST,
        ),
        (f"sys.exit({cluster.LOST})", cluster.LOST, LOST),
        (
            f"print('{FATAL}RPC: /x/RegisterTask', file=sys.stderr); os.abort()",
            cluster.LOST,
            "bbald: not all processes of the cluster came together in time",
        ),
        ("sys.exit('Error: refused')", 1, "Error: refused\n"),
        ("print('F1124 other'); os.kill(os.getpid(), 9)", 128 + 9, ""),
        ("pass", 0, ""),
    ],
)
def test_the_end_of_the_worker_is_told_in_one_line(
    program: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    class Worker(subprocess.Popen):
        def __init__(self, command: list[str], **kwargs: object) -> None:
            assert command[1:3] == ["-m", "bbald_jax"]
            super().__init__([sys.executable, "-Sc", f"import os, sys; {program}"], **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Worker)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert cluster._watch("run it again") == code
    finally:
        signal.signal(signal.SIGINT, handler)
    stderr = capfd.readouterr().err
    assert stderr.startswith(said)
    assert stderr.count("\n") == said.count("\n") + (code == cluster.LOST)
    assert ("run it again" in stderr) == (LOST in stderr)


# --- real processes


def free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return there.getsockname()[1]


def start(
    *options: str,
    num_processes: int = 2,
    num_devices: int = 1,
    own: Sequence[Sequence[str]] = ((), ()),
) -> list[subprocess.Popen[str]]:
    numbers = f"--coordinator=127.0.0.1:{free_port()}", f"--num-processes={num_processes}"
    return [
        subprocess.Popen(
            [sys.executable, "-m", "bbald_jax", *options, *own[i], *numbers, f"--process-id={i}"],
            env=with_devices(num_devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(num_processes)
    ]


def alone(*options: str, num_devices: int = 1) -> str:
    command = [sys.executable, "-m", "bbald_jax", *options]
    return subprocess.run(
        command,
        env=with_devices(num_devices),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    ).stdout


def sorted_lines(folder: Path) -> list[Line]:
    return sorted(lines_of(folder), key=lambda line: (line["trial"], line["round"]))


RUN = ("run", "--learner=logistic-head", "--acquisition=bald", "--num-samples=10")
RUN += ("--num-trials=2", "--num-rounds=8", "--no-baseline")


@pytest.mark.slow  # two minutes
def test_a_run_on_two_processes_survives_the_loss_of_one(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    alone(*RUN, f"--output-dir={whole}")

    first, second = start(*RUN, f"--output-dir={cut}")
    while len(lines_of(cut) if cut.exists() else []) < 4:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)  # its worker notices
    stdout, stderr = first.communicate(timeout=120)
    assert first.returncode == os.EX_TEMPFAIL, (stdout, stderr)
    waiting, _, lost = stderr.splitlines()
    assert waiting.startswith("process 0 of 2: waiting for all at 127.0.0.1:")
    assert lost.startswith(LOST)
    assert lost.endswith("run the same commands again to continue")
    assert 4 <= len(lines_of(cut)) < 18
    assert not (cut / "rounds.csv").exists()

    for process in start(*RUN, f"--output-dir={cut}"):
        stdout, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
        assert "Gloo" not in stdout
    assert (cut / "learning_curve.png").exists()
    found, expected = sorted_lines(cut), sorted_lines(whole)
    assert len(found) == len(expected) == 18
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=0, abs=1e-6), name


SELECT = ("--kind=logits", "--batch-size=5", "--num-configurations=300")


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, str]:
    """A command line, the folder for what it writes, and what it says on a single device."""
    folder = tmp_path_factory.mktemp("selection")
    rng = np.random.default_rng(0)
    np.save(folder / "p.npy", 2 * rng.normal(size=(1003, 8, 3)).astype(np.float32))
    (folder / "pending.txt").write_text("7\n900\n")
    command = ["select", f"{folder / 'p.npy'}", f"--pending={folder / 'pending.txt'}", *SELECT]
    return command, folder, alone(*command, f"--output={folder / 'alone.csv'}")


@pytest.mark.slow  # half a minute
def test_a_selection_on_eight_devices_is_that_of_one(selection: tuple[list[str], Path, str]):
    command, folder, expected = selection
    found = alone(*command, "--devices=8", f"--output={folder / 'eight.csv'}", num_devices=8)
    assert found.replace("eight.csv", "alone.csv") == expected
    assert (folder / "eight.csv").read_text() == (folder / "alone.csv").read_text()


@pytest.mark.slow  # half a minute
def test_a_selection_on_two_processes_is_that_of_one(selection: tuple[list[str], Path, str]):
    command, folder, expected = selection
    names = [folder / "first.csv", folder / "second.csv"]
    processes = start(*command, num_devices=2, own=[[f"--output={name}"] for name in names])
    (first, _), (second, _) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert first.replace("first.csv", "alone.csv") == expected
    assert second == ""
    assert names[0].read_text() == (folder / "alone.csv").read_text()
    assert not names[1].exists()


@pytest.mark.slow  # half a minute
@pytest.mark.parametrize("victim", [0, 1])
def test_a_selection_that_lost_a_process_can_be_run_again(
    victim: int, selection: tuple[list[str], Path, str]
):
    command, _, _ = selection
    processes = start(*command)
    killed, other = processes[victim], processes[1 - victim]
    assert killed.stderr is not None
    while "all are here" not in killed.stderr.readline():
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)  # while both compile
    _, stderr = other.communicate(timeout=120)
    assert other.returncode == os.EX_TEMPFAIL, stderr
    waiting, here, lost = stderr.splitlines()
    assert "waiting for all" in waiting
    assert here == f"process {1 - victim} of 2: all are here, with 2 devices"
    assert lost.startswith(LOST)
    assert lost.endswith("; a selection depends on its inputs only: run the same commands again")


@pytest.mark.slow  # a minute
def test_trials_on_three_devices_leave_the_files_of_one(tmp_path: Path):
    options = [*RUN, "--learner=dropout-network", "--num-trials=3", "--num-rounds=1"]
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    alone(*options, f"--output-dir={whole}")
    assert "3 trials on 3 devices" in alone(*options, f"--output-dir={spread}", num_devices=3)
    assert {path.name for path in spread.iterdir()} == {path.name for path in whole.iterdir()}
    assert sorted_lines(spread) == sorted_lines(whole)
    assert "3 trials on" not in alone(*options, f"--output-dir={spread}", "--devices=1")
    # Extended on one device: the states are those that one device would have left.
    longer = [*options, "--num-rounds=2"]
    alone(*longer, f"--output-dir={spread}")
    alone(*longer, f"--output-dir={whole}", num_devices=3)
    assert sorted_lines(spread) == sorted_lines(whole)
