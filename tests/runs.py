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


def make_line(round_index: int, is_last: bool, trial: int = 0) -> Line:
    """What a round with one point of 597 test points would have left: 100 more right each time."""
    batch = [] if is_last else [round_index]
    return {
        "trial": trial,
        "round": round_index,
        "num_labelled": 20 + round_index,
        "num_acquired": round_index,
        "num_correct": 300 + 100 * round_index,
        "num_test": 597,
        "accuracy": (300 + 100 * round_index) / 597,
        "nll": 1.5,
        "is_last": is_last,
        "indices": batch,
        "classes": batch,
        "scores": [0.5 for _ in batch],
        "gains": [0.5 for _ in batch],
        "remaining_entropy": [0.05 for _ in batch],
        "seconds_fit": 1.0,
        "seconds_predict": 1.0,
        "seconds_select": 1.0,
    }
