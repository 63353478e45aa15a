"""Commands are loaded when they run: `--help` answers at once."""

import gc
import importlib
from collections.abc import Callable


def load(command: str, part: str | None = None) -> Callable[..., None]:
    """What a command does, or a part of it."""
    module = importlib.import_module(f"bbald_jax.cli.{command}_command")
    if not gc.isenabled():  # `__main__` has turned it off for the imports, whose objects stay
        gc.freeze()
        gc.enable()
    return getattr(module, part or command)
