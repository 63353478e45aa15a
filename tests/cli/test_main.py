"""The command line as a whole: it explains itself at once."""

import subprocess
import sys

import pytest

from bbald_jax.cli.main import main

LOADED = """
import atexit, sys
from bbald_jax.__main__ import main

atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
main()
"""


@pytest.mark.parametrize(
    "command", ["--version", "--help", *(f"{name} --help" for name in main.commands)]
)
def test_what_it_can_do_it_says_without_loading_it(command: str):
    result = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "version" in result.stdout or "Usage: bbald" in result.stdout
    third_party = {*result.stderr.split()} - set(sys.stdlib_module_names)
    assert "bbald_jax" in third_party
    assert not third_party & {"jax", "jaxtyping", "numpy", "rich", "matplotlib", "orbax", "sklearn"}
