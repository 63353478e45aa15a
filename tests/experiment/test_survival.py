"""Real processes, killed and interrupted at any moment: what is finished stays, and continues."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
from click.testing import CliRunner

from bbald_jax.cli.main import main
from bbald_jax.experiment import results
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.results import Line

# What compiles fast: the rounds are what is interrupted.
CONFIG = Config(acquisition="random", acquisition_size=3, num_samples=5, num_rounds=12)
LONG = Config(acquisition="random", acquisition_size=3, num_samples=5, num_rounds=60)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first process compiles, the others load."""
    return tmp_path_factory.mktemp("cache")


class Run:
    """A process that runs an experiment in a folder."""

    def __init__(self, folder: Path, cache: Path, config: Config = CONFIG) -> None:
        self.folder = folder
        self.command = [*runs.options(config), f"--output-dir={folder}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bbald_jax", *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A test run in the background ignores SIGINT, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env={
                **os.environ,
                "PYTHONFAULTHANDLER": "1",
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
        )
        self.num_lines_before = self.num_lines()
        self.newest_before = self.newest_state()

    def num_lines(self) -> int:
        return len(results.read_rounds(self.folder))

    def states(self) -> list[str]:
        saved = self.folder / "checkpoints" / "trial_0"
        return os.listdir(saved) if saved.exists() else []

    def newest_state(self) -> int:
        return max((int(name) for name in self.states() if name.isdecimal()), default=0)

    def wait_until(self, is_time: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not is_time():
            if self.process.poll() is not None or time.monotonic() > deadline:
                # Aborted, it says where each of its threads was.
                output, code = self.end(signal.SIGABRT)
                pytest.fail(f"{is_time.__name__} never came, exit code {code}:\n{output}")
            time.sleep(0.002)

    def end(self, number: int | None = None) -> tuple[str, int]:
        """Output and exit code, after a signal or by itself."""
        if number is not None:
            self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=300)
        return output, self.process.returncode

    # The moments at which a process can be hit.

    def has_written_a_line(self) -> bool:
        return self.num_lines() > self.num_lines_before

    def is_saving(self) -> bool:
        # The moment is short, and a busy machine may miss it for a few rounds.
        is_late = self.num_lines() > self.num_lines_before + 2
        is_seen = self.has_written_a_line() and any("tmp" in name for name in self.states())
        return is_late or is_seen

    def has_saved(self) -> bool:
        return self.newest_state() > self.newest_before

    def is_importing(self) -> bool:
        """Whether Ctrl-C is taken care of already; long before the first import has ended."""
        files = Path(f"/proc/{self.process.pid}/fd")
        for number in os.listdir(files):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if int(number) > 2 and os.readlink(files / number).startswith("pipe:"):
                    return True
        return False

    def is_compiling(self) -> bool:
        return (self.folder / "config.json").exists()


def undisturbed(folder: Path, cache: Path, config: Config) -> list[Line]:
    output, code = Run(folder, cache, config).end()
    assert code == 0, output
    return runs.lines_of(folder)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[Line]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), cache, CONFIG)


def kill(run: Run, rng: random.Random, moment: str) -> None:
    if moment == "start":
        time.sleep(rng.uniform(0.1, 3))
    else:
        run.wait_until(getattr(run, moment))
        time.sleep(rng.choice([0, rng.uniform(0, 0.3)]))
    assert run.end(signal.SIGKILL)[1] == -signal.SIGKILL, "it ended before it was killed"


def kill_and_continue(folder: Path, cache: Path, config: Config, num_kills: int) -> str:
    """The output of the last process, which nobody kills."""
    rng = random.Random(num_kills)
    moments = ["has_written_a_line"]  # the run's first round is finished before the first kill
    while len(moments) < num_kills:
        moments += rng.sample(["start", "has_written_a_line", "is_saving", "has_saved"], 4)
    for moment in moments[:num_kills]:
        run = Run(folder, cache, config)
        kill(run, rng, moment)
        assert run.num_lines_before - 1 <= run.num_lines() <= config.num_rounds
    output, code = Run(folder, cache, config).end()
    assert code == 0, output
    return output


def test_a_killed_run_continues_to_the_same_lines(
    tmp_path: Path, cache: Path, expected: list[Line]
):
    output = kill_and_continue(tmp_path, cache, CONFIG, num_kills=3)
    assert "continuing" in output
    assert "damaged" not in output
    assert runs.lines_of(tmp_path) == expected
    assert {"rounds.csv", "learning_curve.png", "acquired.png"} <= set(os.listdir(tmp_path))


@pytest.mark.slow
def test_a_run_killed_twenty_times_continues_to_the_same_lines(tmp_path: Path, cache: Path):
    expected = undisturbed(tmp_path / "undisturbed", cache, LONG)
    kill_and_continue(tmp_path / "killed", cache, LONG, num_kills=20)
    assert runs.lines_of(tmp_path / "killed") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to see when to interrupt")
def test_an_interrupt_at_any_moment_says_how_to_continue(
    tmp_path: Path, cache: Path, expected: list[Line]
):
    for moment in ("is_importing", "is_compiling", "is_saving"):
        run = Run(tmp_path, cache)
        run.wait_until(getattr(run, moment))
        output, code = run.end(signal.SIGINT)
        assert code == 130, (moment, output)
        assert "Traceback" not in output
        last = output.splitlines()[-1]
        assert last.startswith("interrupted; every finished round is kept. To continue: bbald run ")
        assert last.endswith(" ".join(run.command))
    lines = runs.lines_of(tmp_path)
    assert lines
    assert lines == expected[: len(lines)]


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path, cache: Path):
    run = Run(tmp_path, cache)
    run.wait_until((tmp_path / "config.json").exists)
    refused = CliRunner().invoke(main, run.command)
    run.end(signal.SIGKILL)
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert f"{tmp_path} is in use by another process" in line
    with results.locked(tmp_path):  # it died with its process
        pass
