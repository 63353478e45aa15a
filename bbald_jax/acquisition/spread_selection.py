"""`bb.select` over several devices and hosts: each reads and checks its part of the predictions."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from bbald_jax.acquisition.inputs import Acquisition
from bbald_jax.acquisition.placing import shard_pool
from bbald_jax.acquisition.sharded import select_sharded
from bbald_jax.acquisition.warnings import arbitrary_batch
from bbald_jax.typing import CandidateBatch, Device, Key
from bbald_jax.validation import Kind, on_host


def choose_over_devices(
    key: Key,
    predictions: np.ndarray,
    kind: Kind,
    targets: np.ndarray | None,
    *,
    devices: Sequence[Device],
    batch_size: int,
    acquisition: Acquisition,
    available: np.ndarray,
    pending: np.ndarray,
) -> tuple[CandidateBatch, tuple[str, ...]]:
    """The batch, as NumPy arrays, and why it is arbitrary, if it is.

    Every host has all predictions at hand (a file that is mapped into memory), and reads those of
    its own devices.

    Args:
      key: of the selection.
      predictions: `[N, K, C]`.
      kind: of these and the targets.
      targets: `[T, K, C]`, if the function requires them.
      devices: of all hosts, host after host.
      batch_size: B.
      acquisition: of functions that can be spread.
      available: `[N]` bool.
      pending: `[P]`, indices.

    Raises:
      ValueError: wrong predictions, or a function that cannot be spread.
    """
    mesh = Mesh(np.asarray(devices), ("pool",), axis_types=(AxisType.Auto,))
    here = _rows_here(devices, len(predictions))
    part = on_host(predictions[here], kind, first=here.start)
    pool = shard_pool(mesh, part, available=available[here])
    spread_targets = None
    if targets is not None:
        here = _rows_here(devices, len(targets))
        try:
            spread_targets = shard_pool(mesh, on_host(targets[here], kind, first=here.start))
        except ValueError as error:
            raise ValueError(f"targets: {error}") from error
    batch = select_sharded(
        key,
        pool,
        batch_size=batch_size,
        acquisition=acquisition,
        pending=pending if pending.size else None,
        target_log_probs=spread_targets,
    )
    batch = jax.device_get(batch)
    # The padding is at the end: the points have their numbers in the spread array, too.
    width = (0, len(pool.log_probs) - len(available))
    return batch, arbitrary_batch(acquisition, pool.log_probs, np.pad(available, width), batch)


def _rows_here(devices: Sequence[Device], num_rows: int) -> slice:
    """Those for the devices of this host, so that each device but the last ones gets as many."""
    rows = -(-num_rows // len(devices))
    places = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]
    return slice(min(places[0] * rows, num_rows), min((places[-1] + 1) * rows, num_rows))
