"""Selections from a sharded pool: those of a single device, with next to nothing exchanged."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharding
from conftest import MakeLogProbs
from jax.sharding import Mesh
from sharding import BATCH_SIZE, LARGE, SHAPE, SMALL

import bbald_jax as bb
from bbald_jax.acquisition import placing

PROGRAM = Path(sharding.__file__)


def start(asked: dict[str, Any], num_devices: int) -> subprocess.Popen[str]:
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(asked)],
        env=os.environ | {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str], timeout: float = 600) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1])  # what connects the processes prints too


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


#: All functions of the catalogue that may be spread, with pools that are hard for them.
OTHERS = {
    "random": ["pending"],
    "predictive-entropy": [],
    "margin": [],
    "variation-ratio": [],
    "mean-std": [],
    "bald": ["copies on all devices", "three available", "pending and not a number"],
    "power-bald": ["masked", "pending and not a number"],
    "softmax-bald": [],
    "softrank-bald": ["masked", "pending and not a number"],
    "epig": ["copies on all devices", "pending and not a number"],
    "kbald": ["copies on all devices", "pending and not a number"],
    "gaussian-batchbald": ["copies on all devices", "pending and not a number"],
    "batch-epig": ["copies on all devices", "pending and not a number"],
}
LOOPS = ("batchbald", "kbald", "gaussian-batchbald", "batch-epig")


@pytest.fixture(scope="module")
def on_eight_devices() -> dict[str, Any]:
    chosen = {name: cases for name, cases in OTHERS.items() if cases}
    asked = {"select": {"batchbald": list(SMALL)} | chosen, "exchanged": ["batchbald", *chosen]}
    return answer(start(asked | {"quick": True}, 8))


def test_all_functions_of_predictions_may_be_spread():
    able = {name for name, function in bb.catalogue().items() if function.takes_axis_name}
    assert able == {"batchbald", *OTHERS}


@pytest.mark.parametrize("name", SMALL)
def test_batchbald_is_that_of_a_single_device(name: str, on_eight_devices: dict[str, Any]):
    assert_same(on_eight_devices[f"batchbald: {name}"])


@pytest.mark.parametrize(
    "name", [f"{acquisition}: {name}" for acquisition, cases in OTHERS.items() for name in cases]
)
def test_a_batch_is_that_of_a_single_device(name: str, on_eight_devices: dict[str, Any]):
    assert_same(on_eight_devices[name])


@pytest.mark.parametrize("acquisition", ["batchbald", *(name for name in OTHERS if OTHERS[name])])
def test_no_more_than_a_point_is_exchanged(acquisition: str, on_eight_devices: dict[str, Any]):
    _, num_samples, num_classes = SHAPE
    point = num_samples * num_classes
    found = on_eight_devices["exchanged"][acquisition]
    of = {kind: [size for other, size in found if other == kind] for kind, _ in found}
    assert set(of) <= {"all-reduce", "all-gather", "collective-permute"}
    # Of all devices together: the best of each, for the certificate or as the batch itself.
    most = {8 * BATCH_SIZE} | ({208} if acquisition == "softrank-bald" else set())
    assert set(of.get("all-gather", ())) <= most
    # Eleven targets on eight devices are two on each, and whether they are targets.
    handed_on = [2 * point, 2] if acquisition == "epig" else []
    assert sorted(of.get("collective-permute", ()), reverse=True) == handed_on
    once = num_samples**2 if acquisition == "batch-epig" else 0  # what the targets want to know
    reduced = sorted(of["all-reduce"], reverse=True)
    assert reduced[0] <= max(point + 1, once)
    # One in each step, and one for each pending point; the rest are a few numbers.
    assert len([size for size in reduced if size >= point]) <= 2 + bool(once)
    assert all(size < 8 for size in reduced if size < point)
    assert len(found) < 18


@pytest.fixture(scope="module")
def one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]), ("pool",))


def test_one_device_is_a_mesh_too(one_device: Mesh, make_log_probs: MakeLogProbs):
    log_probs = np.asarray(make_log_probs(12, 4, 3))
    pool = bb.shard_pool(one_device, log_probs, available=np.arange(12) > 3)
    assert (pool.num_points, pool.layout.counts) == (12, (12,))
    np.testing.assert_array_equal(pool.log_probs, log_probs)
    np.testing.assert_array_equal(pool.available, np.arange(12) > 3)
    key = jax.random.key(1)
    batch = bb.select_sharded(key, pool, batch_size=3, acquisition="bald")
    expected = bb.catalogue()["bald"].select(
        key, bb.Inputs(jnp.asarray(log_probs)), batch_size=3, available=pool.available, pending=None
    )
    np.testing.assert_array_equal(batch.indices, expected.indices)


@pytest.mark.parametrize(
    ("acquisition", "options", "message"),
    [
        (
            "badge",
            {},
            "needs the whole pool on one device; choose one of random, .*batchbald",
        ),
        ("batch-epig-closed", {}, "needs the whole pool"),
        ("epig", {}, "target_log_probs: epig requires predictions for target points"),
        ("bold", {}, "'bold' is none of"),
        ("bald", {"batch_size": 0}, "batch_size: 0 is not an integer"),
    ],
)
def test_what_cannot_be_selected_is_an_error(
    acquisition: str,
    options: dict[str, Any],
    message: str,
    one_device: Mesh,
    make_log_probs: MakeLogProbs,
):
    pool = bb.shard_pool(one_device, make_log_probs(12, 4, 3))
    with pytest.raises(ValueError, match=message):
        options = {"batch_size": 2} | options
        bb.select_sharded(jax.random.key(0), pool, acquisition=acquisition, **options)


def test_targets_of_another_mesh_are_an_error(one_device: Mesh, make_log_probs: MakeLogProbs):
    log_probs = make_log_probs(12, 4, 3)
    pool = bb.shard_pool(one_device, log_probs)
    other = Mesh(np.array(jax.devices()[:1]), ("points",))
    targets = bb.shard_pool(other, log_probs, axis="points")
    with pytest.raises(ValueError, match="another mesh"):
        bb.select_sharded(
            jax.random.key(0), pool, batch_size=2, acquisition="epig", target_log_probs=targets
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axis": "rows"}, r"axis: 'rows' is no axis of the mesh, \('pool',\)"),
        ({"log_probs": np.zeros((0, 4, 3), np.float32)}, "empty axis"),
        ({"available": np.ones(3, bool)}, r"available: bool of shape \(3,\) is no mask"),
    ],
)
def test_what_cannot_be_spread_is_an_error(
    arguments: dict[str, Any], message: str, one_device: Mesh, make_log_probs: MakeLogProbs
):
    arguments = {"log_probs": make_log_probs(12, 4, 3)} | arguments
    with pytest.raises(ValueError, match=message):
        bb.shard_pool(one_device, **arguments)


# Of four devices the first host has two; parts of 5 and 3 points, by 4 samples for 3 classes.
PARTS = [[0, 2, 5, 4, 3], [2, 4, 3, 4, 3]]


def test_each_host_fills_its_own_devices():
    assert placing._counts(np.asarray(PARTS), 4) == (3, 2, 3, 0)
    assert placing._counts(np.asarray(PARTS[:1]), 2) == (3, 2)
    assert placing._counts(np.asarray([[0, 8, 5, 4, 3]]), 8) == (1, 1, 1, 1, 1, 0, 0, 0)
    # Two hosts along another axis: the same blocks, and the same part.
    assert placing._counts(np.asarray([PARTS[0]] * 2), 2) == (3, 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([2, 4, 3, 5, 3], r"\[4, 3\] on one host and \[5, 3\] on another"),
        ([0, 2, 6, 4, 3], "two hosts hold block 1 of the pool, with 2 and 3 points"),
    ],
)
def test_parts_that_do_not_fit_together_are_an_error(other: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        placing._counts(np.asarray([PARTS[0], other]), 4)


# --- the full set


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["batchbald", *OTHERS])
def test_every_function_on_every_small_pool(acquisition: str):
    found = answer(start({"select": {acquisition: list(SMALL)}}, 8))
    for name in SMALL:
        assert_same(found[f"{acquisition}: {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_batchbald_on_larger_and_stranger_pools(name: str):
    assert_same(answer(start({"select": {"batchbald": [name]}}, 8))[f"batchbald: {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", OTHERS)
def test_other_functions_on_larger_and_stranger_pools(acquisition: str):
    names = ["five points", "nearly ten thousand, masked, spoilt, pending", "one sample"]
    found = answer(start({"select": {acquisition: names}}, 8))
    for name in names:
        assert_same(found[f"{acquisition}: {name}"])


MESHES = {
    "the same pool on two devices each": {"mesh": [4, 2]},
    "along two axes": {"mesh": [4, 2], "axis": ["pool", "other"]},
    "along the second axis": {"mesh": [4, 2], "axis": ["other"]},
    "explicit axes": {"explicit": True},
    "explicit axes, the same pool on two devices each": {"mesh": [4, 2], "explicit": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_on_other_meshes(mesh: str):
    select = {name: ["plain", "pending and not a number"] for name in LOOPS} | {
        "epig": ["masked"],
        "softrank-bald": ["masked"],
        "power-bald": ["copies on all devices"],
    }
    found = answer(start(MESHES[mesh] | {"select": select, "quick": True}, 8))
    for acquisition, names in select.items():
        for name in names:
            assert_same(found[f"{acquisition}: {name}"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "num_devices"), [(2, 1), (2, 4), (4, 1), (4, 2)])
def test_on_several_processes(num_processes: int, num_devices: int):
    """Each hands in a part of another length, and all of them answer the same."""
    names = ["plain", "pending and not a number", "copies on all devices"]
    select = dict.fromkeys(LOOPS, names)
    select |= {"batchbald": list(SMALL), "epig": ["plain"], "softrank-bald": ["masked"]}
    asked = {
        "coordinator": f"127.0.0.1:{free_port()}",
        "num_processes": num_processes,
        "select": select,
        "quick": True,
    }
    running = [start(asked | {"process_id": i}, num_devices) for i in range(num_processes)]
    try:
        answers = [answer(process) for process in running]
    finally:
        for process in running:
            process.kill()
    for found in answers:
        for acquisition, names in select.items():
            for name in names:
                assert_same(found[f"{acquisition}: {name}"])
