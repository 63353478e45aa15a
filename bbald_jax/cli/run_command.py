"""What `bbald run` does: active-learning experiments at the command line."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.cli.console import Refused, make_console, one_line_errors
from bbald_jax.experiment import report, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.datasets import DATASETS, dataset_sha256
from bbald_jax.experiment.processes import devices_in_use, from_first, is_first
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


def run(
    output_dir: Path | None, baseline: bool | None, devices: int | None, **options: Any
) -> None:
    """Run an experiment, or continue it; the options are explained in `main`."""
    if options["acquisition"] is None:
        is_head = options["learner"] == "logistic-head"
        options["acquisition"] = FOR_THE_HEAD if is_head else Config.acquisition
    config = Config(**options)
    folder = output_dir or Path("results", _folder_name(config))
    console = make_console()
    with _kept_for_the_same_command(folder), one_line_errors(), _locked(folder):
        dataset = _complete(console, config, folder, None, folder, devices)
        at_random = None
        if _has_baseline(config, baseline):
            at_random = dataclasses.replace(config, acquisition="random")
            with _locked(folder / _BASELINE):
                dataset = _complete(
                    console, at_random, folder / _BASELINE, dataset, folder, devices
                )
        if is_first():
            _finish(console, config, folder, dataset, at_random)


def _locked(folder: Path) -> AbstractContextManager[None]:
    return results.locked(folder) if is_first() else nullcontext()


#: The folder, within that of a run, of the same run with random acquisition.
_BASELINE = "random"


def _has_baseline(config: Config, asked: bool | None) -> bool:
    if config.acquisition == "random":
        return False
    is_cheap = config.learner == "logistic-head" or config.dataset == "digits"
    return is_cheap if asked is None else asked


def _folder_name(config: Config) -> str:
    usual = Config()
    parts = [_short_name(config)]
    parts += [config.learner] * (config.learner != usual.learner)
    parts += [config.features] * (config.features != usual.features)
    return "-".join([*parts, config.acquisition, f"seed{config.seed}"])


def _complete(
    console: Console,
    config: Config,
    folder: Path,
    dataset: Dataset | None,
    features_folder: Path,
    num_devices: int | None,
) -> Dataset | None:
    """Run what a folder lacks; returns the data set, if it was needed."""
    is_there, lines = from_first(lambda: _opened(config, folder))
    if all(trials.is_finished(lines, trial) for trial in range(config.num_trials)):
        console.print(f"{folder} is finished; nothing was run.")
        return dataset
    if is_first():
        (folder / results.TABLE).unlink(missing_ok=True)
        if is_there:
            _say_where_it_continues(console, folder, config, lines)
        elif config.initial_per_class == 0 and config.learner == "dropout-network":
            console.print("no labels to start with: a network's first batch is drawn at random")
    dataset = dataset or trials.load(config)
    devices = devices_in_use(num_devices)
    if config.num_trials > 1 and len(devices) > 1:
        console.print(f"{config.num_trials} trials on {len(devices)} devices")
    rounds = trials.run(config, folder, dataset, features_folder=features_folder, devices=devices)
    _show_progress(console, config, lines, rounds)
    return dataset


def _opened(config: Config, folder: Path) -> tuple[bool, list[Line]]:
    """Whether a folder holds rounds of this run already, and which."""
    is_there = results.open_folder(folder, _recorded(config), trials.environment())
    return is_there, results.read_rounds(folder)


def _short_name(config: Config) -> str:
    """What the data set is called in names of folders and in figures."""
    if config.dataset in DATASETS:
        return config.dataset
    path = Path(config.dataset).resolve()
    return path.name if path.is_dir() else path.stem


def _recorded(config: Config) -> dict[str, Any]:
    """The configuration and, of a data set of the user's own, what tells that it has changed."""
    sha256 = dataset_sha256(config.dataset)
    return vars(config) if sha256 is None else {**vars(config), results.DIGEST: sha256}


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


def _show_progress(
    console: Console, config: Config, lines: list[Line], rounds: Iterator[Line]
) -> None:
    """Run what is left, `rounds`, beyond the `lines` that are there."""
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
            description = f"{config.acquisition}, {description}"
            progress.update(task, description=description, status=status)
            if not console.is_terminal:  # a log file shows no bar before the end
                console.print(f"{description}: {status}")


def _finish(
    console: Console,
    config: Config,
    folder: Path,
    dataset: Dataset | None,
    at_random: Config | None,
) -> None:
    """The table, and what the folder lacks of the files that are drawn from its rounds."""
    lines = _sorted_rounds(folder)
    console.print(report.rounds_table(lines))
    if warning := report.spent_samples(lines, config.num_samples):
        console.print(warning, style="yellow")
    runs = {config.acquisition: lines}
    if at_random is not None:
        runs["random"] = _sorted_rounds(folder / _BASELINE)
        console.print(report.beside_random(runs))
    title = _short_name(config)
    picture = folder / "acquired.png"
    tables = [folder, *[folder / _BASELINE] * (at_random is not None)]
    if not all((each / results.TABLE).exists() for each in tables):
        curves = {f"{title}, {name}": its_lines for name, its_lines in runs.items()}
        report.draw_learning_curves(folder / "learning_curve.png", curves)
        dataset = dataset or trials.load(config)
        if dataset.has_images:
            report.draw_acquired(
                picture,
                [line for line in lines if line["trial"] == 0],
                dataset.x_train,
                f"{title}, {config.acquisition}: points acquired"
                + (" in trial 0" if config.num_trials > 1 else ""),
                dataset.class_names,
            )
        for each, its_lines in zip(tables, runs.values(), strict=True):
            results.write_table(each, its_lines)  # the last file: where it is, all are
    files = "config.json, rounds.jsonl, rounds.csv, learning_curve.png"
    files += ", acquired.png" if picture.exists() else "; no acquired.png, which is for images"
    console.print(f"{folder}: {files}")


def _sorted_rounds(folder: Path) -> list[Line]:
    # Trials that were run together took turns.
    return sorted(results.read_rounds(folder), key=lambda line: (line["trial"], line["round"]))
