"""Driving rounds on the host: one trial or several, timed, from wherever their states are."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bbald_jax import pool as pools
from bbald_jax.loop.rounds import (
    Data,
    Loop,
    LoopState,
    Round,
    ask,
    evaluate,
    fit,
    fit_arguments,
    keep,
    oracle,
    predict,
    tell,
)
from bbald_jax.loop.spread_round import ask_over_devices, can_be_spread


class Seconds(NamedTuple):
    """Wall time of the parts of a round, compilation included where it happened."""

    fit: float
    predict: float
    select: float


def run(
    loop: Loop,
    state: LoopState,
    data: Data,
    *,
    num_rounds: int,
    target_correct: int | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[LoopState, Round, Seconds]]:
    """Drive rounds on the host, from wherever `state` is, and time their parts.

    R rounds of acquisition are R + 1 evaluations: the last round acquires nothing, so that every
    label bought is evaluated. It comes after `num_rounds` acquisitions, or earlier: as soon as
    `target_correct` test points are right, or no point is left to acquire. A whole run compiles
    each function once.

    Args:
      loop: what stays the same.
      state: from `init`, or a state that an earlier run yielded.
      data: the arrays.
      num_rounds: R, at least 0.
      target_correct: stop when so many test points are classified correctly.
      mesh: of one axis: the pool is spread over its devices to be sampled and chosen from, for the
        same batch (see `select_sharded`), if the acquisition function can be spread.

    Yields:
      After every round: the new state (whoever saves it can continue the run), the `Round`, and
      its `Seconds`. The last round leaves the state as it was, so that a later call with a larger
      `num_rounds` goes on from it.

    Raises:
      ValueError: `loop.capacity` is too small for all the labels of the run.
    """
    rounds = run_together(
        loop, [state], [data], num_rounds=num_rounds, target_correct=target_correct, mesh=mesh
    )
    for _, next_state, measured, seconds in rounds:
        yield next_state, measured, seconds


def run_together(
    loop: Loop,
    states: Sequence[LoopState],
    data: Sequence[Data],
    *,
    num_rounds: int,
    target_correct: int | None = None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, LoopState, Round, Seconds]]:
    """`run` several trials at once: their networks are fitted together, by one vmapped function.

    The small steps of training leave an accelerator partly idle; evaluation and scoring fill it
    alone, and go from trial to trial. A trial's result does not depend on the others but for
    rounding. On a CPU it is slower than one trial after another.

    Args:
      loop: as for `run`; more than one trial needs a learner in JAX.
      states: one a trial, each at a round of its own.
      data: one a trial, of equal shapes.
      num_rounds: R, for each.
      target_correct: for each.
      mesh: see `run`.

    Yields:
      The trial's position, and what `run` yields. `Seconds.fit` is its share of the time.

    Raises:
      ValueError: `loop.capacity` is too small for all the labels of a trial.
    """
    states = list(states)
    for state, _ in zip(states, data, strict=True):
        check_capacity(loop, state, num_rounds=num_rounds)
    going_on = [trial for trial, state in enumerate(states) if int(state.round) <= num_rounds]
    while going_on:
        start = time.perf_counter()
        # Trials that are over stay in: with fewer, it would be compiled again.
        learned = jax.block_until_ready(_fit_together(loop, states, data))
        fit_seconds = (time.perf_counter() - start) / len(going_on)
        for trial in tuple(going_on):
            states[trial], measured, seconds = _finish_round(
                loop,
                states[trial],
                data[trial],
                learned[trial],
                fit_seconds,
                num_rounds=num_rounds,
                target_correct=target_correct,
                mesh=mesh,
            )
            if measured.batch is None:
                going_on.remove(trial)
            yield trial, states[trial], measured, seconds


def check_capacity(loop: Loop, state: LoopState, *, num_rounds: int) -> None:
    """Room for all the labels of a trial.

    Raises:
      ValueError: there is not.
    """
    num_points = len(state.pool.status)
    labels = int(pools.num_labelled(state.pool))
    labels += (num_rounds - int(state.round)) * loop.batch_size
    if min(labels, num_points) > loop.capacity:
        raise ValueError(
            f"loop.capacity: {loop.capacity} is too small for this run, which labels up to "
            f"{min(labels, num_points)} points; raise it"
        )


def _fit_together(loop: Loop, states: Sequence[LoopState], data: Sequence[Data]) -> list[Any]:
    if len(states) == 1:
        return [fit(loop, states[0], data[0])]
    starts = [fit_arguments(loop, *each) for each in zip(states, data, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    learned = _vmapped(loop.learner.fit, *stacked)
    return [jax.tree.map(itemgetter(trial), learned) for trial in range(len(states))]


@partial(jax.jit, static_argnums=0)
def _vmapped(fit: Callable[..., Any], *arguments: Any) -> Any:
    return jax.vmap(fit)(*arguments)


def _finish_round(
    loop: Loop,
    state: LoopState,
    data: Data,
    learned: Any,
    fit_seconds: float,
    *,
    num_rounds: int,
    target_correct: int | None,
    mesh: Mesh | None,
) -> tuple[LoopState, Round, Seconds]:
    """All of a round but the fit."""
    index, num_labelled = state.round, pools.num_labelled(state.pool)
    clock = [time.perf_counter()]
    evaluation = jax.block_until_ready(evaluate(loop, state, learned, data))
    is_last = (
        int(index) == num_rounds
        or (target_correct is not None and int(evaluation.num_correct) >= target_correct)
        or not bool(jnp.any(pools.available(state.pool)))
    )
    is_spread = mesh is not None and can_be_spread(loop)
    inputs, batch = None, None
    if not is_last and not is_spread:
        inputs = jax.block_until_ready(predict(loop, state, learned, data))
    clock.append(time.perf_counter())
    if not is_last:
        if inputs is None:
            assert mesh is not None
            state, batch = ask_over_devices(loop, state, learned, data, mesh)
        else:
            state, batch = jax.block_until_ready(ask(loop, state, inputs))
        state = keep(tell(state, batch.indices, oracle(data, batch.indices)), learned)
    clock.append(time.perf_counter())
    seconds = Seconds(fit_seconds, *(end - start for start, end in pairwise(clock)))
    return state, Round(index, num_labelled, evaluation, batch), seconds
