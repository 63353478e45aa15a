"""Checks at the edges: what comes in from outside is right, or the error says how to mend it.

Two layers. `from_probs`, `from_logits` and `check_log_probs` look at *values*, so they run on the
host, once, where predictions enter. The `assert_` functions look at shapes, dtypes and static
sizes, so they cost nothing inside `jit`: every numerical function calls them at trace time. What
is wrong with values inside `jit`, `invalid_points` finds, and selections count.
"""

import math
import mmap
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from bbald_jax.typing import Available, LogProbs

Kind = Literal["probs", "logits", "log-probs"]

_FUNCTIONS = {"probs": "from_probs", "logits": "from_logits", "log-probs": "check_log_probs"}
_AXES = {"N": "points", "K": "posterior samples", "C": "classes"}
# Elements that are checked and converted at a time: ten copies of them, in float64, are few MiB.
_CHUNK_ELEMENTS = 2**18
# JAX takes over NumPy's memory on a CPU only where it begins at a multiple of so many bytes.
_ALIGNMENT = 64


def assert_log_probs(log_probs: Float[Array, "N K C"]) -> tuple[int, int, int]:
    """Trace-time check that `log_probs` is `[N, K, C]` in float32 or float64; returns its shape."""
    if log_probs.ndim != 3:
        raise ValueError(
            f"log_probs: shape {log_probs.shape} has {log_probs.ndim} axes, expected 3: [N, K, C]"
        )
    if log_probs.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(
            f"log_probs: dtype {log_probs.dtype} is too coarse (or no float) for entropies; "
            "convert with check_log_probs, from_probs or from_logits"
        )
    if 0 in log_probs.shape:
        raise ValueError(f"log_probs: empty axis in shape {log_probs.shape} [N, K, C]")
    num_points, num_samples, num_classes = log_probs.shape
    return num_points, num_samples, num_classes


def assert_target_log_probs(
    log_probs: Float[Array, "N K C"], target_log_probs: Float[Array, "T K C"]
) -> int:
    """Trace-time check that targets have the K and the C of the pool; returns their number T.

    Equal shapes do not show that sample k is the same network in both: sample both with one key.
    """
    _, num_samples, num_classes = assert_log_probs(log_probs)
    shape = target_log_probs.shape
    if len(shape) != 3 or shape[0] == 0 or shape[1:] != (num_samples, num_classes):
        raise ValueError(
            f"target_log_probs: shape {shape}, expected [T, K, C] = [T, {num_samples}, "
            f"{num_classes}] with at least one target and the K and C of log_probs; sample pool "
            "and targets with the same key and the same number of samples"
        )
    return shape[0]


def invalid_points(log_probs: LogProbs) -> Bool[Array, "N"]:
    """True for points with a NaN or an infinite probability: they must never be selected."""
    # Of the input itself: XLA would keep what is made of each number, for whoever needs it next.
    # The sum is for NaN, which a maximum leaves out on a CPU in jaxlib 0.10.2, where it takes eight
    # numbers and more at a time.
    is_nan = jnp.isnan(jnp.sum(log_probs, axis=(1, 2)))
    return is_nan | ~jnp.isfinite(jnp.exp(jnp.max(log_probs, axis=(1, 2))))


def assert_available(available: Available | None, num_points: int) -> Available:
    """Trace-time check that `available` is bool `[N]`; all points are, where it is None.

    Anything else would broadcast, or take indices for truth values, without a word.
    """
    if available is None:
        return jnp.ones(num_points, bool)
    if available.shape != (num_points,) or available.dtype != jnp.bool_:
        raise ValueError(
            f"available: {available.dtype} of shape {available.shape} is no mask; pass bool "
            f"[N] = [{num_points}], True where a point may be acquired"
        )
    return available


def assert_labelled(labelled: Bool[Array, "N"] | None, num_points: int) -> Bool[Array, "N"]:
    """Trace-time check that `labelled` is bool `[N]`; no point is, where it is None."""
    if labelled is None:
        return jnp.zeros(num_points, bool)
    if labelled.shape != (num_points,) or labelled.dtype != jnp.bool_:
        raise ValueError(
            f"labelled: {labelled.dtype} of shape {labelled.shape} is no mask; pass bool "
            f"[N] = [{num_points}], True where the label of a point is known"
        )
    return jnp.asarray(labelled)


def assert_mean_log_probs(mean_log_probs: Float[Array, "N C"], num_points: int) -> tuple[int, int]:
    """Trace-time check that one prediction a point is `[N, C]`, for N points; returns the shape."""
    shape = mean_log_probs.shape
    if len(shape) != 2 or shape[0] != num_points or 0 in shape:
        raise ValueError(
            f"mean_log_probs: shape {shape}, expected [N, C] = [{num_points}, C], one prediction "
            "for each row of features"
        )
    return num_points, shape[1]


