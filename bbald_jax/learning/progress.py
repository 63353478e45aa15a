"""A bar on the terminal while something takes long: `progress`."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[], Any]]:
    """What to call after each step: it moves a bar, where stderr is a terminal that can show one.

    Args:
      description: of a step, in the plural.
      total: how many steps there will be, if that is known.
    """
    with contextlib.ExitStack() as stack:
        advance: Callable[[], Any] = lambda: None  # noqa: E731
        if not sys.stderr.isatty():
            pass
        elif importlib.util.find_spec("rich"):
            rich: Any = importlib.import_module("rich.progress")
            console: Any = importlib.import_module("rich.console").Console(stderr=True)
            bar = stack.enter_context(rich.Progress(console=console, transient=True))
            advance = partial(bar.advance, bar.add_task(description, total=total))
        elif importlib.util.find_spec("tqdm"):
            tqdm: Any = importlib.import_module("tqdm")
            advance = stack.enter_context(
                tqdm.tqdm(desc=description, total=total, leave=False)
            ).update
        yield advance
