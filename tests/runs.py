"""Runs of the command line, for the tests of what they leave behind."""

from pathlib import Path

from bbald_jax.experiment import results
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.results import Line


def options(config: Config) -> list[str]:
    """The command line of a configuration: `run` and what is not a default."""
    changed = {name: value for name, value in vars(config).items() if value != vars(Config())[name]}
    return ["run", *(f"--{name.replace('_', '-')}={value}" for name, value in changed.items())]


def lines_of(folder: Path) -> list[Line]:
    """What must be the same however often a run was interrupted."""
    return [without_seconds(line) for line in results.read_rounds(folder)]


def without_seconds(line: Line) -> Line:
    assert sum(name.startswith("seconds_") for name in line) == 3
    return {name: value for name, value in line.items() if not name.startswith("seconds_")}
