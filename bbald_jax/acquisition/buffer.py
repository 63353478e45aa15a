"""The points of a streamed pool that a selection is tried on: the best so far, of fixed number."""

import numpy as np


class Buffer:
    """Rows, what their points are called, and a rank that says which of them stay.

    Args:
      size: how many points there is room for.
      shape: `[K, C]` of a row.
      dtype: of the rows.

    Attributes:
      numbers: `[size]`, indices into the pool; -1 where there is room.
      ranks: `[size]`, `-inf` where there is room.
      rows: `[size, K, C]`.
    """

    def __init__(self, size: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.numbers = np.full(size, -1, np.int64)
        self.ranks = np.full(size, -np.inf)
        self.rows = np.zeros((size, *shape), dtype)

    def offer(self, numbers: np.ndarray, ranks: np.ndarray, rows: np.ndarray) -> None:
        """Take in the points that rank above those that would have to go for them.

        Args:
          numbers: none of them in the buffer.
          ranks: `-inf` for a point that is never taken in.
          rows: of these points.
        """
        (chosen,) = np.nonzero(ranks > self.ranks.min())
        if not chosen.size:
            return
        size = self.ranks.size
        both = np.concatenate([self.ranks, ranks[chosen]])
        stay = np.zeros(both.size, bool)
        stay[np.argpartition(-both, size - 1)[:size]] = True
        (free,) = np.nonzero(~stay[:size])
        new = chosen[stay[size:]]
        self.numbers[free], self.ranks[free] = numbers[new], ranks[new]
        self.rows[free] = rows[new]

    def places(self, start: int, stop: int) -> np.ndarray:
        """Which of the points `start` to `stop - 1` are here, counted from `start`."""
        return self.numbers[(self.numbers >= start) & (self.numbers < stop)] - start

    def place(self, number: int) -> int:
        """Where a point is that is here."""
        return int(np.flatnonzero(self.numbers == number)[0])
