"""Code on several devices, in a process of its own: JAX counts its devices once."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

_START = """
import jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_platforms", "cpu")
import jax.numpy as jnp, numpy as np
import bbald_jax as bb
"""


def with_devices(num_devices: int) -> dict[str, str]:
    """The environment in which a CPU counts as so many devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    # What the JAX of these tests has set for itself is no wish of a user.
    there = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return {**there, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run_code(code: str, num_devices: int) -> str:
    """What it prints, with `jax`, `jnp`, `np`, `bb` and the modules of `tests/` at hand."""
    environment = with_devices(num_devices)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, "-c", _START + textwrap.dedent(code)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
