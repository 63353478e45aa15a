"""What a selection from a pool on many devices exchanges, and what each of them does.

    python -m experiments.benchmarks.scale

Virtual devices of one CPU, on one core: they say what is exchanged and how much work there is in
all, not how fast real ones are. That is worked out on paper. Writes `results/scale/sharded.md`.
`--scale 100` divides N and M by 100, to try the script.
"""

import argparse
import math
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

import bbald_jax as bb
from experiments.benchmarks.benchmark_size import random_pool
from experiments.common import reporting

NUM_DEVICES = (1, 2, 4, 8)
ON_PAPER = (8, 64, 1024)
NUM_CONFIGURATIONS, BATCH_SIZE, NUM_CLASSES = 10_000, 10, 10
RESULTS = reporting.RESULTS.parent / "scale"
# Of the links between devices, on paper: far below what accelerators have.
SECONDS_PER_EXCHANGE, BYTES_PER_SECOND = 50e-6, 1e9

_COLLECTIVE = re.compile(r"= (.*?) (?:all-reduce|all-gather|collective-permute)(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")


class Size(NamedTuple):
    """The sizes of one pool, by the letters of the library."""

    N: int
    K: int


SIZES = (Size(N=20_000, K=100),)


def exchanged(text: str, num_devices: int) -> dict[str, int]:
    """What a compiled program has a device hand over, in bytes: in a step, and once.

    What stands in a loop or a branch counts as a step's, though of two branches one is taken.
    """
    found = {"step_bytes": 0, "step_exchanges": 0, "once_bytes": 0}
    is_entry = False
    for line in text.splitlines():
        if line.startswith(("ENTRY", "%")):
            is_entry = line.startswith("ENTRY")
        if not (types := _COLLECTIVE.search(line)):
            continue
        size = sum(
            int(bits) // 8 * math.prod(int(length) for length in dims.split(",") if length)
            for _, bits, dims in _SHAPE.findall(types[1])
        )
        if is_entry:
            found["once_bytes"] += size // (num_devices if "all-gather" in line else 1)
        else:
            found["step_bytes"] += size
            found["step_exchanges"] += 1
    return found


def select(num_devices: int, N: int, K: int, num_configurations: int, take: int = 0) -> dict:
    """CPU seconds of one selection on virtual devices, and what its program exchanges.

    With `take`, of a pool of so many points that hold the batch: what is left of the work is what
    every device does for itself.
    """
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
    # A device that waits for the others keeps a thread: with two in all, they wait for each other.
    os.environ.pop("NPROC", None)
    log_probs = np.asarray(random_pool(jax.random.key(0), N, K, NUM_CLASSES))
    key = jax.random.key(0)
    options = {"batch_size": BATCH_SIZE, "num_configurations": num_configurations}
    if take:
        batch = bb.select_batchbald(key, jnp.asarray(log_probs), **options)
        rest = np.setdiff1d(np.arange(take), batch.indices)
        log_probs = log_probs[np.concatenate([batch.indices, rest])[:take]]
    mesh = jax.make_mesh((num_devices,), ("pool",), axis_types=(AxisType.Auto,))
    pool = bb.shard_pool(mesh, log_probs)
    function = jax.jit(partial(_selection, pool=pool, **options))
    compiled = function.lower(key, pool.log_probs, pool.available).compile()
    batch = jax.block_until_ready(compiled(key, pool.log_probs, pool.available))
    seconds = []
    for _ in range(2):
        start = time.process_time()
        jax.block_until_ready(compiled(key, pool.log_probs, pool.available))
        seconds.append(time.process_time() - start)
    memory = compiled.memory_analysis()
    return {
        "seconds": min(seconds),
        "indices": np.asarray(batch.indices).tolist(),
        "work": float(batch.diagnostics.work_fraction),
        "temporary": memory.temp_size_in_bytes if memory else math.nan,
        **exchanged(compiled.as_text() or "", num_devices),
    }


