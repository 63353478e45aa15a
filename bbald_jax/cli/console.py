"""What all commands share: how they print, and how they refuse."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from bbald_jax.experiment.config import ConfigError
from bbald_jax.experiment.idx import DatasetFileError, DatasetUnavailableError
from bbald_jax.experiment.results import ResultsError


class Refused(click.ClickException):
    """One line on what is wrong and how to mend it."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Other people's text with all that a terminal would obey, or not show, written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def make_console() -> Console:
    """Standard output, with other people's names as they are, and nothing cut off in a pipe."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 10_000  # instead of 80: a pipe has no width
    return console


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the experiment refuses, in one line."""
    try:
        yield
    except (ConfigError, ResultsError, DatasetFileError, DatasetUnavailableError) as error:
        raise Refused(str(error)) from error
