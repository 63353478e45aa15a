"""What `bbald run` does: active-learning experiments at the command line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bbald_jax.cli.console import Refused, make_console, one_line_errors
from bbald_jax.experiment import report, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.experiment.results import Line


@contextmanager
def _kept_for_the_same_command(folder: Path) -> Iterator[None]:
    """A full disk, or whatever else keeps a run from writing, in one line."""
    # What Orbax raises it logs as well, with the tracebacks of all its threads.
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except BrokenPipeError:  # whoever reads our output has had enough: click's to handle
        raise
    except OSError as error:
        raise Refused(
            f"{folder}: {error.strerror or error}; every finished round is kept: mend that, and "
            "run the same command again to continue."
        ) from error


def run(output_dir: Path | None, **options: Any) -> None:
    """Run an experiment, or continue it; the options are explained in `main`."""
    config = Config(**options)
    folder = output_dir or Path(
        "results", f"{config.dataset}-{config.acquisition}-seed{config.seed}"
    )
    console = make_console()
    with _kept_for_the_same_command(folder), one_line_errors(), results.locked(folder):
        is_there = results.open_folder(folder, vars(config), trials.environment())
        lines = results.read_rounds(folder)
        if all(trials.is_finished(lines, trial) for trial in range(config.num_trials)):
            console.print(f"{folder} is finished; nothing was run.")
        else:
            if is_there:
                _say_where_it_continues(console, folder, config, lines)
            _run_with_progress(console, config, folder, lines)
        _finish(console, config, folder)


def _say_where_it_continues(
    console: Console, folder: Path, config: Config, lines: list[Line]
) -> None:
    now, then = trials.environment(), results.read_environment(folder)
    if now != then:
        console.print(
            f"started with {then}, continued with {now}: the last bits may differ", style="yellow"
        )
    trial = next(t for t in range(config.num_trials) if not trials.is_finished(lines, t))
    num_rounds = sum(line["trial"] == trial for line in lines)
    console.print(f"continuing {folder}: trial {trial} after {num_rounds} finished rounds")


def _run_with_progress(console: Console, config: Config, folder: Path, lines: list[Line]) -> None:
    rounds = trials.run(config, folder)
    rounds_a_trial = config.num_rounds + 1
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task(
            "starting", total=config.num_trials * rounds_a_trial, status="compiling"
        )
        done = dict.fromkeys(range(config.num_trials), 0)

        def count(line: Line) -> None:
            # A trial's last round ends it, however early.
            done[line["trial"]] = rounds_a_trial if line["is_last"] else line["round"] + 1
            progress.update(task, completed=sum(done.values()))

        for line in lines:
            count(line)
        for line in rounds:
            count(line)
            status = f"{line['num_labelled']} labels, accuracy {line['accuracy']:.2%}"
            description = f"round {line['round']}/{config.num_rounds}"
            if config.num_trials > 1:
                description = f"trial {line['trial'] + 1}/{config.num_trials} {description}"
            progress.update(task, description=description, status=status)
            if not console.is_terminal:  # a log file shows no bar before the end
                console.print(f"{description}: {status}")


def _finish(console: Console, config: Config, folder: Path) -> None:
    """The table, and what the folder lacks of the files that are drawn from its rounds."""
    # Trials that were run together took turns.
    lines = sorted(results.read_rounds(folder), key=lambda line: (line["trial"], line["round"]))
    console.print(report.rounds_table(lines))
    if warning := report.spent_samples(lines, config.num_samples):
        console.print(warning, style="yellow")
    name = f"{config.dataset}, {config.acquisition}"
    if not (folder / results.TABLE).exists():
        report.draw_learning_curves(folder / "learning_curve.png", {name: lines})
        dataset = load_dataset(
            config.dataset, num_repeats=config.num_repeats, noise=config.noise, seed=config.seed
        )
        report.draw_acquired(
            folder / "acquired.png",
            [line for line in lines if line["trial"] == 0],
            dataset.x_train,
            f"{name}: points acquired" + (" in trial 0" if config.num_trials > 1 else ""),
        )
        results.write_table(folder, lines)  # the last file: where it is, all are
    files = "config.json, rounds.jsonl, rounds.csv, learning_curve.png, acquired.png"
    console.print(f"{folder}: {files}")