def _selection(key, log_probs, available, *, pool, **options):
    pool = pool._replace(log_probs=log_probs, available=available)
    return bb.select_sharded(key, pool, **options)


def on_paper(whole: dict, alone: dict, eight: dict, num_devices: int) -> tuple[float, float]:
    """Seconds of a selection on real devices, and how many times faster than one they are.

    Every device does what it does for itself, and its share of the search of eight devices (each
    looks for a best gain of its own, which takes more work in all than one search), and exchanges.
    """
    share = max(eight["seconds"] - 8 * alone["seconds"], 0) / num_devices
    of_step = eight["step_exchanges"] * SECONDS_PER_EXCHANGE
    of_step += eight["step_bytes"] / BYTES_PER_SECOND
    seconds = alone["seconds"] + share + (BATCH_SIZE + 1) * of_step
    return seconds, whole["seconds"] / seconds


def report(size: Size, num_configurations: int, answers: dict[int, dict], alone: dict) -> str:
    """Tables of one pool."""
    whole, eight = answers[1], answers[8]
    rows = [
        [
            num,
            answer["seconds"],
            f"{num * alone['seconds'] / answer['seconds']:.0%}",
            f"{answer['work']:.1%}",
            answer["step_bytes"] if num > 1 else 0,
            answer["once_bytes"] if num > 1 else 0,
            answer["temporary"] / 1e6,
            "yes" if answer["indices"] == whole["indices"] else "NO",
        ]
        for num, answer in answers.items()
    ]
    header = ["devices", "CPU s of all", "of it what each does for itself", "work"]
    header += ["bytes a step", "bytes once", "MB a device beside its points", "the same batch"]
    paper = [[num, *on_paper(whole, alone, eight, num)] for num in ON_PAPER]
    return "\n\n".join(
        [
            f"## N = {size.N:,}, K = {size.K}",
            f"C = {NUM_CLASSES}, M = {num_configurations:,}, B = {BATCH_SIZE}. What each device "
            f"does for itself takes {alone['seconds']:.3f} CPU s: the selection from the batch and "
            "22 more points.",
            reporting.table(header, rows),
            reporting.table(["real devices, on paper", "s", "times one device"], paper),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What a sharded selection exchanges, and does.")
    parser.add_argument("--scale", type=int, default=1, help="divide N and M by this")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    num_configurations = NUM_CONFIGURATIONS // args.scale
    parts, measured = [], []
    for size in (size._replace(N=size.N // args.scale) for size in SIZES):
        request = {**size._asdict(), "num_configurations": num_configurations}
        alone = reporting.measure(Path(__file__), "select", num_devices=1, take=32, **request)
        answers = {
            num: reporting.measure(Path(__file__), "select", num_devices=num, **request)
            for num in NUM_DEVICES
        }
        measured += [alone, *answers.values()]
        failed = [answer["error"] for answer in (alone, *answers.values()) if "error" in answer]
        reporting.progress(f"{size}: {failed or 'done'}")
        parts.append(failed[0] if failed else report(size, num_configurations, answers, alone))
    reporting.write(
        args.output / "sharded.md",
        "# A pool on many devices",
        reporting.machine("bbald_jax", "jax"),
        "Virtual devices of one core (the script was pinned to it), the better of two runs, "
        "without compilation; CPU seconds of the process. Bytes are what the compiled program has "
        "a device hand over, at most: a branch that is not taken counts too. Work: evaluations of "
        "a point on a node, over those of a dense evaluation. "
        f"On paper an exchange takes {SECONDS_PER_EXCHANGE * 1e6:.0f} us, and a gigabyte "
        f"{1e9 / BYTES_PER_SECOND:.0f} s; each device is as fast as this core, and the search "
        "is shared as among eight. " + reporting.quietness(measured),
        *parts,
    )


if __name__ == "__main__" and not reporting.is_measuring(select):
    main()