def assert_positive(**sizes: Any) -> None:
    """Trace-time check that every static size, given by name, is an integer of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}: {size!r} is not an integer of at least 1")


def check_log_probs(log_probs: Any) -> LogProbs:
    """Check log-probabilities from any framework and return them as a float JAX array.

    Args:
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), natural logarithm; a NumPy or JAX array, or
        anything with DLPack or `__array__` (a torch tensor). `-inf` (probability zero) is fine.

    Returns:
      `[N, K, C]`, float32 (float64 under `jax_enable_x64`). Rows that miss one by no more than
      max(1e-3, 8 eps) of the input's dtype (0.008 in float16, 0.06 in bfloat16) are
      renormalised.

    Raises:
      ValueError: wrong rank, empty axis, no numbers, NaN, `+inf`, positive, or not normalised; it
        names the axis, the first bad index, and the fix.
    """
    return from_kind(log_probs, "log-probs")


def from_probs(probs: Any) -> LogProbs:
    """Check probabilities from any framework and return their logarithms.

    Args:
      probs: `[N, K, C]`, p(y=c | x_n, w_k), each row of C sums to one; a NumPy or JAX array, or
        anything with DLPack or `__array__` (a torch tensor). Exact zeros are fine.

    Returns:
      `[N, K, C]` log-probabilities, float32 (float64 under `jax_enable_x64`). Rows that miss one
      by no more than max(1e-3, 8 eps) of the input's dtype are renormalised.

    Raises:
      ValueError: wrong rank, empty axis, no numbers, NaN, infinite, negative, or not normalised;
        it names the axis, the first bad index, and the fix.
    """
    return from_kind(probs, "probs")


def from_logits(logits: Any) -> LogProbs:
    """Normalise logits from any framework over the class axis.

    log p(c) = logits_c - log sum_c' exp(logits_c')

    Args:
      logits: `[N, K, C]`; a NumPy or JAX array, or anything with DLPack or `__array__` (a torch
        tensor). `-inf` (an impossible class) is fine, unless a whole row is.

    Returns:
      `[N, K, C]` log-probabilities, float32 (float64 under `jax_enable_x64`).

    Raises:
      ValueError: wrong rank, empty axis, no numbers, NaN, `+inf`, or a row of `-inf`; it names
        the axis, the first bad index, and the fix.
    """
    return from_kind(logits, "logits")


def from_kind(values: Any, kind: Any, axes: Any = "NKC") -> LogProbs:
    """Check predictions whose kind and order of axes come as arguments, for `bb.select`.

    Args:
      values: as `from_probs`, `from_logits` or `check_log_probs` takes them, in the order `axes`.
      kind: `"probs"`, `"logits"` or `"log-probs"`.
      axes: the order of N (points), K (posterior samples) and C (classes), such as `"KNC"`.

    Returns:
      `[N, K, C]` log-probabilities, float32 (float64 under `jax_enable_x64`).

    Raises:
      ValueError: no such kind or order, or what that function raises, its indices in order N, K, C.
    """
    return jax.device_put(on_host(values, kind, axes))  # not jnp.asarray, which copies


def on_host(values: Any, kind: Any, axes: Any = "NKC", first: int = 0) -> np.ndarray:
    """`from_kind` on no device; `first` is the index of the first point, in messages."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind: {kind!r} is none of {', '.join(get_args(Kind))}")
    name = kind.replace("-", "_")
    array = in_order(values, axes, name)
    for axis, length in zip(_AXES, array.shape, strict=True):
        if length == 0:
            raise ValueError(f"{name}: axis {_axis(axis)} of shape {array.shape} is empty")
    if array.dtype.kind not in "fbiu" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: dtype {array.dtype} does not hold real numbers; pass floats")

    dtype, tolerance = result_of(array.dtype)
    result = _aligned(array.shape, dtype)
    mapping = _mapping(array)
    rows = max(1, _CHUNK_ELEMENTS // (array.shape[1] * array.shape[2]))
    for start in range(0, len(array), rows):
        # float64 on the way: an overflow of the sum would hide the row that causes it.
        chunk = array[start : start + rows].astype(np.float64)
        # Logits too far apart for the dtype: the difference overflows to the -inf that it means.
        with np.errstate(over="ignore"):
            result[start : start + rows] = checked_rows(chunk, first + start, kind, name, tolerance)
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)  # what was read of the file is in memory no longer
    return result


