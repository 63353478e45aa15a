"""Predictions of any framework in, a batch of NumPy values out: the host's way to a selection."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from bbald_jax.acquisition.functions import find
from bbald_jax.acquisition.inputs import Acquisition, Inputs, random_targets
from bbald_jax.acquisition.progress import Progress
from bbald_jax.acquisition.warnings import arbitrary_batch
from bbald_jax.typing import LogProbs, TargetLogProbs
from bbald_jax.validation import Kind, as_numpy, assert_positive, from_kind, in_order

# They are counted in int32, and each takes more than a KiB.
_MOST_CONFIGURATIONS = 10**8


class Selection(NamedTuple):
    """A batch for a person to label, in order of acquisition; all arrays are NumPy's.

    B is the batch size that was asked for, or the number of points there were, if that is less.

    Attributes:
      indices: `[B]`, into the predictions that were passed in.
      gains: `[B]`, what each point added; nats for `bald` and `batchbald`.
      scores: `[B]`, of the batch so far (joint functions) or of the point alone (pointwise ones).
      predicted_classes: `[B]`, the most probable class of the mean over the K samples.
      diagnostics: `BatchBALDDiagnostics` or `Diagnostics`, see there.
      warnings: one line each, for people; empty when there is nothing to say.
      targets: `[T]`, the points of the pool that stood for the targets, where the function requires
        targets and none were given; else empty.
    """

    indices: Int[np.ndarray, "B"]
    gains: Float[np.ndarray, "B"]
    scores: Float[np.ndarray, "B"]
    predicted_classes: Int[np.ndarray, "B"]
    diagnostics: Any
    warnings: tuple[str, ...]
    targets: Int[np.ndarray, "T"] = np.zeros(0, np.int64)


def select(
    predictions: Any,
    *,
    kind: Kind,
    batch_size: int = 10,
    acquisition: str | Acquisition = "batchbald",
    axes: str = "NKC",
    candidates: Any = None,
    exclude: Any = None,
    pending: Any = None,
    targets: Any = None,
    num_configurations: int = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Selection:
    """Which points to label next, from the predictions of any model.

    A list of points (`candidates`, `exclude`, `pending`) is an array or a sequence of any
    framework: integers are indices, each once, booleans a mask `[N]`. A `set` of indices is taken
    in rising order.

    Args:
      predictions: `[N, K, C]`, of N points by K samples of the model for C classes; NumPy, JAX,
        torch, or anything with DLPack or `__array__`. Sample k must be the same model for every
        point. All of it is checked, points that are not available too.
      kind: `"probs"`, `"logits"` or `"log-probs"` (natural logarithm); never guessed.
      batch_size: B, at least 1; with fewer points left, all of them are returned.
      acquisition: a name from `catalogue()`, or an `Acquisition`.
      axes: the order of the axes, such as `"KNC"` for `[K, N, C]`.
      candidates: the points to choose from; all by default.
      exclude: points not to choose, because they are labelled already.
      pending: points chosen earlier whose labels are still out: they are not chosen again, and
        `batchbald` chooses what is new beside them.
      targets: `[T, K, C]`, predictions by the same K samples for points that matter, of the same
        kind and order of axes; for functions that require `target_log_probs`, and no others. By
        default these get a random part of the pool, 500 points; which ones, `Selection.targets`
        says.
      num_configurations: M, for functions taken by name; see `select_batchbald`.
      seed: of everything random, in 0 to 2**32 - 1.
      progress: called with the number of points chosen so far, by functions taken by name that
        choose one after the other; a new function is a new compilation.

    Returns:
      A `Selection`. Memory beside the input: 4 N K C bytes for the checked predictions (on the
      device too, where that is no CPU; 8 N K C for float64 under `jax_enable_x64`), some 20 MiB for
      checking them in chunks, and what the acquisition function needs (for one number per point
      next to nothing, but 4 to 8 N K C bytes on a CPU before jaxlib 0.10.2). An input in this order
      that is mapped into memory read-only (`numpy.load(path, mmap_mode="r")`) takes next to none
      itself.

    Raises:
      ValueError: any argument that is not as described; it says which, where, and the fix.
    """
    assert_positive(batch_size=batch_size, num_configurations=num_configurations)
    if num_configurations > _MOST_CONFIGURATIONS:
        raise ValueError(
            f"num_configurations: {num_configurations} is more than {_MOST_CONFIGURATIONS}, which "
            "no memory holds; 10,000 is plenty"
        )
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not an integer in 0 to 2**32 - 1")
    acquisition = find(acquisition, num_configurations=int(num_configurations), progress=progress)
    ordered = in_order(predictions, axes, "predictions")  # a view: the lists are checked first
    num_points = len(ordered)
    conditions = listed_points(pending, num_points, "pending")
    available = available_points(num_points, candidates, exclude, conditions)
    num_available = int(available.sum())
    _check_requirements(acquisition, targets)
    # First of all: JAX lets go of the predictions of an earlier call when it is next used.
    key = jax.random.key(int(seed))
    try:
        log_probs, target_log_probs = from_kind(ordered, kind), None
        stand_ins = np.zeros(0, np.int64)
        if targets is not None:
            target_log_probs = _target_log_probs(targets, kind, axes)
        elif "target_log_probs" in acquisition.requires:
            key, target_key = jax.random.split(key)
            stand_ins = np.asarray(random_targets(target_key, num_points))
            target_log_probs = jnp.take(log_probs, stand_ins, axis=0, mode="clip")
        inputs = Inputs(log_probs, target_log_probs)
        batch = acquisition.select(
            key,
            inputs,
            batch_size=min(int(batch_size), num_available),
            available=jnp.asarray(available),
            pending=jnp.asarray(conditions, jnp.int32) if conditions.size else None,
        )
        batch = jax.device_get(batch)
        arbitrary = arbitrary_batch(acquisition, inputs.log_probs, available, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"{acquisition.name}: too little memory for {num_points} points and num_configurations "
            f"{num_configurations} ({str(error).splitlines()[0]}); lower either"
        ) from error
    is_filled = batch.indices >= 0
    indices = batch.indices[is_filled]
    doubts = doubts_about(ordered.shape, axes, batch_size, indices.size)
    return Selection(
        indices=indices,
        gains=batch.gains[is_filled],
        scores=batch.scores[is_filled],
        predicted_classes=predicted_classes(jnp.take(log_probs, indices, axis=0, mode="clip")),
        diagnostics=batch.diagnostics,
        warnings=(*doubts, *arbitrary),
        targets=stand_ins,
    )


def doubts_about(shape: tuple[int, ...], axes: str, batch_size: int, num_chosen: int) -> list[str]:
    """What is to be said of a selection that does not depend on the values."""
    doubts = []
    if shape[0] < shape[1]:
        swapped = axes.translate(str.maketrans("NK", "KN"))
        doubts.append(
            f"With axes={axes!r} there are fewer points (N = {shape[0]}) than samples "
            f"(K = {shape[1]}): if it is the other way round, the indices are samples, and "
            f"axes={swapped!r} (--axes {swapped}) is right."
        )
    if num_chosen < batch_size:
        doubts.append(
            f"{batch_size} points were asked for, and only {num_chosen} were there to choose from."
        )
    return doubts


def available_points(
    num_points: int, candidates: Any, exclude: Any, pending: np.ndarray
) -> np.ndarray:
    """The candidates that are neither labelled nor pending, as a mask `[N]`."""
    excluded = listed_points(exclude, num_points, "exclude")
    both = np.intersect1d(excluded, pending)
    if both.size:
        raise ValueError(
            f"exclude, pending: point {both[0]} is in both; exclude is for points with a label, "
            "pending for points whose label is still out: take it out of one"
        )
    available = np.ones(num_points, bool)
    if candidates is not None:
        available[:] = False
        available[listed_points(candidates, num_points, "candidates")] = True
    available[excluded] = False
    available[pending] = False
    if num_points and not available.any():
        raise ValueError(
            f"no point is left to choose from: of {num_points} points all are excluded, pending or "
            "no candidates; pass more points, or shorten these lists"
        )
    return available


def listed_points(points: Any, num_points: int, name: str) -> Int[np.ndarray, "P"]:
    """The indices that a list of points stands for, in its order; None is the empty list."""
    is_set = isinstance(points, set | frozenset)  # NumPy would wrap it as one object
    array = as_numpy(list(points) if is_set else () if points is None else points, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name}: shape {array.shape} has {array.ndim} axes, expected a flat list of points; "
            "pass one, such as [3, 1]"
        )
    if array.dtype == bool and not is_set:
        if array.size != num_points:
            raise ValueError(
                f"{name}: a mask of length {array.size} for {num_points} points; a mask needs one "
                "truth value for each"
            )
        return np.flatnonzero(array)
    if array.size == 0:  # an empty list has no dtype of its own
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: dtype {array.dtype} holds neither integers (indices) nor booleans (a mask)"
        )
    is_outside = (array < 0) | (array >= num_points)
    if is_outside.any():
        place = int(np.argmax(is_outside))
        raise ValueError(
            f"{name}[{place}]: index {array[place]} is outside 0 to {num_points - 1}; indices "
            "count the points of the predictions from 0 on (leave out -1, an empty slot)"
        )
    _, first_places = np.unique(array, return_index=True)
    if first_places.size < array.size:
        place = int(np.setdiff1d(np.arange(array.size), first_places)[0])
        raise ValueError(
            f"{name}[{place}]: index {array[place]} is repeated; give each point once (a mask "
            "must have dtype bool)"
        )
    array = array.astype(np.int64)
    return np.sort(array) if is_set else array


def _check_requirements(acquisition: Acquisition, targets: Any) -> None:
    """Before predictions are read: they are all that the function requires."""
    if more := [name for name in acquisition.requires if name not in Inputs._fields[:2]]:
        example = " (bb.logistic_head)" if more[0] == "gaussian" else ""
        raise ValueError(
            f"acquisition: {acquisition.name} requires {more[0]}, which predictions do not hold; "
            f"choose another one, or run it in bb.loop with a learner that has it{example}"
        )
    if targets is not None and "target_log_probs" not in acquisition.requires:
        raise ValueError(
            f"targets: {acquisition.name} does not look at target predictions; leave them out, or "
            "choose an acquisition function that requires them"
        )


def _target_log_probs(targets: Any, kind: Any, axes: Any) -> TargetLogProbs:
    try:
        return from_kind(targets, kind, axes)
    except ValueError as error:
        raise ValueError(f"targets: {error}") from error


def predicted_classes(log_probs: LogProbs) -> Int[np.ndarray, "B"]:
    """The most probable class of the mean prediction, of B points."""
    # NumPy: an index in brackets would be six programs to compile.
    return np.exp(np.asarray(log_probs)).mean(axis=1).argmax(axis=-1)
