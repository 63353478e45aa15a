"""`bb.select` for predictions that are read piece by piece: the same batch, in less memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.inputs import NUM_TARGETS, random_targets
from bbald_jax.acquisition.passes import StreamProgress
from bbald_jax.acquisition.selection import (
    Selection,
    available_points,
    doubts_about,
    listed_points,
    predicted_classes,
)
from bbald_jax.acquisition.streamed import WITH_TARGETS, select_stream
from bbald_jax.acquisition.warnings import arbitrary, what_differs
from bbald_jax.validation import Kind, from_kind

# Bytes that a point takes, for each number of its prediction: in the buffer as it is read, in
# float32, and twice in what is made of that; in a piece once more, and two pieces are in work.
_IN_BUFFER = 20
_IN_PIECE = 60
_MOST_BUFFERED, _MOST_READ = 50_000, 16_384
_FEWEST = 256


def sizes_for(memory: float, shape: tuple[int, ...]) -> tuple[int, int]:
    """`buffer` and `chunk_size` of `select_stream` that fit in so many bytes, as a rule."""
    numbers = shape[1] * shape[2]
    buffer = int(memory / 2 / (_IN_BUFFER * numbers))
    chunk_size = int(memory / 4 / (_IN_PIECE * numbers))
    return (
        max(_FEWEST, min(_MOST_BUFFERED, buffer)),
        max(_FEWEST, min(_MOST_READ, chunk_size)),
    )


def select_from_source(
    source: Any,
    *,
    kind: Kind,
    memory: float,
    batch_size: int = 10,
    acquisition: str = "batchbald",
    axes: str = "NKC",
    candidates: Any = None,
    exclude: Any = None,
    pending: Any = None,
    targets: Any = None,
    num_configurations: int = 10_000,
    seed: int = 0,
    progress: Callable[[StreamProgress], None] | None = None,
) -> Selection:
    """What `bb.select` answers, for a source of shape `[N, K, C]`.

    Args:
      source: see `select_stream`.
      kind: and what follows: see `bb.select`.
      memory: bytes that it may take, about.
      batch_size: see `bb.select`.
      acquisition: one of `streamed.STREAMED`.
      axes: the order in which the source was before it was brought to `[N, K, C]`, for a warning.
      candidates: see `bb.select`.
      exclude: see `bb.select`.
      pending: see `bb.select`.
      targets: `[T, K, C]`.
      num_configurations: see `bb.select`.
      seed: see `bb.select`.
      progress: see `select_stream`.

    Raises:
      ValueError: see `bb.select` and `select_stream`.
    """
    shape = tuple(source.shape)
    conditions = listed_points(pending, shape[0], "pending")
    available = available_points(shape[0], candidates, exclude, conditions)
    num_available = int(available.sum())
    key = jax.random.key(int(seed))
    stand_ins = np.zeros(0, np.int64)
    if targets is None and acquisition in WITH_TARGETS:
        key, target_key = jax.random.split(key)
        stand_ins = np.asarray(random_targets(target_key, shape[0], NUM_TARGETS))
        targets = _rows(source, stand_ins)
    buffer, chunk_size = sizes_for(memory, shape)
    batch = select_stream(
        key,
        source,
        batch_size=min(int(batch_size), num_available),
        kind=kind,
        acquisition=acquisition,
        target_log_probs=targets,
        num_configurations=num_configurations,
        available=available,
        pending=conditions if conditions.size else None,
        buffer=max(buffer, 4 * batch_size + conditions.size),
        chunk_size=chunk_size,
        progress=progress,
    )
    batch = jax.device_get(batch)
    is_filled = batch.indices >= 0
    indices = batch.indices[is_filled]
    chosen = from_kind(_rows(source, indices), kind)
    differs = _differs(source, kind, chosen, available, indices, chunk_size)
    return Selection(
        indices=indices,
        gains=batch.gains[is_filled],
        scores=batch.scores[is_filled],
        predicted_classes=predicted_classes(chosen),
        diagnostics=batch.diagnostics,
        warnings=(
            *doubts_about(shape, axes, batch_size, indices.size),
            *arbitrary(acquisition, shape[1], num_available, batch, differs),
        ),
        targets=stand_ins,
    )


def _rows(source: Any, indices: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(source[int(i) : int(i) + 1]) for i in indices])


def _differs(
    source: Any,
    kind: Kind,
    chosen: Any,
    available: np.ndarray,
    indices: np.ndarray,
    chunk_size: int,
) -> tuple[bool, bool]:
    """`what_differs` of the whole pool: of the chosen points first, and mostly no further."""
    of_samples, of_points = what_differs(
        chosen, np.arange(len(indices)), np.ones(len(indices), bool)
    )
    for start in range(0, len(available), chunk_size):
        if of_samples and of_points:
            break
        places = start + np.flatnonzero(available[start : start + chunk_size])
        if places.size:
            rows = np.asarray(source[start : start + chunk_size])[places - start]
            both = jnp.concatenate([chosen[:1], from_kind(rows, kind)])
            more = what_differs(both, np.zeros(1, int), np.ones(len(both), bool))
            of_samples, of_points = of_samples or more[0], of_points or more[1]
    return of_samples, of_points
