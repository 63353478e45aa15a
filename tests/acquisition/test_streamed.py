"""A pool that is read piece by piece gives the batch of the pool in memory."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_nats
from pools import NUM_CLASSES, NUM_POINTS, NUM_SAMPLES, POOLS, near_copies, saturated

import bbald_jax as bb
from bbald_jax.acquisition.buffer import Buffer
from bbald_jax.acquisition.certificate import ROUNDING
from bbald_jax.acquisition.contest import Contest, Guess
from bbald_jax.acquisition.pieces import Piece
from bbald_jax.acquisition.streamed import STREAMED, WITH_TARGETS
from bbald_jax.acquisition.verification import Found

BATCH_SIZE = 6
CAPACITY = 64
BUFFER, PIECE = 60, 50


def select(log_probs: Any, seed: int = 0, **options: Any) -> bb.CandidateBatch:
    """Of numbers that were not checked yet: `from_kind` normalises them as in memory."""
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "num_configurations": CAPACITY}
    settings |= {"buffer": BUFFER, "chunk_size": PIECE} | options
    source = log_probs if hasattr(log_probs, "reads") else np.asarray(log_probs)
    return bb.select_stream(jax.random.key(seed), source, **settings)


def in_memory(log_probs: Any, seed: int = 0, **options: Any) -> bb.CandidateBatch:
    settings = {"batch_size": BATCH_SIZE, "num_configurations": CAPACITY} | options
    available = settings.pop("available", None)
    available = jnp.ones(len(log_probs), bool) if available is None else jnp.asarray(available)
    checked = bb.check_log_probs(log_probs)
    return bb.select_batchbald(jax.random.key(seed), checked, available=available, **settings)


def assert_same_batch(batch: bb.CandidateBatch, expected: bb.CandidateBatch):
    """The same points in the same order, until gains are their rounding, and the same scores."""
    assert_nats(batch.scores, expected.scores)
    told = np.minimum(np.asarray(batch.gains), np.asarray(expected.gains)) > ROUNDING
    num_told = int(np.argmin(np.append(told, False)))
    assert num_told > 0
    np.testing.assert_array_equal(batch.indices[:num_told], expected.indices[:num_told])


def assert_same_diagnostics(batch: bb.CandidateBatch, expected: bb.CandidateBatch):
    for name in ("num_invalid", "active_bound"):
        assert getattr(batch.diagnostics, name) == getattr(expected.diagnostics, name)
    for name in ("remaining_entropy", "certified_ratio", "is_exact"):
        assert_nats(getattr(batch.diagnostics, name), getattr(expected.diagnostics, name), 3e-5)
    # In memory the last bound may exceed the gains by a thousandth of the score.
    bounds = batch.diagnostics.upper_bound, expected.diagnostics.upper_bound
    np.testing.assert_allclose(*bounds, rtol=1e-3)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_the_batch_is_that_of_the_pool_in_memory(pool, seed: int):
    log_probs = pool(np.random.default_rng(seed))
    batch, expected = select(log_probs, seed), in_memory(log_probs, seed)
    assert_same_batch(batch, expected)
    assert_same_diagnostics(batch, expected)
    assert 2 <= int(batch.diagnostics.num_passes) <= BATCH_SIZE + 1
    informed = np.asarray(expected.diagnostics.remaining_entropy)[:-1] >= 0.1
    assert int(batch.diagnostics.num_verified) == 1 + np.sum(informed)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)
@pytest.mark.parametrize("capacity", [64, 320])
@pytest.mark.parametrize(("buffer", "piece"), [(40, 64), (40, 7), (100, 150), (150, 40), (999, 50)])
def test_whatever_the_sizes_of_buffer_and_pieces(pool, capacity: int, buffer: int, piece: int):
    log_probs = pool(np.random.default_rng(5))
    rng = np.random.default_rng(6)
    options = {
        "num_configurations": capacity,
        "available": rng.random(NUM_POINTS) < 0.8,
        "pending": jnp.asarray([3, -1, 140, 3, 77]),
    }
    batch = select(log_probs, 7, buffer=buffer, chunk_size=piece, **options)
    expected = in_memory(log_probs, 7, **options)
    assert_same_batch(batch, expected)
    assert_same_diagnostics(batch, expected)
    assert int(batch.diagnostics.num_passes) <= BATCH_SIZE + 2


def copies(seed: int, num_groups: int = 10, num_copies: int = 100) -> np.ndarray:
    """Groups of near-copies, of rising information: the best rows are copies of a few points."""
    rng = np.random.default_rng(seed)
    groups = rng.standard_normal((num_groups, NUM_SAMPLES, NUM_CLASSES))
    groups *= np.linspace(0.8, 1.2, num_groups)[:, None, None]
    logits = np.repeat(groups, num_copies, axis=0)
    logits = logits + 1e-3 * rng.standard_normal(logits.shape)
    return np.asarray(jax.nn.log_softmax(logits.astype(np.float32)))


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_take_no_more_than_a_pass_a_step(seed: int):
    log_probs = copies(seed)
    batch = select(log_probs, seed)
    assert 2 < int(batch.diagnostics.num_passes) <= BATCH_SIZE + 1
    assert_same_batch(batch, in_memory(log_probs, seed))
    # A guess that nobody has verified says so, and is not the batch.
    guess = select(log_probs, seed, max_passes=1)
    assert int(guess.diagnostics.num_verified) == 0
    assert guess.indices.tolist() != batch.indices.tolist()


def test_among_equals_the_key_decides_by_the_number_in_the_pool():
    # More copies of each point than the buffer holds.
    log_probs = np.tile(np.asarray(saturated(np.random.default_rng(0)))[:2], (500, 1, 1))
    for seed in range(3):
        batch, expected = select(log_probs, seed), in_memory(log_probs, seed)
        assert_same_batch(batch, expected)
        # All points are copies of two; spent samples draw the same ones too.
        assert batch.indices.tolist() == expected.indices.tolist()


def test_bounds_of_all_pieces_make_the_certificate():
    batch = bb.CandidateBatch(jnp.asarray([0]), jnp.asarray([0.5]), jnp.asarray([0.5]), None)
    gains = np.array([[0.5, 0.4], [0.2, 0.1]], np.float32)
    always, never = np.ones(2, bool), np.zeros(2, bool)
    guess = Guess(batch, gains, always, always, np.zeros(2), None)
    buffer = Buffer(4, (2, 2), np.dtype(np.float32))
    buffer.numbers[:] = [7, 8, 9, 10]
    contest = Contest(guess, always, buffer, jax.random.key(0), 1)
    nothing: Any = np.full(2, -np.inf, np.float32)
    piece = Piece(0, np.zeros((3, 2, 2), np.float32), jnp.zeros(()), "logits", never, None)
    for upper in ([[0.1, 0.1], [0.3, 0.0]], [[0.45, 0.0], [0.15, 0.1]]):
        values: list[Any] = [np.full((2, 2), -np.inf), np.zeros((2, 2), int), np.zeros(2, int)]
        found = Found(*values, *[nothing, np.array(upper, np.float32), np.array(0.0)])
        contest.hear(piece, np.zeros(3, np.uint32), found)
    assert_nats(contest.upper_gains[0], [0.5, 0.45])
    assert_nats(contest.upper_gains[1], [0.3, 0.2])
    # After the last point nothing is chosen: only the second-best gain is a threshold.
    assert_nats(contest.thresholds(), [0.45 - 1e-6, 0.2 - 1e-6])
    assert contest.winners == [None, None]


def test_a_nan_is_refused_or_left_out():
    log_probs = np.array(saturated(np.random.default_rng(1)))
    log_probs[[12, 130], 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"log_probs\[12, 3, 1\] \(value nan\): NaN"):
        select(log_probs)
    batch = select(log_probs, on_invalid="skip")
    expected = bb.select_batchbald(
        jax.random.key(0),
        jnp.asarray(log_probs),
        batch_size=BATCH_SIZE,
        num_configurations=CAPACITY,
        available=jnp.ones(NUM_POINTS, bool),
    )
    assert int(batch.diagnostics.num_invalid) == 2
    assert_same_batch(batch, expected)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("log-probs", 0.5, "sums to|above zero"),
        ("log-probs", np.inf, r"\[149, 2, 0\].*inf"),
        ("probs", -0.1, r"\[149, 2, 0\].*below zero"),
        ("logits", np.nan, r"\[149, 2, 0\].*NaN"),
    ],
)
def test_wrong_values_are_refused_wherever_they_are(kind: Any, value: float, words: str):
    log_probs = np.array(saturated(np.random.default_rng(1)))
    values = np.exp(log_probs) if kind == "probs" else log_probs
    values[149, 2, 0] = value
    with pytest.raises(ValueError, match=words):
        select(values, kind=kind, acquisition="bald")


def test_half_precision_probabilities_and_impossible_classes():
    log_probs = np.array(saturated(np.random.default_rng(1)))
    probs = np.exp(log_probs)
    probs[:, :, 0] = np.where(probs[:, :, 0] < 0.3, 0, probs[:, :, 0])
    probs = (probs / probs.sum(-1, keepdims=True)).astype(np.float16)
    assert_same_batch(select(probs, kind="probs"), in_memory(bb.from_probs(probs)))


class Watched:
    """A source that changes, or ends, after some reads."""

    def __init__(self, values: np.ndarray, after: int, change: Any) -> None:
        self.values, self.after, self.change = values, after, change
        self.shape, self.reads = values.shape, 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.reads += 1
        part = self.values[rows]
        return part if self.reads <= self.after else self.change(part)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: np.roll(part, 1, axis=0), "not what they were"),
        (lambda part: np.roll(part, 1, axis=1), "not what they were"),
        (lambda part: np.nextafter(part, np.float32(-9)), "not what they were"),
        (lambda part: part[:-1], "become shorter"),
    ],
)
def test_a_source_that_changes_between_passes_is_refused(change, words: str):
    log_probs = np.asarray(near_copies(np.random.default_rng(0)))
    source = Watched(log_probs, 3, change)
    with pytest.raises(ValueError, match=words):
        select(source)
    assert source.reads > 3
    select(Watched(log_probs, 99, change))


def test_predictions_made_on_demand(tmp_path: Path):
    logits = np.asarray(near_copies(np.random.default_rng(0)))
    calls = []

    def predict(rows: np.ndarray) -> jax.Array:
        calls.append(len(rows))
        return jnp.asarray(rows)

    batch = select(logits, kind="logits")
    lazy = bb.Lazy(logits, predict)
    settings = {"batch_size": BATCH_SIZE, "num_configurations": CAPACITY, "kind": "logits"}
    stream = partial(bb.select_stream, jax.random.key(0), buffer=BUFFER, chunk_size=PIECE)
    again = stream(lazy, **settings)
    assert again.indices.tolist() == batch.indices.tolist()
    passes = int(batch.diagnostics.num_passes)
    assert sum(calls) == 1 + passes * NUM_POINTS
    calls.clear()
    spilled = stream(bb.Lazy(logits, predict, spill=tmp_path), **settings)
    assert sum(calls) == 1 + NUM_POINTS
    rounded = select(logits.astype(np.float16), kind="logits")
    assert spilled.indices.tolist() == rounded.indices.tolist()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"expected \[1, K, C\]"):
        bb.Lazy(logits, lambda rows: rows[0])


@pytest.mark.parametrize("name", STREAMED[1:])
def test_the_other_functions(name: str):
    for seed, pool in enumerate((near_copies, saturated)):
        log_probs = pool(np.random.default_rng(seed))
        available = np.random.default_rng(seed).random(NUM_POINTS) < 0.9
        checked, key = bb.check_log_probs(log_probs), jax.random.key(seed)
        targets = checked[:20] if name in WITH_TARGETS else None
        pending = jnp.asarray([3, -1, 70, 3])
        batch = select(
            log_probs,
            seed,
            acquisition=name,
            available=available,
            pending=pending,
            target_log_probs=targets if targets is None else np.asarray(log_probs)[:20],
        )
        expected = bb.catalogue()[name].select(
            key,
            bb.Inputs(checked, targets),
            batch_size=BATCH_SIZE,
            available=jnp.asarray(available),
            pending=pending,
        )
        assert batch.indices.tolist() == expected.indices.tolist()
        assert_nats(batch.scores, expected.scores)
        assert_nats(batch.gains, expected.gains)
        assert int(batch.diagnostics.num_tied) == int(expected.diagnostics.num_tied)
        assert int(batch.diagnostics.num_verified) == BATCH_SIZE


@pytest.mark.parametrize("num_left", [0, 4])
def test_pointwise_ties_of_more_points_than_are_kept(num_left: int):
    log_probs = np.tile(np.asarray(saturated(np.random.default_rng(0)))[:2], (75, 1, 1))
    available = np.ones(NUM_POINTS, bool)
    if num_left:
        available[num_left:] = False
    batch = select(log_probs, acquisition="bald", available=available)
    expected = bb.catalogue()["bald"].select(
        jax.random.key(0),
        bb.Inputs(bb.check_log_probs(log_probs)),
        batch_size=BATCH_SIZE,
        available=jnp.asarray(available),
        pending=None,
    )
    assert batch.indices.tolist() == expected.indices.tolist()
    assert int(batch.diagnostics.num_tied) == int(expected.diagnostics.num_tied)
    assert_nats(batch.scores, expected.scores)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer": 20}, "buffer: 20 points are too few"),
        ({"acquisition": "kbald"}, "none of batchbald"),
        ({"acquisition": "epig"}, "requires predictions for targets"),
        ({"target_log_probs": np.zeros((1, 12, 4))}, "does not look at"),
        ({"available": np.ones(3, bool)}, "is no mask"),
        ({"available": np.zeros(NUM_POINTS, bool)}, "no point is left"),
        ({"pending": np.ones(3)}, "flat list of indices"),
        ({"max_passes": 0}, "max_passes: 0"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        select(saturated(np.random.default_rng(0)), **options)


MEMORY = """
import re, sys, threading, time
import jax
import bbald_jax as bb

