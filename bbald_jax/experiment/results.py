"""The results folder: a configuration, one line a round, and reading both back.

`config.json` holds the complete configuration and the versions it ran with; `rounds.jsonl` one
JSON object a round, written as the round ends. A run can be extended: what is there must be the
first part of what is asked for.
"""

import csv
import fcntl
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from bbald_jax.files import finite, write_atomically

CONFIG, ROUNDS, TABLE, LOCK = "config.json", "rounds.jsonl", "rounds.csv", "lock"

#: Settings that say only when a run ends.
_ENDS = ("num_rounds", "num_trials", "target_accuracy")

#: The name in the configuration of what tells that a user's own data set has changed.
DIGEST = "dataset_sha256"

#: Settings that older folders do not have, and what they were run with.
_CAME_LATER = {"learner": "dropout-network", "features": "none"}

Line = dict[str, Any]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _are(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


#: What every line has, and what it must be.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("trial", "round", "num_labelled", "num_acquired"), _is_count),
    **dict.fromkeys(("num_correct", "num_test"), _is_count),
    "accuracy": _is_number,
    "nll": _is_number_or_null,
    "is_last": lambda value: isinstance(value, bool),
    **dict.fromkeys(("indices", "classes"), _are(_is_count)),
    **dict.fromkeys(("scores", "gains", "remaining_entropy"), _are(_is_number_or_null)),
    **dict.fromkeys(("seconds_fit", "seconds_predict", "seconds_select"), _is_number),
}


class ResultsError(ValueError):
    """A results folder cannot be used as asked; the message says why and what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a results folder; the lock dies with its process.

    Args:
      folder: made if it is not there.

    Raises:
      ResultsError: another process works there, or it is no results folder.
    """
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"{folder} is in use by another process; wait for it to end, or give another "
                "--output-dir."
            ) from None
        yield


def open_folder(folder: Path, config: Line, environment: Line) -> bool:
    """Start a results folder, or find that it already holds a run of this configuration.

    A folder without a finished round has nothing to lose: it is started anew. A run of another
    length (`num_rounds`, `num_trials`, `target_accuracy`) is extended: it keeps its rounds, and
    from then on it is of this configuration.

    Args:
      folder: made if it is not there.
      config: the complete configuration; all else of it must agree.
      environment: versions and device, recorded but not compared.

    Returns:
      Whether the folder already holds finished rounds of this run.

    Raises:
      ResultsError: the folder holds a run of another configuration (the differences are named),
        or on a data set that has been changed since,
        rounds that a run of this length would not have had, or other files.
    """
    _refuse_foreign(folder)
    if lines := read_rounds(folder):
        there = {name: usual for name, usual in _CAME_LATER.items() if name in config}
        there |= read_config(folder)
        if there.get(DIGEST) and there.get(DIGEST) == config.get(DIGEST):
            there["dataset"] = config["dataset"]  # the same points, wherever they lie now
        differences = {
            name: f"{name} is {there.get(name)!r} there and {config.get(name)!r} now"
            for name in sorted({*there, *config})
            if there.get(name) != config.get(name)
        }
        if DIGEST in differences and "dataset" not in differences:
            raise ResultsError(
                f"{folder} holds a run on another content of {config['dataset']}, which has been "
                f"changed since (sha256 {there.get(DIGEST)} there and {config.get(DIGEST)} now). "
                "Give another --output-dir, or put back what it was."
            )
        if others := [text for name, text in differences.items() if name not in _ENDS]:
            raise ResultsError(
                f"{folder} holds a run of another configuration: {'; '.join(others)}. "
                "Give another --output-dir, or the options of that run."
            )
        if differences:
            _extend(folder, lines, config)
        return True
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, config, environment)
    return False


def _extend(folder: Path, lines: list[Line], config: Line) -> None:
    """Make a run one of another length, whose first part is there already.

    The last round of a trial acquired nothing; where the trial now goes on, its line is taken out,
    and the round is run again from the state before it, as an ordinary one. A kill before the
    configuration is written leaves a run of the old length without such lines, which either
    command completes.
    """
    for line in lines:
        if problem := _surplus(line, config):
            raise ResultsError(
                f"{folder} holds {problem}; a run can be extended, not shortened. Give another "
                "--output-dir, or the options of that run."
            )
    (folder / TABLE).unlink(missing_ok=True)  # which has it drawn again
    write_rounds(folder, [line for line in lines if not line["is_last"] or _is_end(line, config)])
    _write_config(folder, config, read_environment(folder))


