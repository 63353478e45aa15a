"""A pool of predictions that is read piece by piece, and checked on the way.

Checks and conversions run on the device, in the program that looks at the piece. What they find odd
is looked at once more on the host, by `validation.py`, which says what is wrong.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from bbald_jax.information.entropy import xlogx
from bbald_jax.information.gains import Candidates
from bbald_jax.tiling import tiling
from bbald_jax.typing import LogProbs
from bbald_jax.validation import Kind, checked_rows, from_kind, result_of

#: What becomes of a point with a NaN or an infinity: an error, or it is left out.
OnInvalid = Literal["error", "skip"]

# The device computes in float32, so it is a little stricter than the host.
_STRICTER = 0.99
# Knuth's multiplier, and odd: consecutive numbers are scattered over 32 bits.
_SCATTER = 2654435761


# Pieces in work: while one is being read, the device has another. The number must not depend on the
# machine, as what a look looks for depends on what was found before.
_AT_ONCE = 2

T = TypeVar("T")


class Piece(NamedTuple):
    """Some rows of a source.

    Attributes:
      start: the index of the first row.
      rows: `[n, K, C]`, as they were read.
      values: on the device, of the kind `kind`; padding after the n-th row makes all pieces alike.
      kind: that of `values`.
      is_valid: `[n]`, False for a point that is left out.
      scores: `[n]`, `I[y_n; w]`, when the piece is read for the first time.
    """

    start: int
    rows: np.ndarray
    values: Array
    kind: Kind
    is_valid: np.ndarray
    scores: np.ndarray | None


class Pieces:
    """A source, read from its beginning to its end as often as needed.

    Every pass must see the same values: a fingerprint of each piece is kept.

    Args:
      source: `[N, K, C]`, anything with `shape` that `[a:b]` makes an array of.
      kind: `"probs"`, `"logits"` or `"log-probs"`.
      piece_size: rows that are read at a time.
      on_invalid: see `OnInvalid`.

    Raises:
      ValueError: no such kind, or a source of another shape.
    """

    def __init__(self, source: Any, kind: Kind, piece_size: int, on_invalid: OnInvalid) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"kind: {kind!r} is none of {', '.join(get_args(Kind))}")
        if on_invalid not in get_args(OnInvalid):
            raise ValueError(
                f"on_invalid: {on_invalid!r} is none of {', '.join(get_args(OnInvalid))}"
            )
        shape = tuple(map(int, getattr(source, "shape", ())))
        if len(shape) != 3 or 0 in shape:
            raise ValueError(
                f"source: shape {shape}, expected [N, K, C] without an empty axis: predictions of "
                "N points by K samples for C classes"
            )
        self._source, self._on_invalid = source, on_invalid
        self._kind: Kind = kind
        self.shape = shape
        self.piece_size = min(piece_size, shape[0])
        self.num_invalid = 0
        self._fingerprints: dict[int, int] = {}
        self._is_odd: dict[int, bool] = {}
        self._lock = Lock()

    def each(self, looks: Callable[[], Callable[[Piece], T]]) -> Iterator[tuple[Piece, T]]:
        """All pieces in order, and what a look at each has found; two are looked at at a time.

        Args:
          looks: makes the look at the next piece, when all pieces but the one before it have been
            handed out.

        Raises:
          ValueError: a row is not what `kind` says, or the source is not what it was before.
        """
        waiting: deque[Future[tuple[Piece, T]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            for start in range(0, self.shape[0], self.piece_size):
                waiting.append(workers.submit(self._look, start, looks()))
                if len(waiting) == _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _look(self, start: int, look: Callable[[Piece], T]) -> tuple[Piece, T]:
        piece = self._read(start)
        return piece, look(piece)

    def _read(self, start: int) -> Piece:
        """The piece that begins with row `start`, checked."""
        with self._lock:  # whoever makes predictions need not be ready for two threads
            rows = self.rows(start, min(start + self.piece_size, self.shape[0]))
        values = jnp.asarray(_padded(rows, self.piece_size))
        fingerprint = int(_fingerprint(values))
        if self._fingerprints.setdefault(start, fingerprint) != fingerprint:
            raise ValueError(
                f"source: rows {start} to {start + len(rows) - 1} are not what they were when they "
                "were first read; do not write to predictions during a selection, and let the same "
                "networks make them every time"
            )
        piece = Piece(start, rows, values, self._kind, np.ones(len(rows), bool), None)
        if start not in self._is_odd:
            scores, is_odd = jax.device_get(information(values, self._kind))
            self._is_odd[start] = bool(is_odd[: len(rows)].any())
            piece = piece._replace(scores=scores[: len(rows)])
        return self._second_look(piece) if self._is_odd[start] else piece

    def _second_look(self, piece: Piece) -> Piece:
        """What the device does not like, by the host's more careful checks."""
        chunk = piece.rows.astype(np.float64)
        is_valid = piece.is_valid
        if self._on_invalid == "skip":
            is_valid = ~(np.isnan(chunk) | (chunk == np.inf)).any(axis=(1, 2))
            uniform = 1 / chunk.shape[2]
            chunk[~is_valid] = uniform if self._kind == "probs" else np.log(uniform)
        dtype, tolerance = result_of(piece.rows.dtype)
        name = self._kind.replace("-", "_")
        with np.errstate(over="ignore"):
            log_probs = checked_rows(chunk, piece.start, self._kind, name, tolerance)
        values = jnp.asarray(_padded(log_probs.astype(dtype), self.piece_size))
        scores = None
        if piece.scores is not None:
            scores = np.asarray(information(values, "log-probs")[0])[: len(chunk)]
            with self._lock:
                self.num_invalid += int(np.sum(~is_valid))
        return Piece(piece.start, piece.rows, values, "log-probs", is_valid, scores)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as they are in the source."""
        rows = np.asarray(self._source[start:stop])
        if rows.shape != (stop - start, *self.shape[1:]):
            raise ValueError(
                f"source: rows {start} to {stop - 1} came as an array of shape {rows.shape}, "
                f"expected {(stop - start, *self.shape[1:])}: has it become shorter?"
            )
        if rows.dtype.kind not in "fbiu" and rows.dtype.name != "bfloat16":
            raise ValueError(f"source: dtype {rows.dtype} does not hold real numbers; pass floats")
        return rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("="))

    def log_probs(self, rows: np.ndarray) -> LogProbs:
        """Valid rows of any pieces as they would be in memory: converted by the host."""
        return from_kind(rows, self._kind)


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """The last piece as long as the others, for their compiled programs."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def normalised(values: Float[Array, "n K C"], kind: Kind) -> LogProbs:
    """Log-probabilities of predictions of a kind, normalised again; for odd rows anything."""
    dtype = result_of(np.dtype(values.dtype))[0]
    values = values.astype(dtype)
    if kind == "probs":
        return jnp.log(values) - jnp.log(jnp.sum(values, axis=-1, keepdims=True))
    centred = values - jnp.max(values, axis=-1, keepdims=True)
    return centred - jnp.log(jnp.sum(jnp.exp(centred), axis=-1, keepdims=True))


