"""What to ask next: what an acquisition function sees of a session, and the points it chooses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bbald_jax.acquisition.inputs import NUM_TARGETS, Acquisition, Inputs, random_targets
from bbald_jax.labelling.transaction import Transaction
from bbald_jax.labelling.validation import STATUS
from bbald_jax.pool import LABELLED, PENDING
from bbald_jax.typing import CandidateBatch

# Pending points come in arrays of this length, or of a power of two: a new one is a compilation.
_LEAST_CAPACITY = 16
# Ask number i draws from `fold_in(key, i)`, the targets from this.
_TARGETS = 2**32 - 1


class Snapshot(NamedTuple):
    """A session at one moment.

    Attributes:
      num_points: N.
      num_classes: C.
      seed: everything random comes from it.
      num_asks: how many times points were chosen.
      status: `[N]` int8, as in `Pool`.
    """

    num_points: int
    num_classes: int
    seed: int
    num_asks: int
    status: np.ndarray

    @property
    def available(self) -> np.ndarray:
        """`[N]` bool, True for the points that may be asked for."""
        return self.status == 0


def snapshot(transaction: Transaction) -> Snapshot:
    """The session as it is now."""
    summary = transaction.summary
    rows = transaction.query("SELECT point, status FROM points")
    status = np.zeros(summary.num_points, np.int8)
    points, statuses = np.asarray(rows, np.int64).reshape(-1, 2).T
    status[points] = statuses
    return Snapshot(summary.num_points, summary.num_classes, summary.seed, summary.num_asks, status)


def target_indices(seed: int, num_points: int, num_targets: int) -> Int[np.ndarray, "T"]:
    """A random part of the pool, the same whenever it is asked for; rising."""
    key = jax.random.fold_in(jax.random.key(seed), _TARGETS)
    return np.sort(np.asarray(random_targets(key, num_points, num_targets))).astype(np.int64)


def _check_inputs(function: Acquisition, inputs: Inputs, now: Snapshot) -> Inputs:
    """What the function looks at: what was given, and what the session itself knows.

    Args:
      function: what will choose.
      inputs: what was given; its values are checked already.
      now: the session.

    Raises:
      ValueError: something that the function requires is missing, or does not fit the session.
    """
    log_probs = inputs.log_probs
    if log_probs is not None:
        num_points, _, num_classes = log_probs.shape
        if (num_points, num_classes) != (now.num_points, now.num_classes):
            raise ValueError(
                f"log_probs: shape {log_probs.shape} [N, K, C] does not fit the session's N = "
                f"{now.num_points}, C = {now.num_classes}; pass predictions for all of its points"
            )
        if inputs.target_log_probs is None and "target_log_probs" in function.requires:
            targets = target_indices(now.seed, now.num_points, NUM_TARGETS)
            inputs = inputs._replace(target_log_probs=log_probs[targets])
    if inputs.labelled is None:
        inputs = inputs._replace(labelled=jnp.asarray(now.status == LABELLED))
    for name in function.requires:
        if getattr(inputs, name) is None:
            what = "predictions; pass them" if name == "log_probs" else _missing(name)
            raise ValueError(f"{name}: {function.name!r} requires {what}")
    lengths = {
        "features": inputs.features,
        "mean_log_probs": inputs.mean_log_probs,
        "labelled": inputs.labelled,
        "gaussian": None if inputs.gaussian is None else inputs.gaussian[0],
    }
    for name, array in lengths.items():
        if array is not None and len(array) != now.num_points:
            raise ValueError(
                f"{name}: {len(array)} rows for the session's N = {now.num_points}; pass one for "
                "each of its points"
            )
    return inputs


def choose(
    function: Acquisition, given: Inputs, batch_size: int, now: Snapshot
) -> tuple[list[int], CandidateBatch | None]:
    """The points that the function chooses, given what is pending; unfilled slots are left out.

    Args:
      function: chooses.
      given: what it looks at, as far as it was given; the values are checked already.
      batch_size: B.
      now: the session.

    Returns:
      The points, and the batch itself; no points and None where none is left.

    Raises:
      ValueError: what was given does not fit; the function chose points that it was not offered.
    """
    inputs = _check_inputs(function, given, now)
    if not now.available.any():
        return [], None
    pending = np.flatnonzero(now.status == PENDING)
    batch = function.select(
        jax.random.fold_in(jax.random.key(now.seed), now.num_asks),
        inputs,
        batch_size=min(batch_size, now.num_points),
        available=jnp.asarray(now.available),
        # None where nothing is: the configurations then need no room for pending points.
        pending=_padded(pending) if pending.size else None,
    )
    indices = np.asarray(batch.indices)
    points = indices[indices != -1].tolist()
    for position, point in enumerate(points):
        where = f"acquisition function {function.name!r}[{position}]: point {point}"
        if not 0 <= point < now.num_points:
            raise ValueError(f"{where} is no point here; it must choose from 0 to N - 1")
        if not now.available[point] or point in points[:position]:
            what = STATUS[now.status[point]] if now.status[point] else "chosen twice"
            raise ValueError(
                f"{where} is {what}, not unlabelled; it must choose among the points that are "
                "available"
            )
    return points, batch


def _missing(name: str) -> str:
    return f"{name}; pass bb.Inputs(log_probs, {name}=...) in the place of log_probs"


def _padded(points: np.ndarray) -> Array:
    capacity = max(_LEAST_CAPACITY, 1 << (len(points) - 1).bit_length())
    return jnp.asarray(np.pad(points, (0, capacity - len(points)), constant_values=-1), jnp.int32)