def _surplus(line: Line, config: Line) -> str | None:
    """What of a round a run of this length would not have had."""
    trial, index = line["trial"], line["round"]
    where = f"round {index} of trial {trial}"
    if trial >= config["num_trials"]:
        return f"{where}, and --num-trials is {config['num_trials']} now"
    if index > config["num_rounds"] - (not line["is_last"]):
        return f"{where}, and --num-rounds is {config['num_rounds']} now"
    if not line["is_last"] and _has_reached_target(line, config):
        return (
            f"{where}, which reached {line['accuracy']:.2%} and went on, and --target-accuracy is "
            f"{config['target_accuracy']} now"
        )
    return None


def _is_end(line: Line, config: Line) -> bool:
    return line["round"] == config["num_rounds"] or _has_reached_target(line, config)


def _has_reached_target(line: Line, config: Line) -> bool:
    target = config["target_accuracy"]
    return target is not None and line["num_correct"] >= num_correct_for(target, line["num_test"])


def _write_config(folder: Path, config: Line, environment: Line) -> None:
    content = {"config": config, **environment}
    write_atomically(folder / CONFIG, json.dumps(content, indent=2) + "\n")


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder} is a file, not a folder; give another --output-dir.")
    if not folder.exists() or (folder / CONFIG).exists():
        return
    # What a kill before the configuration was written leaves is no obstacle.
    if any(path.name != LOCK and path.suffix != ".tmp" for path in folder.iterdir()):
        raise ResultsError(
            f"{folder} holds files but no {CONFIG}, so it is no results folder; give another "
            "--output-dir."
        )


def read_config(folder: Path) -> Line:
    """The configuration of a results folder."""
    return _read_json(folder)["config"]


def read_environment(folder: Path) -> Line:
    """Versions and device with which the folder was started."""
    return {name: value for name, value in _read_json(folder).items() if name != "config"}


def _read_json(folder: Path) -> Line:
    path = folder / CONFIG
    if not path.exists():
        raise ResultsError(f"{folder} is no results folder: it has no {CONFIG}.")
    try:
        content = json.loads(path.read_text())
        if isinstance(content["config"], dict):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise ResultsError(f"{path} is damaged; give another --output-dir.")


def append_round(folder: Path, line: Line) -> None:
    """Add one round; when this returns, the line is on disk."""
    with open(folder / ROUNDS, "a") as file:
        file.write(json.dumps(finite(line), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rounds(folder: Path) -> list[Line]:
    """All complete lines; a last line cut short by a kill is left out.

    Raises:
      ResultsError: a line before the last is damaged, or is no round.
    """
    path = folder / ROUNDS
    if not path.exists():
        return []
    *complete, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = []
    for number, text in enumerate(complete, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line, problem = None, "is no JSON"
        else:
            problem = _problem(line)
        if problem:
            raise ResultsError(
                f"{path} line {number} is damaged: it {problem}; restore it, or delete it and all "
                "lines after it and run again."
            )
        lines.append(line)
    return lines


def _problem(line: Any) -> str | None:
    """Why something is not the line of a round, as far as it is read."""
    if not isinstance(line, dict):
        return "is no object"
    for name, is_right in _FIELDS.items():
        if name not in line:
            return f"has no {name!r}"
        if not is_right(line[name]):
            return f"has {line[name]!r} as {name!r}"
    return None


def write_rounds(folder: Path, lines: Iterable[Line]) -> None:
    """Replace all lines at once."""
    write_atomically(folder / ROUNDS, "".join(json.dumps(line) + "\n" for line in lines))


def write_table(folder: Path, lines: list[Line]) -> None:
    """The same rounds as `rounds.csv`, lists as numbers with spaces between them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]))
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {
                name: " ".join(map(str, value)) if isinstance(value, list) else value
                for name, value in line.items()
            }
        )
    write_atomically(folder / TABLE, text.getvalue())


def num_correct_for(accuracy: float, num_test: int) -> int:
    """The fewest correct test points that are an accuracy of at least `accuracy`.

    Whole points, from the decimal number as it was written: in floats 0.95 can miss 9,500 of
    10,000.
    """
    return math.ceil(Decimal(str(accuracy)) * num_test)
