"""The catalogue of acquisition functions: one signature, by name.

An acquisition function turns predictions into a batch. `requires` says what it must be given, so
that a loop computes no prediction that nobody looks at. Higher scores are better everywhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from bbald_jax.batchbald import select_batchbald
from bbald_jax.selection import select_bald, select_random, without_pending
from bbald_jax.typing import Available, CandidateBatch, Key, LogProbs, Pending


class Inputs(NamedTuple):
    """What an acquisition function may look at.

    Attributes:
      log_probs: `[N, K, C]`, predictions for the pool; None where the function requires none.
      target_log_probs: `[T, K, C]`, predictions by the same K samples for target points; None
        where the function requires none.
    """

    log_probs: LogProbs | None
    target_log_probs: LogProbs | None = None


class Acquisition(NamedTuple):
    """An acquisition function.

    Attributes:
      name: as in the catalogue and on the command line.
      requires: the fields of `Inputs` that must not be None.
      select: `select(key, inputs, *, batch_size, available, pending) -> CandidateBatch`, pure and
        jit-able with static `batch_size`. `available` is `[N]` bool; `pending` is `[P]`, padded
        with -1, points whose labels are still out: they are never returned.
      description: one line, for lists.
    """

    name: str
    requires: tuple[str, ...]
    select: Callable[..., CandidateBatch]
    description: str = ""


def _select_random(
    key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
) -> CandidateBatch:
    del inputs
    available = without_pending(available, pending)
    return select_random(key, batch_size=batch_size, available=available)


def _select_bald(
    key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
) -> CandidateBatch:
    del key
    available = without_pending(available, pending)
    return select_bald(_log_probs(inputs), batch_size=batch_size, available=available)


random = Acquisition("random", (), _select_random, "Points uniformly at random.")

bald = Acquisition(
    "bald",
    ("log_probs",),
    _select_bald,
    "The points of highest mutual information between their own label and the parameters.",
)


def batchbald(num_configurations: int = 10_000) -> Acquisition:
    """The batch of highest joint mutual information, with M = `num_configurations`."""

    def select(
        key: Key, inputs: Inputs, *, batch_size: int, available: Available, pending: Pending | None
    ) -> CandidateBatch:
        return select_batchbald(
            key,
            _log_probs(inputs),
            batch_size=batch_size,
            num_configurations=num_configurations,
            available=available,
            pending=pending,
        )

    return Acquisition(
        "batchbald",
        ("log_probs",),
        select,
        "The batch of highest joint mutual information between its labels and the parameters.",
    )


def catalogue(*, num_configurations: int = 10_000) -> dict[str, Acquisition]:
    """Every acquisition function by name; `num_configurations` goes to those that sample."""
    functions = (batchbald(num_configurations), bald, random)
    return {function.name: function for function in functions}


def _log_probs(inputs: Inputs) -> LogProbs:
    if inputs.log_probs is None:
        raise ValueError("inputs.log_probs: this acquisition function requires predictions")
    return jnp.asarray(inputs.log_probs)
