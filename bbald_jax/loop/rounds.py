"""The acquisition loop: pure functions from state to state.

A simulated round: fit to the labelled points, evaluate on the test points, then
`tell(oracle(ask(state)))`. Everything random in round r comes from `fold_in(key, r)`, so a run
that is continued from a saved state is the run that was never interrupted.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from bbald_jax import pool as pools
from bbald_jax.acquisition.inputs import Acquisition, Inputs
from bbald_jax.acquisition.top import select_random
from bbald_jax.learning.learner import Learner
from bbald_jax.pool import Labelled, Pool
from bbald_jax.typing import CandidateBatch, Key, LogProbs


class Loop(NamedTuple):
    """What stays the same during a run; hashable, so it can be a static argument of `jit`.

    Attributes:
      learner: fits and samples.
      acquisition: chooses.
      batch_size: B, points acquired in a round.
      num_samples: K, posterior samples.
      capacity: the most points that will ever be labelled, initial ones included.
    """

    learner: Learner
    acquisition: Acquisition
    batch_size: int
    num_samples: int
    capacity: int


class Data(NamedTuple):
    """The arrays of a simulated run. All indices of the loop are positions in `x`.

    Attributes:
      x: `[N, ...]`, the pool.
      y: `[N]` int32, its classes, which only the oracle sees.
      validation: for early stopping; `num_examples` 0 where there is none.
      x_test: `[S, ...]`.
      y_test: `[S]` int32.
      x_target: `[T, ...]`, inputs like those that the model will have to predict, for acquisition
        functions that require `target_log_probs` or `gaussian` (EPIG); None where none does.
    """

    x: Float[Array, "N ..."]
    y: Int[Array, "N"]
    validation: Labelled
    x_test: Float[Array, "S ..."]
    y_test: Int[Array, "S"]
    x_target: Float[Array, "T ..."] | None = None


class LoopState(NamedTuple):
    """All that changes during a run: saving it saves the run.

    Attributes:
      key: the run's key; it never changes.
      round: `[]` int32, rounds finished.
      pool: what is labelled, and how.
      learned: the learner's state after the last round, from which the next one starts warm; None
        where every round starts from scratch.
    """

    key: Key
    round: Int[Array, ""]
    pool: Pool
    learned: Any = None


class Evaluation(NamedTuple):
    """How good the learner's predictions are on the test points.

    Attributes:
      num_correct: `[]` int32.
      nll: `[]`, mean negative log-likelihood, nats.
    """

    num_correct: Int[Array, ""]
    nll: Float[Array, ""]


class Round(NamedTuple):
    """What one round measured and acquired.

    Attributes:
      round: `[]` int32, the rounds before it.
      num_labelled: `[]` int32, labels that the evaluated model was fitted to.
      evaluation: see `Evaluation`.
      batch: the points acquired then; None in the last round of `run`.
    """

    round: Int[Array, ""]
    num_labelled: Int[Array, ""]
    evaluation: Evaluation
    batch: CandidateBatch | None


def init(
    key: Key,
    classes: Int[Array, "N"],
    *,
    num_classes: int,
    initial_per_class: int,
    learned: Any = None,
) -> LoopState:
    """A pool with `initial_per_class` random points of every class labelled.

    Args:
      key: the one key of the run.
      classes: `[N]` int32, the classes of the pool points.
      num_classes: C (static).
      initial_per_class: 0 starts without any label.
      learned: for a learner that starts warm, the state to start the first round from:
        `learner.init(key, x)`.
    """
    run_key, split_key = jax.random.split(key)
    indices = pools.initial_split(
        split_key, classes, num_classes=num_classes, num_per_class=initial_per_class
    )
    pool = pools.tell(pools.init_pool(classes.shape[0]), indices, classes[indices])
    return LoopState(run_key, jnp.int32(0), pool, learned)


def step(loop: Loop, state: LoopState, data: Data) -> tuple[LoopState, Round]:
    """One simulated round: fit, evaluate, ask, tell. Pure; jit-able with a learner in JAX."""
    learned = fit(loop, state, data)
    evaluation = evaluate(loop, state, learned, data)
    asked, batch = ask(loop, state, predict(loop, state, learned, data))
    told = tell(asked, batch.indices, oracle(data, batch.indices))
    measured = Round(state.round, pools.num_labelled(state.pool), evaluation, batch)
    return keep(told, learned), measured


def fit(loop: Loop, state: LoopState, data: Data) -> Any:
    """The learner's state after learning from what is labelled, from scratch or `state.learned`."""
    return loop.learner.fit(*fit_arguments(loop, state, data))


