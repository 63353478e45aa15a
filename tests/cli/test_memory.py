"""`bbald select` holds what it reads once: as checked float32 predictions."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

# `random` needs no memory of its own, and has the predictions checked all the same.
SCRIPT = """
import sys
from click.testing import CliRunner
from bbald_jax.cli.main import main

def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def select(path):
    command = ["select", path, "--kind=logits", "--acquisition=random"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output

small, *files = sys.argv[1:]
select(small)
before = peak()
for path in files:
    select(path)
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells a process its peak")
def test_predictions_from_a_file_are_in_memory_once(tmp_path: Path):
    small, mapped, half = (tmp_path / name for name in ("x.npy", "y.npy", "z.safetensors"))
    logits = np.tile(np.linspace(-1, 1, 10, dtype=np.float32), (250_000, 20, 1))  # 200 MB
    np.save(small, logits[:100])
    np.save(mapped, logits)
    # Half the size: the float32 predictions are as large as before.
    save_file({"logits": logits.astype(np.float16)}, half)
    command = [sys.executable, "-c", SCRIPT, *map(str, (small, mapped, half))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    for peak in map(int, result.stdout.split()):
        assert 0.9 * logits.nbytes < peak < 1.3 * logits.nbytes