peak, is_over = 0, False

def watch():
    global peak
    while not is_over:
        text = open("/proc/self/smaps_rollup").read()
        peak = max(peak, int(re.search(r"Anonymous: *([0-9]+) kB", text)[1]))
        time.sleep(0.02)

def select(path):
    batch = bb.select_stream(
        jax.random.key(0), path, batch_size=5, buffer=4_000, chunk_size=8_192,
        num_configurations=1_000,
    )
    assert int(batch.diagnostics.num_passes) >= 2
    return batch.indices.tolist()

select(sys.argv[1])
thread = threading.Thread(target=watch)
thread.start()
select(sys.argv[2])
is_over = True
thread.join()
print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="tells what is resident")
def test_memory_does_not_grow_with_the_pool(tmp_path: Path):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((20, 8, 10)).astype(np.float32)
    peaks = []
    for factor in (1, 6):
        path = tmp_path / f"{factor}.npy"
        array = np.lib.format.open_memmap(path, "w+", np.float16, (factor * 60_000, 20, 10))
        for part in np.array_split(array, factor):
            inputs = rng.standard_normal((len(part), 8)).astype(np.float32)
            part[:] = jax.nn.log_softmax(np.einsum("nd,kdc->nkc", inputs, weights))
        array.flush()
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "1.npy"), str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert result.returncode == 0, result.stderr
        peaks.append(1024 * int(result.stdout))
    # Five times 24 MB more are read, and would be 240 MB in float32; allocators differ by some 30.
    assert peaks[1] - peaks[0] < 60e6, peaks
