"""The points of highest score of a pool that is read once: `top.select_top` in pieces."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.contest import priorities_of
from bbald_jax.acquisition.passes import StreamProgress, open_points
from bbald_jax.acquisition.pieces import Piece, Pieces, normalised
from bbald_jax.acquisition.ties import SLACK
from bbald_jax.typing import CandidateBatch, Diagnostics, Key, LogProbs


def stream_top(
    key: Key,
    pieces: Pieces,
    score: Callable[[LogProbs], Any],
    *,
    batch_size: int,
    available: np.ndarray | None,
    pending: np.ndarray,
    progress: Callable[[StreamProgress], None] | None,
) -> CandidateBatch:
    """The B available points of highest score, drawn by the key where scores are equal.

    Kept are the points whose score is within `SLACK` of the B-th best one, or above it; of scores
    that are exactly equal no more than B points.

    Args:
      key: as in `select_top`.
      pieces: the source.
      score: of `[n, K, C]` log-probabilities, one number a point.
      batch_size: B.
      available: `[N]`, or None for all.
      pending: points that are not chosen.
      progress: see `select_stream`.
    """
    run = jax.jit(lambda values, kind: score(normalised(values, kind)), static_argnames="kind")

    def look(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        scores = np.asarray(run(piece.values, piece.kind), np.float32)
        return scores, priorities_of(key, piece.start, len(scores))

    numbers, kept = np.zeros(0, np.int64), np.zeros(0, np.float32)
    order, num_open = np.zeros(0, np.uint32), 0
    dropped: dict[float, int] = {}
    for piece, (scores, priority) in pieces.each(lambda: look):
        (here,) = np.nonzero(open_points(piece, len(scores), available, pending))
        num_open += here.size
        numbers = np.concatenate([numbers, piece.start + here])
        kept = np.concatenate([kept, scores[here]])
        order = np.concatenate([order, priority[here]])
        if kept.size > batch_size:
            least = np.partition(kept, -batch_size)[-batch_size]
            is_kept = kept >= least - np.float32(SLACK)
            # Of exact equals the first B: no more are ever taken, but all are counted.
            ranked = np.lexsort((~order, kept))
            _, first = np.unique(kept[ranked], return_index=True)
            place = np.arange(kept.size) - np.repeat(first, np.diff([*first, kept.size]))
            surplus = ranked[place >= batch_size]
            for value in kept[surplus[is_kept[surplus]]].tolist():
                dropped[value] = dropped.get(value, 0) + 1
            is_kept[surplus] = False
            numbers, kept, order = numbers[is_kept], kept[is_kept], order[is_kept]
        if progress is not None:
            progress(StreamProgress(1, piece.start + len(piece.rows), pieces.shape[0]))
    return _batch(numbers, kept, order, dropped, batch_size, num_open, pieces.num_invalid)


def _batch(
    numbers: np.ndarray,
    kept: np.ndarray,
    order: np.ndarray,
    dropped: dict[float, int],
    batch_size: int,
    num_open: int,
    num_invalid: int,
) -> CandidateBatch:
    """As `select_top` fills the slots: groups of equals, each begun by the best that is left."""
    slack = np.float32(SLACK)
    ranked = np.argsort(-kept, kind="stable")
    chosen: list[int] = []
    while len(chosen) < min(batch_size, num_open):
        left = ranked[len(chosen) :]
        group = left[kept[left] >= kept[left[0]] - slack]
        group = group[np.argsort(~order[group], kind="stable")]
        ranked[len(chosen) : len(chosen) + group.size] = group
        chosen += group[: batch_size - len(chosen)].tolist()
    places = np.array(chosen, int)
    num_empty = batch_size - places.size
    last = kept[places[-1]] if places.size else np.float32(0)
    with np.errstate(invalid="ignore"):  # infinite scores have no difference
        num_tied = int(np.sum((np.abs(kept - last) <= slack) | (kept == last)))
        num_tied += sum(
            count
            for value, count in dropped.items()
            if value == last or abs(np.float32(value) - last) <= slack
        )
    return CandidateBatch(
        indices=jnp.asarray(np.append(numbers[places], [-1] * num_empty), jnp.int32),
        scores=jnp.asarray(np.append(kept[places], [last] * num_empty), jnp.float32),
        gains=jnp.asarray(np.append(kept[places], [0] * num_empty), jnp.float32),
        diagnostics=Diagnostics(
            num_invalid=jnp.int32(num_invalid),
            is_exact=jnp.ones(batch_size, bool),
            num_tied=jnp.int32(num_tied if places.size else 0),
            num_verified=jnp.int32(places.size),
            num_passes=jnp.int32(1),
        ),
    )