def fit_arguments(loop: Loop, state: LoopState, data: Data) -> tuple[Key, Any, Labelled, Labelled]:
    """What `Learner.fit` gets in this round.

    Raises:
      ValueError: the learner starts warm and the state holds nothing to start from, or the other
        way round.
    """
    if loop.learner.warm_start != (state.learned is not None):
        fix = "pass learned=learner.init(key, x)" if state.learned is None else "pass no learned="
        raise ValueError(
            f"state.learned: the learner's warm_start is {loop.learner.warm_start}; {fix} to "
            "loop.init"
        )
    labelled = pools.gather_labelled(state.pool, data.x, capacity=loop.capacity)
    initial = state.learned
    if initial is None:
        initial = loop.learner.init(round_key(state, "init"), data.x)
    return round_key(state, "fit"), initial, labelled, data.validation


def keep(state: LoopState, learned: Any) -> LoopState:
    """The state from which the next round starts warm, if this one did."""
    return state if state.learned is None else state._replace(learned=learned)


def evaluate(loop: Loop, state: LoopState, learned: Any, data: Data) -> Evaluation:
    """Accuracy and likelihood of what the learner predicts, on the test points.

    Raises:
      ValueError: the data have a class that the learner does not predict, or a test point none
        (outside `jit`, where classes have values).
    """
    key = round_key(state, "evaluate")
    log_mean_probs = _mean_log_probs(loop, key, learned, data.x_test)
    _check_classes(data, log_mean_probs.shape[-1])
    return _measure(log_mean_probs, data.y_test)


def _mean_log_probs(loop: Loop, key: Key, learned: Any, x: Array) -> Float[Array, "n C"]:
    """`Learner.predict`, or the mean of K sampled predictions."""
    if loop.learner.predict is not None:
        return loop.learner.predict(learned, x)
    return _log_mean(loop.learner.sample(key, learned, x, loop.num_samples))


@jax.jit
def _log_mean(log_probs: LogProbs) -> Float[Array, "n C"]:
    return jax.nn.logsumexp(log_probs, axis=1) - jnp.log(log_probs.shape[1])


def check_data(loop: Loop, state: LoopState, data: Data) -> None:
    """What `fit` and `evaluate` refuse by the values of the data, for one who is about to jit them.

    Raises:
      ValueError: as they do.
    """
    key, initial, *_ = fit_arguments(loop, state, data)
    predict_test = partial(_mean_log_probs, loop)
    _check_classes(data, jax.eval_shape(predict_test, key, initial, data.x_test).shape[-1])


def _check_classes(data: Data, num_classes: int) -> None:
    # Within jit, a class that is not there would be read as another one.
    for name, classes in (("y", data.y), ("y_test", data.y_test)):
        if not classes.size or isinstance(classes, Tracer):
            continue
        if (largest := int(np.max(classes))) >= num_classes:
            raise ValueError(
                f"data.{name}: there is a class {largest}, and the learner predicts {num_classes} "
                f"classes, 0 to {num_classes - 1}; make a learner of {largest + 1} classes"
            )
    if data.y_test.size and not isinstance(data.y_test, Tracer) and np.min(data.y_test) < 0:
        raise ValueError(
            f"data.y_test: there is a class {np.min(data.y_test)}, and classes begin at 0; leave "
            "test points without a label out"
        )


@jax.jit
def _measure(log_mean_probs: Float[Array, "S C"], classes: Int[Array, "S"]) -> Evaluation:
    is_correct = jnp.argmax(log_mean_probs, axis=-1) == classes
    is_correct &= ~jnp.isnan(log_mean_probs).any(axis=-1)  # argmax takes NaN for the largest
    num_correct = jnp.sum(is_correct, dtype=jnp.int32)
    return Evaluation(
        num_correct, -jnp.mean(jnp.take_along_axis(log_mean_probs, classes[:, None], axis=-1))
    )


