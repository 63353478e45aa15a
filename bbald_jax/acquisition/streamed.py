"""Selections from pools that are larger than memory: read piece by piece, as often as it takes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition import pointwise
from bbald_jax.acquisition.batch_epig import wanted_of
from bbald_jax.acquisition.batchbald import ties_key_of
from bbald_jax.acquisition.passes import StreamProgress, settle
from bbald_jax.acquisition.pieces import OnInvalid, Pieces
from bbald_jax.acquisition.stream_batchbald import BatchBALD
from bbald_jax.acquisition.stream_gaussian import BatchEPIG, GaussianBatchBALD
from bbald_jax.acquisition.stream_top import stream_top
from bbald_jax.information import entropy
from bbald_jax.sources import as_source, open_source
from bbald_jax.typing import CandidateBatch, Key
from bbald_jax.validation import Kind, assert_positive, assert_target_log_probs, from_kind

_POINTWISE = {
    "bald": entropy.mutual_information,
    "predictive-entropy": entropy.predictive_entropy,
    "margin": pointwise.margin,
    "variation-ratio": pointwise.variation_ratio,
    "mean-std": pointwise.mean_std,
    "epig": pointwise.epig,
}
_JOINT = ("batchbald", "gaussian-batchbald", "batch-epig")
#: Acquisition functions that `select_stream` knows, by their names in the catalogue.
STREAMED = (*_JOINT, *_POINTWISE)
#: Those that require targets.
WITH_TARGETS = ("batch-epig", "epig")

# Places in the buffer for each point of the batch, at least: to learn of, to draw, to contest.
_PLACES = 4


def select_stream(
    key: Key,
    source: Any,
    *,
    batch_size: int,
    kind: Kind = "log-probs",
    acquisition: str = "batchbald",
    target_log_probs: Any = None,
    num_configurations: int = 10_000,
    available: Any = None,
    pending: Any = None,
    buffer: int = 50_000,
    chunk_size: int = 16_384,
    max_passes: int | None = None,
    on_invalid: OnInvalid = "error",
    progress: Callable[[StreamProgress], None] | None = None,
) -> CandidateBatch:
    """The batch of `select_batchbald` from a pool that does not fit in memory: the same one.

    The source is read piece by piece, several times. The first pass computes `I[y_n; w]` of every
    point and keeps the best ones; the greedy batch of these is a guess. A further pass asks of
    every point whether a step of the guess would have taken it instead, by upper bounds on its gain
    with the step's own tree, and where these do not rule it out by the gain itself. Such points
    join the buffer, and the guess is made again, until none is left: after one further pass on
    ordinary pools, after B + 1 passes in all at most (one more with pending points).

    Args:
      key: as in `select_batchbald`; for the other functions as in the catalogue.
      source: `[N, K, C]`, predictions of N points by K samples for C classes: a path, or several
        (`.npy`, `.safetensors`), what `open_source` returns, a `Lazy` of predictions that are made
        on demand, or any array that has a `shape` and is sliced `[a:b]`. What is mapped into memory
        with `numpy.load(path, mmap_mode="r")` is read from its file instead.
      batch_size: B, at least 1; it may exceed N.
      kind: `"log-probs"`, `"probs"` or `"logits"`.
      acquisition: one of `STREAMED`: `"batchbald"`, `"gaussian-batchbald"`, `"batch-epig"` (which
        evaluates every point at every step: no bound is known), or a pointwise function, which
        needs one pass.
      target_log_probs: `[T, K, C]`, of the kind `kind`, for `"epig"` and `"batch-epig"`.
      num_configurations: M, see `select_batchbald`.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
      buffer: R, points that the guess is made from; more of them make another pass less likely.
      chunk_size: points that are read at a time.
      max_passes: stop after so many; `diagnostics.num_verified` says how far the batch is right.
      on_invalid: `"error"`, or `"skip"`: points with a NaN or an infinity are left out, and counted
        in `diagnostics.num_invalid`.
      progress: called after every piece.

    Returns:
      What the function returns for the whole pool in memory: the same points, as far as rounding
      (1e-6 nats) tells them apart, with scores within 1e-5. `diagnostics.num_verified` of them are
      that for certain: all but those that are drawn when the samples are spent, if `max_passes` did
      not end it before. The certificate is that of the whole pool.
      Memory, whatever N is: R K (2 C + 1) floats and R rows as they are read, (B + 1) M K floats
      twice over for BatchBALD's trees, and some 10 arrays of `chunk_size` points; beside these,
      where `available` is given, N bytes. Time: O(N K C), and work on the tree for the points that
      no bound rules out.

    Raises:
      ValueError: an argument that is not as described; predictions that are not what `kind` says
        (which row, and the fix); a source that changes or ends between passes.

    Source: see `select_batchbald`; what bounds the gains, `acquisition/bounds.py`.
    """
    assert_positive(
        batch_size=batch_size,
        num_configurations=num_configurations,
        buffer=buffer,
        chunk_size=chunk_size,
    )
    if max_passes is not None:
        assert_positive(max_passes=max_passes)
    if acquisition not in STREAMED:
        raise ValueError(
            f"acquisition: {acquisition!r} is none of {', '.join(STREAMED)}, which can be streamed"
        )
    if isinstance(source, str | list | tuple) or hasattr(source, "__fspath__"):
        source = open_source(source)
    pieces = Pieces(as_source(source), kind, chunk_size, on_invalid)
    num_points = pieces.shape[0]
    if num_points >= 2**31:
        raise ValueError(f"source: {num_points} points, more than an int32 can count; split it")
    options = {
        "batch_size": batch_size,
        "available": _mask(available, num_points),
        "pending": _pending(pending, num_points),
        "progress": progress,
    }
    targets = _targets(target_log_probs, acquisition, kind, pieces.shape)
    if acquisition in _POINTWISE:
        score: Callable[..., Any] = _POINTWISE[acquisition]
        if targets is not None:
            score = partial(score, target_log_probs=targets)
        return stream_top(key, pieces, score, **options)

    method: Any
    if acquisition == "batchbald":
        method = BatchBALD(key, ties_key_of(key), batch_size, num_configurations)
    elif targets is None:
        method = GaussianBatchBALD(key, batch_size)
    else:
        method = BatchEPIG(key, batch_size, targets, jax.jit(wanted_of)(targets))
    least = min(num_points, _PLACES * batch_size + len(options["pending"]))
    if buffer < least:
        raise ValueError(
            f"buffer: {buffer} points are too few for batch_size {batch_size} and "
            f"{len(options['pending'])} pending points; give it {least}, or far more"
        )
    settled = settle(method, pieces, buffer_size=buffer, max_passes=max_passes, **options)
    batch = method.result(settled, pieces)
    places = np.asarray(batch.indices)
    numbers = np.where(places >= 0, settled.buffer.numbers[places], -1)
    return batch._replace(indices=jnp.asarray(numbers, jnp.int32))


def _mask(available: Any, num_points: int) -> np.ndarray | None:
    if available is None:
        return None
    mask = np.asarray(available)
    if mask.shape != (num_points,) or mask.dtype != bool:
        raise ValueError(
            f"available: {mask.dtype} of shape {mask.shape} is no mask; pass bool [N] = "
            f"[{num_points}], True where a point may be acquired"
        )
    return mask


def _pending(pending: Any, num_points: int) -> np.ndarray:
    """As it was given, as its length is that of a tree; what is no index is -1."""
    if pending is None:
        return np.zeros(0, np.int64)
    points = np.asarray(pending)
    if points.ndim != 1 or (points.size and points.dtype.kind not in "iu"):
        raise ValueError(
            f"pending: {points.dtype} of shape {points.shape}; pass a flat list of indices"
        )
    points = points.astype(np.int64)
    return np.where((points >= 0) & (points < num_points), points, -1)


def _targets(values: Any, acquisition: str, kind: Kind, shape: tuple[int, ...]) -> Any:
    if (values is None) == (acquisition in WITH_TARGETS):
        needs = "requires" if values is None else "does not look at"
        raise ValueError(f"target_log_probs: {acquisition} {needs} predictions for targets")
    if values is None:
        return None
    try:
        targets = from_kind(values, kind)
    except ValueError as error:
        raise ValueError(f"target_log_probs: {error}") from error
    assert_target_log_probs(jnp.zeros((1, *shape[1:]), targets.dtype), targets)
    return targets
