"""A joint selection from a pool that is read in passes: guess inside a buffer, then verify outside.

The first pass keeps the best points by their own scores. The greedy batch of these is a guess at
that of the pool. A further pass looks for points that would have been taken instead, step by step,
given the steps before; they join the buffer, and the guess is made again. The first step that was
contested is then settled, as all points have been seen against what came before it: so every pass
settles one step at least, and mostly all that are left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.buffer import Buffer
from bbald_jax.acquisition.contest import Contest, Guess, priorities_of
from bbald_jax.acquisition.pieces import Piece, Pieces
from bbald_jax.acquisition.verification import Found
from bbald_jax.typing import Key

# What outranks any score that a point has by itself, and any of an earlier pass.
_JOINED = 1e3


class StreamProgress(NamedTuple):
    """How far a selection from a source is.

    Attributes:
      num_pass: which pass over the source this is, from 1 on.
      num_read: points that were read in it.
      num_points: N.
    """

    num_pass: int
    num_read: int
    num_points: int


@runtime_checkable
class Method(Protocol):
    """A joint acquisition function."""

    ties_key: Key

    def rank(self, piece: Piece) -> Any:
        """`[n]`, scores that order the points of a new piece for the buffer."""
        ...

    def guess(self, log_probs: Any, numbers: Any, available: Any, pending: Any) -> Guess:
        """The greedy batch of the points `numbers`."""
        ...

    def prepare(self, guess: Guess, is_on: np.ndarray) -> Any:
        """What is needed to examine pieces against some of the steps."""
        ...

    def examine(self, prepared: Any, piece: Piece, **options: Any) -> Found:
        """What a piece holds against the steps."""
        ...


class Settled(NamedTuple):
    """A guess that has been verified.

    Attributes:
      guess: as far as it goes.
      numbers: `[R]`, what the points of the buffer are called in the pool.
      buffer: the buffer itself.
      num_settled: steps that are those of the whole pool.
      upper_gains: for the steps that want all, by step: upper bounds on the B best gains of the
        pool; only of steps that are settled.
      work: evaluations of a point on a node in the verification.
      num_passes: passes over the source.
    """

    guess: Guess
    buffer: Buffer
    num_settled: int
    upper_gains: dict[int, np.ndarray]
    work: float
    num_passes: int


def settle(
    method: Method,
    pieces: Pieces,
    *,
    batch_size: int,
    buffer_size: int,
    available: np.ndarray | None,
    pending: np.ndarray,
    max_passes: int | None,
    progress: Callable[[StreamProgress], None] | None,
) -> Settled:
    """The greedy batch of a pool, in as many passes as it takes; see the top of this file."""
    run = _Run(method, pieces, batch_size, available, pending, progress)
    buffer, is_complete = run.collect(buffer_size)
    num_settled, num_passes, work = 0, 1, 0.0
    upper_gains: dict[int, np.ndarray] = {}
    expected: int | None = None
    while True:
        guess = run.guess(buffer)
        num_steps = len(guess.is_open)
        if is_complete:
            upper_gains = {int(s): guess.gains[s] for s in np.flatnonzero(guess.wants_all)}
            return Settled(guess, buffer, num_steps, upper_gains, 0.0, num_passes)
        if expected is not None:
            chosen = buffer.numbers[np.asarray(guess.batch.indices)[num_settled]]
            num_settled += int(chosen == expected)
        is_on = guess.is_open & (np.arange(num_steps) >= num_settled)
        if not is_on.any():
            return Settled(guess, buffer, num_steps, upper_gains, work, num_passes)
        if num_passes == max_passes:
            return Settled(guess, buffer, num_settled, upper_gains, work, num_passes)
        num_passes += 1
        verdict = run.verify(guess, buffer, is_on, num_passes)
        work += verdict.work
        contested = [s for s, number in enumerate(verdict.winners) if number is not None]
        first = contested[0] if contested else num_steps
        upper_gains |= {s: gains for s, gains in verdict.upper_gains.items() if s <= first}
        if not contested:
            return Settled(guess, buffer, num_steps, upper_gains, work, num_passes)
        num_settled, expected = first, verdict.winners[first]
        # Whoever was chosen before stays.
        buffer.ranks[np.asarray(guess.batch.indices)[:first]] = np.inf
        joined = verdict.challengers
        is_there = joined.numbers >= 0
        ranks = joined.ranks[is_there] + _JOINED * num_passes
        buffer.offer(joined.numbers[is_there], ranks, joined.rows[is_there])


class _Verdict(NamedTuple):
    """What a pass has found: who should have been taken in each step, if not the one that was."""

    winners: list[int | None]
    challengers: Buffer
    upper_gains: dict[int, np.ndarray]
    work: float


def open_points(
    piece: Piece, size: int, available: np.ndarray | None, pending: np.ndarray
) -> np.ndarray:
    """Which points of a piece may be chosen, as a mask as long as the padded piece."""
    start, stop = piece.start, piece.start + len(piece.rows)
    is_open = np.zeros(size, bool)
    is_open[: stop - start] = piece.is_valid
    if available is not None:
        is_open[: stop - start] &= available[start:stop]
    is_open[pending[(pending >= start) & (pending < stop)] - start] = False
    return is_open


class _Run:
    """What stays the same from pass to pass."""

    def __init__(
        self,
        method: Method,
        pieces: Pieces,
        batch_size: int,
        available: np.ndarray | None,
        pending: np.ndarray,
        progress: Callable[[StreamProgress], None] | None,
    ) -> None:
        self.method, self.pieces, self.batch_size = method, pieces, batch_size
        self.available, self.pending, self.progress = available, pending, progress

    def _report(self, num_pass: int, piece: Piece) -> None:
        if self.progress is not None:
            self.progress(
                StreamProgress(num_pass, piece.start + len(piece.rows), self.pieces.shape[0])
            )

    def collect(self, buffer_size: int) -> tuple[Buffer, bool]:
        """The first pass: the best points by their own scores, and whether those are all.

        With them come the pending points, and the points that the key puts first: from steps on in
        which nothing is to be gained they are taken.
        """
        size = min(buffer_size, self.pieces.shape[0])
        best = drawn = pending = None
        num_open = 0
        for piece, scores in self.pieces.each(lambda: self.method.rank):
            if best is None or drawn is None or pending is None:
                row = piece.rows.shape[1:], piece.rows.dtype
                best = Buffer(size, *row)
                drawn = Buffer(min(self.batch_size, size), *row)
                pending = Buffer(max(1, len(self.pending)), *row)
            numbers = piece.start + np.arange(len(piece.rows))
            size = len(piece.rows)
            is_open = open_points(piece, size, self.available, self.pending)
            num_open += int(is_open.sum())
            best.offer(numbers, np.where(is_open, np.float64(scores), -np.inf), piece.rows)
            priority = priorities_of(self.method.ties_key, piece.start, size).astype(np.float64)
            drawn.offer(numbers, np.where(is_open, priority, -np.inf), piece.rows)
            is_pending = np.isin(numbers, self.pending) & piece.is_valid
            pending.offer(numbers, np.where(is_pending, 0, -np.inf), piece.rows)
            self._report(1, piece)
        assert best is not None and drawn is not None and pending is not None
        for pinned in (drawn, pending):
            is_there = pinned.numbers >= 0
            is_new = is_there & ~np.isin(pinned.numbers, best.numbers)
            best.ranks[np.isin(best.numbers, pinned.numbers[is_there])] = np.inf
            best.offer(pinned.numbers[is_new], np.full(is_new.sum(), np.inf), pinned.rows[is_new])
        is_choice = (best.numbers >= 0) & ~np.isin(best.numbers, self.pending)
        return best, int(is_choice.sum()) == num_open

    def guess(self, buffer: Buffer) -> Guess:
        """The greedy batch of the buffer."""
        is_there = buffer.numbers >= 0
        if not is_there.any():
            raise ValueError("available: no point is left to choose from")
        rows = buffer.rows
        if not is_there.all():  # any valid row will do
            rows = np.where(is_there[:, None, None], rows, rows[np.argmax(is_there)])
        is_pending = np.isin(buffer.numbers, self.pending)
        places = {int(n): place for place, n in enumerate(buffer.numbers) if n >= 0}
        pending = [places.get(int(number), -1) for number in self.pending]
        return self.method.guess(
            self.pieces.log_probs(rows),
            jnp.asarray(np.maximum(buffer.numbers, 0), jnp.int32),
            jnp.asarray(is_there & ~is_pending),
            jnp.asarray(pending, jnp.int32) if pending else None,
        )

    def verify(self, guess: Guess, buffer: Buffer, is_on: np.ndarray, num_pass: int) -> _Verdict:
        """A pass over the pool: does any point outside the buffer change a step that is on?"""
        prepared = self.method.prepare(guess, is_on)
        contest = Contest(guess, is_on, buffer, self.method.ties_key, self.batch_size)
        work = 0.0

        def looks() -> Callable[[Piece], tuple[np.ndarray, Found | None]]:
            thresholds, bests = contest.thresholds(), contest.bests.copy()

            def look(piece: Piece) -> tuple[np.ndarray, Found | None]:
                size = self.pieces.piece_size
                priority = priorities_of(self.method.ties_key, piece.start, size)
                is_open = open_points(piece, size, self.available, self.pending)
                is_open[buffer.places(piece.start, piece.start + len(piece.rows))] = False
                if not is_open.any():
                    return priority, None
                options = {"thresholds": thresholds, "bests": bests, "available": is_open}
                found = self.method.examine(prepared, piece, priority=priority, **options)
                return priority, jax.device_get(found)

            return look

        for piece, (priority, found) in self.pieces.each(looks):
            if found is not None:
                work += float(found.work)
                contest.hear(piece, priority, found)
            self._report(num_pass, piece)
        return _Verdict(contest.winners, contest.challengers, contest.upper_gains, work)
