"""The command line: `bbald`, its commands, and what each can be told.

`--help` answers at once: what a command does is loaded when it runs.
"""

import gc
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bbald_jax.cli.compilation_cache import VARIABLE, compiled_programs_kept
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


def _load(command: str, part: str | None = None) -> Callable[..., None]:
    """What a command does, or a part of it."""
    module = importlib.import_module(f"bbald_jax.cli.{command}_command")
    if not gc.isenabled():  # `__main__` has turned it off for the imports, whose objects stay
        gc.freeze()
        gc.enable()
    return getattr(module, part or command)


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
@_option("--acquisition", "Acquisition function.", type=click.Choice(ACQUISITIONS))
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
def run(**options: Any) -> None:
    """Run an active-learning experiment: acquire, label, retrain, evaluate, round after round."""
    with compiled_programs_kept():
        _load("run")(**options)


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
    _load("compare")(**options)


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
    "--targets", type=_PATH, help="Predictions for the points that matter, where it needs them."
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
def select(**options: Any) -> None:
    """Choose the points to label next, from the predictions of any model.

    PREDICTIONS is a .npy, .npz or .safetensors file of an array [N, K, C]: for each of N points,
    what each of K posterior samples of the model predicts for each of C classes. Sample k must be
    the same model for every point.
    """
    with compiled_programs_kept():
        _load("select")(**options)


@main.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--classes",
    metavar="A,B,...",
    help="Names of the classes, for a new session; on one that is there, those that it lacks are "
    "added.",
)
@click.option(
    "--session",
    type=_PATH,
    show_default="DATA.labels.db, beside DATA",
    help="The file that keeps everything.",
)
@click.option("--column", metavar="NAME", help="The column of texts, if a table has several.")
@click.option("--array", metavar="NAME", help="The array of images, if a .npz has several.")
@click.option(
    "--features",
    metavar=f"[{'|'.join(FEATURES)}|PATH]",
    show_default="image+graph for images, text for texts",
    help="What the model sees of the items: made of them, or a .npy of embeddings, a row an item.",
)
@click.option(
    "--batch-size",
    type=POSITIVE,
    show_default="so many that nobody waits",
    help="Items planned at a time.",
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the items that two people label.",
)
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds after which an item that somebody has in hand goes to others.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen: 0.0.0.0 is every network of this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    show_default="8765, or the next that is free",
    help="At which port.",
)
@click.option(
    "--open/--no-open",
    "open_page",
    default=True,
    show_default=True,
    help="Open the page in a browser.",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Of a new session: everything random comes from it.",
)
def label(**options: Any) -> None:
    """Label on a page in the browser, asked for what tells most; it learns meanwhile.

    DATA is a folder of images, a table (.csv, .jsonl, .parquet) with a column of texts, or an array
    of images (.npy, .npz). The same command goes on where it was ended.
    """
    with compiled_programs_kept():
        _load("label")(**options)


@main.command()
def acquisitions() -> None:
    """List the acquisition functions, and what each requires."""
    _load("acquisitions")()


@main.group()
def session() -> None:
    """Look after a file in which people's labels are kept (bb.Session)."""


_SESSION = click.argument("file", metavar="FILE", type=_PATH)


@session.command()
@_SESSION
def info(**options: Any) -> None:
    """Say what a session holds; every event in it is checked."""
    _load("session", "info")(**options)


@session.command()
@_SESSION
@click.option("--output", metavar="NEW", required=True, type=_PATH, help="The new file.")
def repair(**options: Any) -> None:
    """Write what can be read of a damaged session to a new file.

    Nothing may write to FILE meanwhile; it stays as it is.
    """
    _load("session", "repair")(**options)
