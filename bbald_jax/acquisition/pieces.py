"""A pool of predictions that is read piece by piece, and checked on the way.

Checks and conversions run on the device, in the program that looks at the piece. What they find odd
is looked at once more on the host, by `validation.py`, which says what is wrong.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from bbald_jax.typing import LogProbs
from bbald_jax.validation import Kind, checked_rows, from_kind, result_of

#: What becomes of a point with a NaN or an infinity: an error, or it is left out.
OnInvalid = Literal["error", "skip"]

# The device computes in float32, so it is a little stricter than the host.
_STRICTER = 0.99
# Knuth's multiplier, and odd: consecutive numbers are scattered over 32 bits.
_SCATTER = 2654435761


class Piece(NamedTuple):
    """Some rows of a source.

    Attributes:
      start: the index of the first row.
      size: how many rows are the source's; those after them are padding.
      rows: `[size, K, C]`, as they were read.
      values: `[n, K, C]`, on the device, of the kind `kind`.
      kind: that of `values`.
      is_valid: `[size]`, False for a point that is left out.
    """

    start: int
    size: int
    rows: np.ndarray
    values: Array
    kind: Kind
    is_valid: np.ndarray


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
        self._source, self._kind, self._on_invalid = source, kind, on_invalid
        self.shape = shape
        self.piece_size = min(piece_size, shape[0])
        self.num_invalid = 0
        self._fingerprints: dict[int, int] = {}
        self._odd: set[int] = set()

    def __iter__(self) -> Iterator[Piece]:
        """All pieces in order.

        Raises:
          ValueError: a row is not what `kind` says, or the source is not what it was before.
        """
        for start in range(0, self.shape[0], self.piece_size):
            yield self.read(start)

    def read(self, start: int) -> Piece:
        """The piece that begins with row `start`."""
        rows = self.rows(start, min(start + self.piece_size, self.shape[0]))
        values = jnp.asarray(_padded(rows, self.piece_size))
        fingerprint, is_odd = _look(values, len(rows), kind=self._kind, given=rows.dtype)
        is_new = start not in self._fingerprints
        if self._fingerprints.setdefault(start, int(fingerprint)) != int(fingerprint):
            raise ValueError(
                f"source: rows {start} to {start + len(rows) - 1} are not what they were when they "
                "were first read; do not write to predictions during a selection, and let the same "
                "networks make them every time"
            )
        if not is_odd:
            return Piece(start, len(rows), rows, values, self._kind, np.ones(len(rows), bool))
        return self._second_look(start, rows, is_new)

    def _second_look(self, start: int, rows: np.ndarray, is_new: bool) -> Piece:
        """What the device does not like, by the host's more careful checks."""
        chunk = rows.astype(np.float64)
        is_valid = np.ones(len(rows), bool)
        if self._on_invalid == "skip":
            is_valid = ~(np.isnan(chunk) | (chunk == np.inf)).any(axis=(1, 2))
            chunk[~is_valid] = {"probs": 1, "log-probs": 0, "logits": 0}[self._kind]
            if self._kind != "logits":
                chunk[~is_valid] = _uniform(self._kind, rows.shape[2])
        dtype, tolerance = result_of(rows.dtype)
        name = self._kind.replace("-", "_")
        with np.errstate(over="ignore"):
            log_probs = checked_rows(chunk, start, self._kind, name, tolerance).astype(dtype)
        if is_new:
            self.num_invalid += int(np.sum(~is_valid))
        values = jnp.asarray(_padded(log_probs, self.piece_size))
        return Piece(start, len(rows), rows, values, "log-probs", is_valid)

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
        """Valid rows of any pieces as they would be in memory, checked and converted by the host."""
        return from_kind(rows, self._kind)


def _uniform(kind: Kind, num_classes: int) -> float:
    return 1 / num_classes if kind == "probs" else -float(np.log(num_classes))


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


@partial(jax.jit, static_argnames=("kind", "given"))
def _look(
    values: Array, size: int, *, kind: Kind, given: np.dtype
) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
    """A fingerprint of all values, and whether any of the first `size` rows may be wrong."""
    dtype, tolerance = result_of(given)
    floats = values.astype(dtype)
    least, most = jnp.min(floats, axis=-1), jnp.max(floats, axis=-1)  # NaN, where there is one
    total = jnp.sum(floats if kind == "probs" else jnp.exp(floats - most[..., None]), axis=-1)
    is_odd = ~jnp.isfinite(total) | ~jnp.isfinite(most)
    if kind == "probs":
        is_odd |= least < 0
    if kind == "log-probs":
        total = jnp.exp(most) * total
        is_odd |= most > tolerance
    if kind != "logits":
        is_odd |= ~(jnp.abs(total - 1) <= _STRICTER * tolerance)
    is_odd = jnp.any(is_odd, axis=1) & (jnp.arange(len(values)) < size)
    return _fingerprint(values), jnp.any(is_odd)


def _fingerprint(values: Array) -> UInt32[Array, ""]:
    """A weighted sum of the bits, modulo 2^32: another one, in all likelihood, once a value moves."""
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