def predict(loop: Loop, state: LoopState, learned: Any, data: Data) -> Inputs:
    """What the acquisition function requires of pool and targets, and no more.

    Raises:
      ValueError: it requires target points, and `data` has none; or a Gaussian posterior, and the
        learner has none.
    """
    requires, learner = loop.acquisition.requires, loop.learner
    # One key for all: sample k must be the same network in the pool and in the targets.
    key = round_key(state, "predict")
    found: dict[str, Any] = dict.fromkeys(Inputs._fields)
    if "log_probs" in requires:
        found["log_probs"] = learner.sample(key, learned, data.x, loop.num_samples)
    if "target_log_probs" in requires:
        targets = target_points(loop, data)
        found["target_log_probs"] = learner.sample(key, learned, targets, loop.num_samples)
    if "mean_log_probs" in requires:
        sampled = found["log_probs"]  # with the same key: they need not be sampled again
        is_there = sampled is not None and learner.predict is None
        mean = _log_mean(sampled) if is_there else _mean_log_probs(loop, key, learned, data.x)
        found["mean_log_probs"] = mean
    if "features" in requires:
        see = learner.features
        found["features"] = see(learned, data.x) if see else data.x.reshape(len(data.x), -1)
    if "labelled" in requires:
        found["labelled"] = state.pool.status == pools.LABELLED
    if "gaussian" in requires:
        if learner.gaussian is None:
            raise ValueError(
                f"learner: {loop.acquisition.name} requires a Gaussian posterior, which this "
                "learner has not; take bb.logistic_head, or an acquisition function that asks for "
                "samples"
            )
        found["gaussian"] = learner.gaussian(learned, data.x, target_points(loop, data))
    return Inputs(**found)


def target_points(loop: Loop, data: Data) -> Float[Array, "T ..."]:
    """The target points.

    Raises:
      ValueError: there are none.
    """
    if data.x_target is None:
        raise ValueError(
            f"data.x_target: {loop.acquisition.name} requires target points; pass inputs like "
            "those that the model will have to predict (unlabelled ones will do)"
        )
    return data.x_target


@partial(jax.jit, static_argnums=0)
def ask(loop: Loop, state: LoopState, inputs: Inputs) -> tuple[LoopState, CandidateBatch]:
    """Choose a batch, given the points that are pending already, and mark it as pending too.

    While nothing is labelled, a learner that `needs_labels` gets a random batch; its diagnostics
    are those of the batch that the acquisition function would have chosen.
    """
    key, available = round_key(state, "select"), pools.available(state.pool)
    pending = pools.pending_indices(state.pool, capacity=loop.capacity)
    batch = loop.acquisition.select(
        key, inputs, batch_size=loop.batch_size, available=available, pending=pending
    )
    return mark_pending(loop, state, batch)


@partial(jax.jit, static_argnums=0)
def mark_pending(
    loop: Loop, state: LoopState, batch: CandidateBatch
) -> tuple[LoopState, CandidateBatch]:
    """The end of `ask`: the batch that was chosen, or a random one, is out."""
    if loop.learner.needs_labels:
        at_random = select_random(
            round_key(state, "select"),
            batch_size=loop.batch_size,
            available=pools.available(state.pool),
        )
        is_cold = pools.num_labelled(state.pool) == 0
        batch = batch._replace(
            indices=jnp.where(is_cold, at_random.indices, batch.indices),
            scores=jnp.where(is_cold, at_random.scores, batch.scores),
            gains=jnp.where(is_cold, at_random.gains, batch.gains),
        )
    return state._replace(pool=pools.ask(state.pool, batch.indices)), batch


@jax.jit
def tell(state: LoopState, indices: Int[Array, "B"], labels: Int[Array, "B"]) -> LoopState:
    """Take in the labels of points that were asked for (-1 is left out), and end the round."""
    return state._replace(round=state.round + 1, pool=pools.tell(state.pool, indices, labels))


@jax.jit
def oracle(data: Data, indices: Int[Array, "B"]) -> Int[Array, "B"]:
    """The true classes of points; -1 for an unfilled slot."""
    return jnp.where(indices >= 0, data.y[indices], -1)


_PURPOSES = ("init", "fit", "evaluate", "predict", "select")


def round_key(state: LoopState, purpose: str) -> Key:
    """The key of one purpose in one round; none is ever used twice."""
    in_round = jax.random.fold_in(state.key, state.round)
    return jax.random.fold_in(in_round, _PURPOSES.index(purpose))
