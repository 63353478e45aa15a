"""A run on several processes: the first reads and writes its folder, all know what is in it.

In a single process, which is always the first, nothing happens here.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bbald_jax.typing import Device

Tree = TypeVar("Tree")


def is_first() -> bool:
    """Whether this process reads and writes files, for all."""
    return jax.process_index() == 0


def devices_in_use(most: int | None = None) -> list[Device]:
    """Of every process all devices, or at most so many, process after process."""
    devices = jax.devices()
    return [
        device
        for process in range(jax.process_count())
        for device in [each for each in devices if each.process_index == process][:most]
    ]


def from_first(make: Callable[[], Any]) -> Any:
    """What `make()` returns in the first process, which alone calls it; as JSON takes it."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if is_first() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(length, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(buffer).tobytes()))


def arrays_from_first(tree: Tree) -> Tree:
    """A tree of arrays and keys, of the same structure everywhere, as the first process has it."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    plain = [
        np.asarray(jax.random.key_data(leaf) if key else leaf)
        for leaf, key in zip(leaves, is_key, strict=True)
    ]
    plain = multihost_utils.broadcast_one_to_all(plain)
    there = [
        jax.random.wrap_key_data(jnp.asarray(leaf), impl=jax.random.key_impl(old))
        if key
        else jnp.asarray(leaf)
        for leaf, key, old in zip(plain, is_key, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, there)
