"""How large the tiles of work are: the one place that knows the machine.

No function holds a whole `[N, M, C]`; it works through tiles of it. On a CPU a tile should stay in
the cache of its cores. On an accelerator it should be large enough to keep the device busy, and
memory alone limits it.
"""

from typing import NamedTuple

import jax


class Tiling(NamedTuple):
    """Sizes of tiles, in array elements or rows.

    Attributes:
      predictive: elements of a tile of `[configurations, points, C]` predictive probabilities.
      children: elements of a tile of `[configurations, C, K]` child weights.
      outcomes: (point, class) pairs on either side of a tile of joint probabilities.
      rows: configurations that are compared with others at a time.
      block: candidates that are evaluated between two looks at what can still win.
    """

    predictive: int
    children: int
    outcomes: int
    rows: int
    block: int


_CPU = Tiling(predictive=5 * 2**17, children=2**20, outcomes=640, rows=128, block=32)
_ACCELERATOR = Tiling(predictive=2**26, children=2**23, outcomes=2**12, rows=2**11, block=256)


def tiling() -> Tiling:
    """The tiles for JAX's default backend (asked at trace time: sizes are static)."""
    return _CPU if jax.default_backend() == "cpu" else _ACCELERATOR
