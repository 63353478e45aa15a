"""Selections from sharded pools beside those of a single device; a program for other processes.

`python sharding.py '{"cases": [...], ...}'` runs the named cases and prints, as JSON, what each of
them chose, whole and sharded. The number of devices is a process's for good, so that the tests
cannot be run in one process with the others.
"""

import json
import os
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import compiler
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh
from quick import quick_compile_options

import bbald_jax as bb
from bbald_jax.acquisition.sharded import _select

BATCH_SIZE = 4
SHAPE = (203, 8, 3)
NO_PENDING = (-1, -1, -1, -1, -1)


class Case(NamedTuple):
    """A pool, and what is asked of it."""

    shape: tuple[int, int, int] = SHAPE
    scale: float = 2.0
    batch_size: int = BATCH_SIZE
    num_configurations: int = 300
    available: str = "all"
    pending: tuple[int, ...] = NO_PENDING
    spoil: str = ""


#: What a pool of one shape and one compiled program can show.
SMALL = {
    "plain": Case(),
    "masked": Case(available="half"),
    "three available": Case(available="three"),
    "none available": Case(available="none"),
    "one device available": Case(available="last"),
    "pending": Case(pending=(150, 7, 150, -1, 202)),
    "pending out of range": Case(pending=(205, 203, -1, 3, 3)),
    "not a number": Case(spoil="nan"),
    "pending and not a number": Case(spoil="nan", pending=(0, 1, 100, 202, -1)),
    "zero probabilities": Case(spoil="zeros"),
    "copies on all devices": Case(spoil="copies"),
    "all alike": Case(spoil="flat"),
    "sure of themselves": Case(scale=50.0),
}

#: What takes a compilation of its own.
LARGE = {
    "nearly ten thousand": Case((9973, 20, 10), batch_size=8, num_configurations=2000),
    "nearly ten thousand, masked, spoilt, pending": Case(
        (9973, 20, 10),
        batch_size=8,
        num_configurations=2000,
        available="half",
        pending=(9972, 5, 5, -1, 1247),
        spoil="nan",
    ),
    "copies in a large pool": Case(
        (9973, 20, 10), batch_size=8, num_configurations=2000, spoil="copies"
    ),
    "five points": Case((5, 8, 3)),
    "five points, pending": Case((5, 8, 3), batch_size=6, pending=(4, 0, 4, -1, 7)),
    "one sample": Case((101, 1, 3)),
    "one class": Case((101, 8, 1)),
    "spent": Case((203, 4, 3), batch_size=12),
    "exact": Case((64, 12, 2), batch_size=5, num_configurations=100_000),
    "a hundred samples": Case((3000, 100, 10), batch_size=10, num_configurations=10_000),
}
CASES = SMALL | LARGE


