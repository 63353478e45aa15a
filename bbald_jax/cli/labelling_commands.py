"""The commands for people who label: the page, Label Studio, results, and their sessions.

Set out here, and loaded when they run, as those in `main` are.
"""

from pathlib import Path
from typing import Any

import click

from bbald_jax.cli.compilation_cache import compiled_programs_kept
from bbald_jax.cli.loading import load
from bbald_jax.cli.options import FEATURES, POSITIVE, SEED, FiniteRange

_PATH = click.Path(path_type=Path)
_DATA = click.argument("data", type=click.Path(path_type=Path, exists=True))
_CLASSES = click.option(
    "--classes",
    metavar="A,B,...",
    help="Names of the classes, for a new session; on one that is there, those that it lacks are "
    "added.",
)
_KEPT_IN = click.option(
    "--session",
    type=_PATH,
    show_default="DATA.labels.db, beside DATA",
    help="The file that keeps everything.",
)
_COLUMN = click.option(
    "--column", metavar="NAME", help="The column of texts, if a table has several."
)
_ARRAY = click.option("--array", metavar="NAME", help="The array of images, if a .npz has several.")
_FEATURES = click.option(
    "--features",
    metavar=f"[{'|'.join(FEATURES)}|PATH]",
    show_default="image+graph for images, text for texts",
    help="What the model sees of the items: made of them, or a .npy of embeddings, a row an item.",
)
_TARGET = click.option(
    "--target-accuracy",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    show_default="no target",
    help="Say when to stop: when the accuracy is known to be at least this fraction.",
)
_SEED = click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Of a new session: everything random comes from it.",
)
_SESSION = click.argument("file", metavar="SESSION", type=_PATH)
_FILE = click.argument("file", metavar="FILE", type=_PATH)


@click.command()
@_DATA
@_CLASSES
@_KEPT_IN
@_COLUMN
@_ARRAY
@_FEATURES
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
@_TARGET
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
@_SEED
def label(**options: Any) -> None:
    """Label on a page in the browser, asked for what tells most; it learns meanwhile.

    DATA is a folder of images, a table (.csv, .jsonl, .parquet) with a column of texts, or an array
    of images (.npy, .npz). The same command goes on where it was ended.
    """
    with compiled_programs_kept():
        load("label")(**options)


@click.command()
@_DATA
@click.option(
    "--url",
    required=True,
    metavar="URL",
    help="Where people open Label Studio, such as http://localhost:8080.",
)
@click.option(
    "--project",
    type=POSITIVE,
    show_default="the one of the last time",
    help="The number of a project that is there: the one in its address.",
)
@click.option(
    "--create",
    metavar="TITLE",
    help="Make a project of this title, with --classes; the same command again finds it.",
)
@click.option(
    "--token",
    envvar="LABEL_STUDIO_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="From Label Studio's Account & Settings, a personal or a legacy one. Other people on "
    "this machine see what stands on a command line: the variable is better.",
)
@_CLASSES
@_KEPT_IN
@_COLUMN
@_ARRAY
@_FEATURES
@click.option(
    "--queue",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Tasks without an answer, at most: at half of them more are asked. Whoever comes to their "
    "end has to reload the page: take many for many people.",
)
@click.option(
    "--interval",
    type=FiniteRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds between looks at what was answered.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the accuracy from the first model on, instead of waiting until it is stable.",
)
@_TARGET
@_SEED
def label_studio(**options: Any) -> None:
    """Label in Label Studio, asked for what tells most; it learns meanwhile.

    DATA is what `bbald label` takes. Its items become tasks of a project, one batch after the
    other, in the order in which they are asked; answers, corrections, deletions and skips come
    back. The same command goes on where it was ended.
    """
    with compiled_programs_kept():
        load("label_studio")(**options)


@click.command()
@_SESSION
@click.option(
    "--output",
    required=True,
    type=_PATH,
    help="A .csv, .jsonl or .parquet file; or, without a suffix, a folder that will hold the "
    "labelled images, in a folder for each class.",
)
@click.option(
    "--every-answer",
    is_flag=True,
    help="A row for each person's label of each item, not only for the label that holds.",
)
def export(**options: Any) -> None:
    """Write the labels of a session, with who gave them, when, and the model's probability."""
    load("export")(**options)


@click.group()
def session() -> None:
    """Look after a file in which people's labels are kept (bb.Session)."""


@session.command()
@_FILE
def info(**options: Any) -> None:
    """Say what a session holds; every event in it is checked."""
    load("session", "info")(**options)


@session.command()
@_FILE
@click.option("--output", metavar="NEW", required=True, type=_PATH, help="The new file.")
def repair(**options: Any) -> None:
    """Write what can be read of a damaged session to a new file.

    Nothing may write to FILE meanwhile; it stays as it is.
    """
    load("session", "repair")(**options)
