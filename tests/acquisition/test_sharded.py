"""Selections from a sharded pool: those of a single device, with next to nothing exchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharding
from sharding import SHAPE, SMALL

PROGRAM = Path(sharding.__file__)


def start(asked: dict[str, Any], num_devices: int, **variables: str) -> subprocess.Popen[str]:
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(asked)],
        env=os.environ | {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str], timeout: float = 600) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def assert_same(found: dict[str, dict[str, Any]], tolerance: float = 3e-6) -> None:
    """The batch of the single device, and what is known of it."""
    whole, sharded = found["whole"], found["sharded"]
    assert sharded["indices"] == whole["indices"]
    for name in ("scores", "gains", "remaining_entropy", "effective_configurations"):
        if name in whole:
            atol = tolerance if name != "effective_configurations" else 1e-2
            np.testing.assert_allclose(sharded[name], whole[name], rtol=0, atol=atol, err_msg=name)
    for name in ("num_invalid", "is_exact", "num_tied"):
        assert sharded.get(name) == whole.get(name), name
    if "upper_bound" in whole:
        # The sum of the last gains is known up to a thousandth of the score.
        slack = 1e-3 * whole["scores"][-1] + 1e-5
        assert abs(sharded["upper_bound"] - whole["upper_bound"]) <= slack
        assert sharded["work_fraction"] >= 0


@pytest.fixture(scope="module")
def on_eight_devices() -> dict[str, Any]:
    asked = {"select": {"batchbald": list(SMALL)}, "exchanged": ["batchbald"]}
    return answer(start(asked, 8, JAX_DISABLE_MOST_OPTIMIZATIONS="1"))


@pytest.mark.parametrize("name", SMALL)
def test_batchbald_is_that_of_a_single_device(name: str, on_eight_devices: dict[str, Any]):
    assert_same(on_eight_devices[f"batchbald: {name}"])


def test_no_more_than_a_point_is_exchanged_in_a_step(on_eight_devices: dict[str, Any]):
    found = on_eight_devices["exchanged"]["batchbald"]
    _, num_samples, num_classes = SHAPE
    kinds = [kind for kind, _ in found]
    assert set(kinds) == {"all-reduce", "all-gather"}
    # Of all devices together: the certificate's gains, first and last.
    assert sum(size for kind, size in found if kind == "all-gather") == 2 * 8 * sharding.BATCH_SIZE
    reduced = [size for kind, size in found if kind == "all-reduce"]
    assert max(reduced) == num_samples * num_classes
    # Beside that of the step there is the point of a pending label.
    assert sum(size for size in reduced if size > 8) == 2 * num_samples * num_classes
    assert len(reduced) < 16
