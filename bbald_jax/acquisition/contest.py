"""A guess at the batch of a pool, and who in the pool contests it, step by step."""

from typing import Any, NamedTuple

import jax
import numpy as np

from bbald_jax.acquisition.buffer import Buffer
from bbald_jax.acquisition.pieces import Piece
from bbald_jax.acquisition.ties import SLACK, priorities
from bbald_jax.acquisition.verification import Found
from bbald_jax.typing import CandidateBatch, Key

#: Points that come this near to the best gain of a step join the buffer too: where one step changes
#: the next ones do, and another pass costs more than looking at these.
MARGIN = 0.05


class Guess(NamedTuple):
    """The greedy batch of the buffer.

    Attributes:
      batch: its indices are places in the buffer.
      gains: `[S, B]`, the best gains of every step, best first. The one after the B-th is no
        choice: its gains bound what was missed.
      is_open: `[S]`, whether the step could be contested.
      wants_all: `[S]`, whether all B best gains are wanted, not only the first.
      tolerance: `[S]`, by how much those may be missed.
      details: what `Method.examine` needs to know.
    """

    batch: CandidateBatch
    gains: np.ndarray
    is_open: np.ndarray
    wants_all: np.ndarray
    tolerance: np.ndarray
    details: Any


class Contest:
    """The steps of a guess, and who would be taken instead, as far as the pool has been seen."""

    def __init__(
        self, guess: Guess, is_on: np.ndarray, buffer: Buffer, ties_key: Key, batch_size: int
    ) -> None:
        self.guess, self.is_on = guess, is_on
        self.num_choices = min(batch_size, len(is_on))
        self.bests = guess.gains[:, 0].astype(np.float32)  # a copy
        self.winners: list[int | None] = [None] * len(is_on)
        self.upper_gains = {int(s): guess.gains[s] for s in np.flatnonzero(guess.wants_all & is_on)}
        size = max(1, buffer.ranks.size // 2)
        self.challengers = Buffer(size, buffer.rows.shape[1:], buffer.rows.dtype)
        # Who stands in each step: priority, and gain as far as it is known.
        chosen = buffer.numbers[np.asarray(guess.batch.indices)[: self.num_choices]]
        self.priorities = np.array(_priorities(ties_key, chosen.astype(np.int32)))
        self.gains = np.array(guess.batch.gains, np.float32)[: self.num_choices]

    def thresholds(self) -> np.ndarray:
        """What a gain must exceed to be of interest."""
        values = np.maximum((1 - MARGIN) * self.bests - SLACK, SLACK)
        values[self.num_choices :] = np.inf
        for s, gains in self.upper_gains.items():
            last = float(gains[-1]) + float(self.guess.tolerance[s]) - SLACK
            values[s] = max(min(values[s], last), SLACK)
        return np.where(self.is_on, values, np.inf).astype(np.float32)

    def hear(self, piece: Piece, priority: np.ndarray, found: Found) -> None:
        """Take note of what was found in a piece."""
        ranks = np.full(len(piece.rows), -np.inf)
        for s in np.flatnonzero(self.is_on).tolist():
            if s in self.upper_gains:
                both = np.concatenate([self.upper_gains[s], found.upper_gains[s]])
                self.upper_gains[s] = -np.sort(-both)[: self.guess.gains.shape[1]]
            if s >= self.num_choices:
                continue
            is_there = found.gains[s] > max((1 - MARGIN) * self.bests[s], SLACK)
            gains, places = found.gains[s][is_there], found.places[s][is_there]
            # Who beats an early step comes before who is near in a later one.
            weight = np.where(gains > self.bests[s], 2.0 * (len(self.is_on) - s), 0)
            np.maximum.at(ranks, places, weight + gains / max(self.bests[s], SLACK))
            self._take(s, piece, priority, found, ranks)
        (places,) = np.nonzero(ranks > -np.inf)
        self.challengers.offer(piece.start + places, ranks[places], piece.rows[places])

    def _take(
        self, s: int, piece: Piece, priority: np.ndarray, found: Found, ranks: np.ndarray
    ) -> None:
        """The point of the piece that the step takes instead, if there is one."""
        gain, place = float(found.first_gains[s]), int(found.first[s])
        best = max(float(self.bests[s]), float(found.gains[s, 0]))
        self.bests[s] = best
        # Up to there all points are equal, and the buffer has the first of all.
        if gain == -np.inf or best <= 2 * SLACK:
            return
        stands = self.gains[s] >= best - SLACK
        if not stands or priority[place] > self.priorities[s]:
            self.winners[s] = piece.start + place
            self.priorities[s], self.gains[s] = priority[place], gain
            ranks[place] = max(ranks[place], 2.0 * (len(self.is_on) - s) + 1.5)


def priorities_of(key: Key, start: int, size: int) -> np.ndarray:
    """The priorities of consecutive points of the pool."""
    return np.asarray(_priorities(key, start + np.arange(size, dtype=np.int32)))


@jax.jit
def _priorities(key: Key, numbers: Any) -> Any:
    return priorities(key, numbers)
