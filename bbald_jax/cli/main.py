"""The command line: `bbald`, its commands, and what each can be told.

`--help` answers at once: what a command does is loaded when it runs.
"""

from pathlib import Path
from typing import Any

import click

from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.cli.cluster import cluster_options, joined, watch
from bbald_jax.cli.compilation_cache import VARIABLE, compiled_programs_kept
from bbald_jax.cli.labelling_commands import export, label, label_studio, session
from bbald_jax.cli.loading import load
from bbald_jax.cli.options import (
    ACQUISITIONS,
    DATASETS,
    FEATURES,
    FRACTION,
    KINDS,
    LEARNERS,
    LISTS,
    POSITIVE,
    RECIPES,
    SEED,
    FiniteRange,
    NameOrPath,
)
from bbald_jax.experiment.config import Config

_PATH = click.Path(path_type=Path)
_LIST = f"one index a line, or a .npy ({', '.join(LISTS)})"
_DEFAULT = Config()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="What JAX compiled is kept (up to 1 GiB, in bbald_jax/compiled in your cache folder), "
    f"so that the next call of the same shape is fast. {VARIABLE}=0 turns that off, and "
    "JAX_COMPILATION_CACHE_DIR names another folder.",
)
@click.version_option(package_name="bbald_jax")
def main() -> None:
    """Batch Bayesian active learning in JAX."""


def _option(name: str, help: str, **kwargs: Any):
    """An option of `run`, whose default is that of the `Config` field of the same name."""
    default = getattr(_DEFAULT, name.removeprefix("--").replace("-", "_"))
    shown = True if default is not None else kwargs.pop("show_default")
    return click.option(name, default=default, show_default=shown, help=help, **kwargs)


@main.command()
@_option(
    "--dataset",
    "Data set; digits needs no download. Or your own: a .npz or .safetensors file of x_train, "
    "y_train, x_test and y_test, or a folder with a sub-folder of images for each class.",
    type=NameOrPath(DATASETS),
)
@_option(
    "--learner",
    "What learns from the labels: an MC-dropout network, trained in every round, or a Bayesian "
    "logistic head, which takes milliseconds and wants good features.",
    type=click.Choice(LEARNERS),
)
@_option(
    "--features",
    "What the learner sees of the points, made from all training points without their labels and "
    "kept in the results folder: nothing but themselves, their neighbour graph, HOG of images, "
    "TF-IDF of texts, or the neighbour graph of HOG.",
    type=click.Choice(FEATURES),
)
@click.option(
    "--acquisition",
    type=click.Choice(ACQUISITIONS),
    show_default=f"{_DEFAULT.acquisition}; with the logistic head {FOR_THE_HEAD}",
    help="Acquisition function; see `bbald acquisitions`.",
)
@_option("--acquisition-size", "Points acquired in a round (B).", type=POSITIVE)
@_option("--num-samples", "Posterior samples: networks, or heads (K).", type=POSITIVE)
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
    "--initial-per-class",
    "Points of each class labelled at the start. From 0 the head chooses by its prior; a network's "
    "first batch is random.",
    type=click.IntRange(min=0),
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
@_option("--recipe", "How a network is trained.", type=click.Choice(RECIPES))
@_option("--seed", "Everything random comes from it.", type=SEED)
@_option("--num-trials", "Independent trials.", type=POSITIVE)
@click.option(
    "--baseline/--no-baseline",
    default=None,
    show_default="for digits and for the logistic head, where it takes seconds",
    help="Run random acquisition beside it, with the same learner and the same start: another "
    "curve in the figure.",
)
@click.option(
    "--output-dir",
    type=_PATH,
    show_default="results/DATASET-ACQUISITION-seedSEED, with learner and features if not the usual",
    help="Results folder: the same command again continues an interrupted run, and more rounds or "
    "trials, or a higher target, extend one that has come to its end.",
)
@cluster_options
def run(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    devices: int | None,
    **options: Any,
) -> None:
    """Run an active-learning experiment: acquire, label, retrain, evaluate, round after round.

    Where there are several devices, trials are spread over them.
    """
    after_loss = "every finished round is kept: run the same commands again to continue"
    watch(coordinator, num_processes, process_id, after_loss)
    with compiled_programs_kept(), joined(coordinator, num_processes, process_id, devices):
        load("run")(devices=devices, **options)


@main.command()
@click.argument("folders", metavar="RESULTS...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--accuracy",
    "accuracies",
    multiple=True,
    type=FRACTION,
    default=(0.9, 0.95),
    show_default=True,
    help="Count the labels needed to reach it; may be given several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.png"),
    show_default=True,
    help="The figure (PNG, PDF or SVG, by its suffix).",
)
def compare(**options: Any) -> None:
    """Draw several results folders in one figure, and count the labels each needed.

    Of five trials or more, the median and the quartiles are drawn; of fewer, each trial.
    """
    load("compare")(**options)


@main.command()
@click.argument("predictions", type=_PATH)
@click.option(
    "--kind",
    required=True,
    type=click.Choice(KINDS),
    help="What the numbers are; logarithms are natural.",
)
@click.option(
    "--batch-size", type=POSITIVE, default=10, show_default=True, help="Points to choose."
)
@click.option(
    "--acquisition",
    type=click.Choice(ACQUISITIONS),
    default="batchbald",
    show_default=True,
    help="Acquisition function; see `bbald acquisitions`.",
)
@click.option(
    "--axes",
    default="NKC",
    show_default=True,
    help="Order of the axes: N points, K posterior samples, C classes.",
)
@click.option("--array", metavar="NAME", help="Which array of PREDICTIONS, if it holds several.")
@click.option("--exclude", type=_PATH, help=f"Points labelled already: {_LIST}.")
@click.option("--pending", type=_PATH, help="Points whose labels are still out, likewise.")
@click.option("--candidates", type=_PATH, help="Points to choose from, likewise; all by default.")
@click.option(
    "--targets",
    type=_PATH,
    help="Predictions for the points that matter, where it needs them; by default those of 500 "
    "random points of the pool.",
)
@click.option(
    "--ids",
    type=_PATH,
    help="Names of all points, one a line; the lists of points then hold names.",
)
@click.option(
    "--num-configurations",
    type=POSITIVE,
    default=10_000,
    show_default=True,
    help="Class configurations kept by batchbald (M); exact while they fit.",
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Everything random comes from it."
)
@click.option("--output", type=_PATH, help="Write the batch, one row a point (.csv or .json).")
@click.option(
    "--memory",
    metavar="GB",
    type=FiniteRange(min=0, min_open=True),
    show_default="half of what is free",
    help="Where more would be needed (three times the predictions in float32), a .npy or "
    ".safetensors file is read piece by piece, several times over: the batch is the same.",
)
@cluster_options
def select(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    devices: int | None,
    **options: Any,
) -> None:
    """Choose the points to label next, from the predictions of any model.

    PREDICTIONS is a .npy, .npz or .safetensors file of an array [N, K, C]: for each of N points,
    what each of K posterior samples of the model predicts for each of C classes. Sample k must be
    the same model for every point.

    A large file is spread over all devices, if there are several, for the same batch. In a cluster
    every process reads its part of the file, which all must find at its place.
    """
    after_loss = "a selection depends on its inputs only: run the same commands again"
    watch(coordinator, num_processes, process_id, after_loss)
    with compiled_programs_kept(), joined(coordinator, num_processes, process_id, devices):
        load("select")(devices=devices, **options)


@main.command()
def acquisitions() -> None:
    """List the acquisition functions, and what each requires."""
    load("acquisitions")()


for command in (label, label_studio, export, session):
    main.add_command(command)