def predictions(case: Case, seed: int = 0) -> np.ndarray:
    """The pool of a case."""
    rng = np.random.default_rng(seed)
    logits = case.scale * rng.normal(size=case.shape)
    num_points, _, num_classes = case.shape
    if case.spoil == "zeros":
        logits[(rng.random(case.shape) < 0.5) & (np.arange(num_classes) > 0)] = -np.inf
    if case.spoil == "copies":  # seven and more of each point, far apart
        logits = logits[np.arange(num_points) % (num_points // 7)]
    if case.spoil == "flat":
        logits[:] = logits[:1]
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    if case.spoil == "nan":
        log_probs[rng.random(num_points) < 0.1] = np.nan
        log_probs[num_points // 2, 0, 0] = np.inf
    return log_probs.astype(np.float32)


def availability(case: Case, seed: int = 1) -> np.ndarray:
    """The mask of a case."""
    num_points = case.shape[0]
    rng = np.random.default_rng(seed)
    if case.available == "half":
        return rng.random(num_points) < 0.5
    if case.available == "three":
        return np.isin(np.arange(num_points), rng.choice(num_points, 3, replace=False))
    if case.available == "last":
        return np.arange(num_points) > num_points - 8
    return np.full(num_points, case.available == "all")


def make_mesh(shape: tuple[int, ...], names: tuple[str, ...], explicit: bool = False) -> Mesh:
    """A mesh of all devices."""
    kind = AxisType.Explicit if explicit else AxisType.Auto
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(names))


def as_lists(batch: bb.CandidateBatch) -> dict[str, Any]:
    """A batch as JSON takes it, diagnostics among the rest."""
    found = {"indices": batch.indices, "scores": batch.scores, "gains": batch.gains}
    return {
        name: np.asarray(value).tolist()
        for name, value in (found | batch.diagnostics._asdict()).items()
    }


def targets(case: Case) -> np.ndarray:
    """Eleven points to be predicted, one of them spoilt."""
    found = predictions(case._replace(shape=(11, *case.shape[1:])), seed=2)
    found[3] = np.nan
    return found


def part_of(array: np.ndarray) -> np.ndarray:
    """What this process hands in: parts of different lengths."""
    count, me = jax.process_count(), jax.process_index()
    ends = [round(len(array) * ((i / count) ** 1.2)) for i in range(count + 1)]
    return array[ends[me] : ends[me + 1]]


def both(
    name: str, acquisition: str, mesh: Mesh, axis: str | tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """A case, whole on one device and sharded over all."""
    case, key = CASES[name], jax.random.key(17)
    function = bb.catalogue(num_configurations=case.num_configurations)[acquisition]
    log_probs, available = predictions(case), availability(case)
    pending = np.asarray(case.pending, np.int32)
    needs_targets = "target_log_probs" in function.requires
    whole = jax.jit(function.select, static_argnames="batch_size")(
        key,
        bb.Inputs(jnp.asarray(log_probs), jnp.asarray(targets(case)) if needs_targets else None),
        batch_size=case.batch_size,
        available=jnp.asarray(available),
        pending=jnp.asarray(pending),
    )
    pool = bb.shard_pool(mesh, part_of(log_probs), axis=axis, available=part_of(available))
    assert pool.num_points == len(log_probs)
    sharded = bb.select_sharded(
        key,
        pool,
        batch_size=case.batch_size,
        acquisition=acquisition,
        pending=pending,
        target_log_probs=part_of(targets(case)) if needs_targets else None,
        num_configurations=case.num_configurations,
    )
    return {"whole": as_lists(whole), "sharded": as_lists(sharded)}


COLLECTIVE = re.compile(
    r"= \(?(?P<types>[^=]*?)\)? "
    r"(?P<kind>all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast|ragged-all-to-all)(?:-start)?\("
)


def collectives(text: str) -> list[tuple[str, int]]:
    """The kind of each collective of a compiled program, and how many numbers it hands over."""
    return [
        (
            found["kind"],
            sum(numbers(dims) for dims in re.findall(r"\w+\[([\d,]*)\]", found["types"])),
        )
        for found in COLLECTIVE.finditer(text)
    ]


def numbers(dims: str) -> int:
    """How many numbers an array has whose shape is written down so."""
    return int(np.prod([int(length) for length in dims.split(",") if length]))


def exchanged(acquisition: str, mesh: Mesh) -> list[tuple[str, int]]:
    """The collectives of the plain case."""
    case = CASES["plain"]
    function = bb.catalogue(num_configurations=case.num_configurations)[acquisition]
    pool = bb.shard_pool(mesh, predictions(case))
    spread = None
    if "target_log_probs" in function.requires:
        spread = bb.shard_pool(mesh, targets(case))
    lowered = _select.lower(
        jax.random.key(0),
        pool.log_probs,
        pool.available,
        np.asarray(case.pending, np.int32),
        None if spread is None else spread.log_probs,
        batch_size=case.batch_size,
        acquisition=function,
        mesh=mesh,
        layout=pool.layout,
        target_layout=None if spread is None else spread.layout,
    )
    return collectives(lowered.compile().as_text() or "")


def main() -> None:
    """Run what the first argument asks for, and print what was found."""
    asked = json.loads(sys.argv[1])
    if address := asked.get("coordinator"):
        jax.distributed.initialize(
            address,
            num_processes=asked["num_processes"],
            process_id=asked["process_id"],
            heartbeat_timeout_seconds=10,
        )
        # Connections are made by the first exchange, which waits no longer than 30 seconds.
        multihost_utils.sync_global_devices("start")
    if asked.get("quick"):
        compiler.get_compile_options = quick_compile_options()
        jax.config.update("jax_disable_most_optimizations", True)
    shape = asked.get("mesh", [jax.device_count()])
    names = ("pool", "other")[: len(shape)]
    mesh = make_mesh(tuple(shape), names, asked.get("explicit", False))
    axis = tuple(asked["axis"]) if "axis" in asked else "pool"
    found: dict[str, Any] = {
        f"{acquisition}: {name}": both(name, acquisition, mesh, axis)
        for acquisition, cases in asked["select"].items()
        for name in cases
    }
    found["exchanged"] = {name: exchanged(name, mesh) for name in asked.get("exchanged", ())}
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ["BBALD_COMPILATION_CACHE"] = "0"
    main()