def result_of(given: np.dtype) -> tuple[np.dtype, float]:
    """The dtype of log-probabilities made from `given`, and by how much a row may miss one."""
    # What JAX has no dtype for: the other byte order, and more than 64 bits.
    if given.kind == "f":
        given = np.dtype(f"f{min(given.itemsize, 8)}")
    # Integers and booleans are exact (a one-hot vote), so they get the floor of the tolerance.
    is_float = given.kind not in "biu"
    tolerance = max(1e-3, 8 * float(jnp.finfo(given).eps)) if is_float else 1e-3
    dtype = jnp.promote_types(given, jnp.float32) if is_float else jnp.float64
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype)), tolerance


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that JAX takes over without a copy, on a CPU."""
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """The file behind a view of a memory-mapped array that nobody can have written to."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    is_given_back = (
        isinstance(base, np.memmap) and base.mode == "r" and hasattr(mmap, "MADV_DONTNEED")
    )
    return getattr(base, "_mmap", None) if is_given_back else None


def in_order(values: Any, axes: Any, name: str) -> np.ndarray:
    """Predictions of any framework as `[N, K, C]`, a view where there can be one."""
    if not isinstance(axes, str) or sorted(axes) != sorted(_AXES):
        raise ValueError(
            f"axes: {axes!r} is no order of the letters {', '.join(map(_axis, _AXES))}; "
            "give each once, as in KNC"
        )
    array = as_numpy(values, name)
    if array.ndim != 3:
        raise ValueError(
            f"{name}: shape {array.shape} has {array.ndim} axes, expected 3: [{', '.join(axes)}] = "
            f"[{', '.join(_AXES[letter] for letter in axes)}]; add a missing axis "
            "(values[:, None, :] for one sample)"
        )
    return np.transpose(array, [axes.index(letter) for letter in _AXES])


def _axis(letter: str) -> str:
    return f"{letter} ({_AXES[letter]})"


def checked_rows(
    chunk: np.ndarray, start: int, kind: str, name: str, tolerance: float
) -> np.ndarray:
    """Log-probabilities of rows in float64, from index `start` on, or the error that fits them."""

    def refuse(is_bad: np.ndarray, problem: str, fix: str) -> None:
        if is_bad.any():
            n, k, *c = np.argwhere(is_bad)[0]
            index = ", ".join(str(int(i)) for i in (n + start, k, *c))
            value = chunk[n, k, c[0]] if c else chunk[n, k]
            shown = f" (value {value:.6g})" if c else ""
            raise ValueError(f"{name}[{index}]{shown}: {problem}; {fix}")

    refuse(np.isnan(chunk), "NaN", "find the point or the sample that gives it, or leave it out")
    refuse(chunk == np.inf, "+inf", "clip it to a finite value before passing it in")
    if kind == "probs":
        refuse(chunk == -np.inf, "-inf is no probability", f"for logarithms {_use('log-probs')}")
        refuse(chunk < 0, "a probability below zero", f"for logits {_use('logits')}")
        with np.errstate(divide="ignore"):
            log_probs = np.log(chunk)
    else:
        log_probs = chunk
    if kind == "log-probs":
        refuse(
            chunk > tolerance,
            "a log-probability above zero",
            f"for probabilities {_use('probs')}, for logits {_use('logits')}",
        )

    largest = log_probs.max(axis=-1, keepdims=True)
    refuse(
        largest[..., 0] == -np.inf,
        f"no class of axis {_axis('C')} is possible",
        "each row needs a class with probability above zero",
    )
    # Centred first: next to a large logit, the logarithm of the sum would be rounded away.
    centred = log_probs - largest
    log_centred_sums = np.log(np.exp(centred).sum(axis=-1, keepdims=True))
    if kind != "logits":
        sums = np.exp((largest + log_centred_sums)[..., 0])
        is_off = np.abs(sums - 1) > tolerance
        if is_off.any():
            first = sums[is_off][0]
            refuse(
                is_off,
                f"axis {_axis('C')} sums to {first:.6g} instead of 1 (tolerance {tolerance:.2g})",
                "is the class axis the last one (see axes)? for unnormalised scores "
                f"{_use('logits')}",
            )
    return centred - log_centred_sums


def _use(kind: Kind) -> str:
    """What to use for another kind, in words for functions, `bb.select` and the command line."""
    return f"use {_FUNCTIONS[kind]} (kind {kind})"


def as_numpy(values: Any, name: str) -> np.ndarray:
    """A NumPy view (or copy) of an array of any framework; ValueError when it is none."""
    if isinstance(values, Tracer):
        raise ValueError(f"{name}: values can only be checked on the host; call this outside jit")
    if hasattr(values, "detach"):  # torch: an array that is being differentiated has no NumPy view
        values = values.detach()
    if hasattr(values, "cpu") and not isinstance(values, jax.Array):
        values = values.cpu()
    try:
        # NumPy would wrap what it does not know as an array of one object.
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)  # pyright: ignore[reportArgumentType]
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, BufferError) as no_array:
        # What NumPy has no dtype for (torch's bfloat16) travels by DLPack.
        try:
            return np.asarray(jnp.from_dlpack(values))
        except Exception:
            raise ValueError(
                f"{name}: {type(values).__name__} is not an array; pass NumPy, JAX or torch, or "
                "anything with DLPack or __array__"
            ) from no_array