def _distributions(
    values: Array, kind: Kind
) -> tuple[Float[Array, "n K C"], Float[Array, "n K"], Bool[Array, "n K"]]:
    """Probabilities, normalised again, their entropies, and where the host must look.

    What has more than one user is made once: XLA would make it again for each of them.
    """
    dtype, tolerance = result_of(np.dtype(values.dtype))
    once = lax.optimization_barrier
    values = once(values.astype(dtype))
    if kind == "probs":
        total = once(jnp.sum(values, axis=-1))
        probs = once(values / total[..., None])
        entropies = -jnp.sum(xlogx(probs), axis=-1)
        is_odd = jnp.min(values, axis=-1) < 0
    else:
        largest = once(jnp.max(values, axis=-1))
        unnormalised = once(jnp.exp(values - largest[..., None]))
        total = once(jnp.sum(unnormalised, axis=-1))
        # 0 times the least number is 0, where 0 * -inf would be NaN.
        centred = jnp.maximum(values - largest[..., None], jnp.finfo(dtype).min)
        moment = once(jnp.sum(unnormalised * centred, axis=-1))
        probs, entropies = unnormalised / total[..., None], jnp.log(total) - moment / total
        is_odd = jnp.zeros(total.shape, bool)
        if kind == "log-probs":
            is_odd = largest > tolerance
            total = total * jnp.exp(largest)
    is_odd |= ~jnp.isfinite(total)
    if kind != "logits":
        is_odd |= ~(jnp.abs(total - 1) <= _STRICTER * tolerance)
    return probs, entropies, is_odd


def _tiled(function: Callable[[Array], Any], values: Array) -> Any:
    """`function` of some rows at a time, which then stay in the cache."""
    num_points = values.shape[0]
    size = min(num_points, max(1, tiling().predictive // values[0].size))
    out = jax.eval_shape(function, jax.ShapeDtypeStruct((size, *values.shape[1:]), values.dtype))
    start = jax.tree.map(lambda leaf: jnp.zeros((num_points, *leaf.shape[1:]), leaf.dtype), out)

    def add(i: Array, result: Any) -> Any:
        first = jnp.minimum(i * size, num_points - size)  # the last one ends with the array
        part = function(lax.dynamic_slice_in_dim(values, first, size))
        update = partial(lax.dynamic_update_slice_in_dim, start_index=first, axis=0)
        return jax.tree.map(update, result, part)

    return lax.fori_loop(0, -(-num_points // size), add, start)


def candidates_of(values: Array, kind: Kind) -> Candidates:
    """`gains.candidates` of predictions of any kind, normalised again."""

    def tile(values: Array) -> Candidates:
        probs, entropies, _ = _distributions(values, kind)
        return Candidates(jnp.swapaxes(probs, 1, 2), entropies)

    return _tiled(tile, values)


@partial(jax.jit, static_argnames="kind")
def information(values: Array, kind: Kind) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """`I[y_n; w]` of predictions of any kind, and which points the host must look at."""

    def tile(values: Array) -> tuple[Array, Array]:
        probs, entropies, is_odd = _distributions(values, kind)
        mean = lax.optimization_barrier(jnp.mean(probs, axis=1))
        scores = -jnp.sum(xlogx(mean), axis=-1) - jnp.mean(entropies, axis=-1)
        return scores, jnp.any(is_odd, axis=-1)

    return _tiled(tile, values)


@jax.jit
def _fingerprint(values: Array) -> UInt32[Array, ""]:
    """A weighted sum of the bits, modulo 2^32; it moves, in all likelihood, with any value."""
    if values.dtype.kind == "f" or values.dtype == jnp.bfloat16:
        unsigned = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[values.dtype.itemsize]
        values = lax.bitcast_convert_type(values, unsigned)
    bits = values.astype(jnp.uint32).reshape(len(values), -1)
    across = (2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1) * jnp.uint32(_SCATTER)
    down = (2 * jnp.arange(len(bits), dtype=jnp.uint32) + 1) * jnp.uint32(_SCATTER)
    row = jnp.sum(bits * across, axis=1, dtype=jnp.uint32)
    # Mixed in between: else the sum would be one of products, which many changes leave as it is.
    row = (row ^ (row >> 15)) * jnp.uint32(0x85EBCA6B)
    return jnp.sum((row ^ (row >> 13)) * down, dtype=jnp.uint32)
