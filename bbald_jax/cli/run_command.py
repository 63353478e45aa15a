"""`bbald run`: active-learning experiments at the command line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bbald_jax.acquisition.functions import catalogue
from bbald_jax.cli.console import (
    FRACTION,
    POSITIVE,
    SEED,
    FiniteRange,
    Refused,
    make_console,
    one_line_errors,
)
from bbald_jax.experiment import report, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.datasets import DATASETS, load_dataset
from bbald_jax.experiment.results import Line
from bbald_jax.learning.recipes import RECIPES

_DEFAULT = Config()


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


def _option(name: str, help: str, **kwargs: Any):
    """An option whose default is that of the `Config` field of the same name."""
    default = getattr(_DEFAULT, name.removeprefix("--").replace("-", "_"))
    shown = True if default is not None else kwargs.pop("show_default")
    return click.option(name, default=default, show_default=shown, help=help, **kwargs)


@click.command()
@_option("--dataset", "Data set; digits needs no download.", type=click.Choice(DATASETS))
@_option("--acquisition", "Acquisition function.", type=click.Choice(list(catalogue())))
@_option("--acquisition-size", "Points acquired in a round (B).", type=POSITIVE)
@_option("--num-samples", "Posterior samples: MC-dropout networks (K).", type=POSITIVE)
@_option(
    "--num-configurations",
    "Class configurations kept by batchbald (M); exact while they fit.",
    type=POSITIVE,
)
@_option("--num-rounds", "Rounds of acquisition.", type=click.IntRange(min=0))
@_option(
    "--target-accuracy",
    "Stop a trial once the test accuracy reaches this fraction.",
    type=FRACTION,
    show_default="no target",
)
@_option(
    "--initial-per-class", "Points of each class labelled at the start.", type=click.IntRange(min=0)
)
@_option(
    "--pool-size",
    "A random part of the pool, of so many points (copies of repeated images counted).",
    type=POSITIVE,
    show_default="the whole pool",
)
@_option("--num-repeats", "Copies of each training image (repeated-mnist).", type=POSITIVE)
@_option(
    "--noise",
    "Standard deviation of the noise on each copy's normalised pixels (repeated-mnist).",
    type=FiniteRange(min=0),
)
@_option("--recipe", "How the network is trained.", type=click.Choice(list(RECIPES)))
@_option("--seed", "Everything random comes from it.", type=SEED)
@_option("--num-trials", "Independent trials.", type=POSITIVE)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    show_default="results/DATASET-ACQUISITION-seedSEED",
    help="Results folder: the same command again continues an interrupted run, and more rounds or "
    "trials, or a higher target, extend one that has come to its end.",
)
def run(output_dir: Path | None, **options: Any) -> None:
    """Run an active-learning experiment: acquire, label, retrain, evaluate, round after round."""
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
