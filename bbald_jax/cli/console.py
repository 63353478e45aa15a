"""What all commands share: how they print, how they refuse, and the ranges of numbers."""

import click
from rich.console import Console

POSITIVE = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)


class Refused(click.ClickException):
    """One line on what is wrong and how to mend it."""

    exit_code = 2


def make_console() -> Console:
    """Standard output, with other people's names as they are, and nothing cut off in a pipe."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 10_000  # instead of 80: a pipe has no width
    return console
