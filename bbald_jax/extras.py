"""Packages that not everybody has: loaded where they are used, or what installs them is said."""

import importlib
from typing import Any


def import_extra(module: str, *, extra: str, user: str) -> Any:
    """A module of an optional package.

    Args:
      module: its full name, as in `import`.
      extra: of bbald_jax, that brings the package along.
      user: what needs it; the error begins with it.

    Raises:
      ModuleNotFoundError: it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{user} needs {module.partition('.')[0]}; install it with: "
            f"pip install 'bbald_jax[{extra}]'",
            name=module,
        ) from error
