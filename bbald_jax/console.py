"""What all commands share: how they print, how they refuse, and the ranges of numbers."""

import click
from rich.console import Console

POSITIVE = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)


class Refused(click.ClickException):
    """One line on what is wrong and how to mend it."""

    exit_code = 2


def make_console() -> Console:
    """Standard output as it is: no markup in other people's names, no line broken in a pipe."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
