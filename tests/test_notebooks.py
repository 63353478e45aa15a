"""The notebooks' first cell: it must end with the library, whatever lies beside the notebook."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def first_cell(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


def test_all_begin_alike():
    assert len(NOTEBOOKS) == 4
    assert len(set(map(first_cell, NOTEBOOKS))) == 1


@pytest.mark.parametrize("place", [".", "bbald_jax", "bbald_jax/notebooks"])
def test_a_clone_is_not_taken_for_the_installed_library(tmp_path: Path, place: str):
    (tmp_path / "bbald_jax" / "notebooks").mkdir(parents=True)
    source = first_cell(NOTEBOOKS[0])
    lines = [line for line in source.splitlines() if "%pip" in line]
    assert lines == ['    %pip install -q "{clone}[experiments,widget]"']
    # What pip does, as far as this is concerned; the clone is empty, the repository is not.
    source = source.replace(lines[0], "    installed = clone; sys.path += sys.argv[1:]")
    check = "from bbald_jax import flax_model, select; print(installed)"
    packages = sysconfig.get_paths()["purelib"]
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"{source}\n{check}", str(REPOSITORY), packages],
        cwd=tmp_path / place,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout == f"{tmp_path / 'bbald_jax'}\n", result.stderr
