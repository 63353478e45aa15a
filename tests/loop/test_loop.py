"""The acquisition loop: one step and the driver agree, runs continue, nothing compiles twice."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from sklearn.ensemble import RandomForestClassifier

from bbald_jax import loop as loops
from bbald_jax import pool as pools
from bbald_jax.acquisition import functions
from bbald_jax.acquisition.inputs import Acquisition, Inputs
from bbald_jax.acquisition.top import select_random, select_top
from bbald_jax.information.entropy import predictive_entropy
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.training import mc_dropout_learner
from bbald_jax.loop.rounds import Data, Loop, LoopState, Round, round_key
from bbald_jax.typing import CandidateBatch

NUM_POINTS, NUM_TEST, NUM_ROUNDS, BATCH_SIZE = 40, 25, 4, 3

#: Shared, so that it is compiled once.
MLP_LEARNER = mc_dropout_learner(toy.mlp(), toy.RECIPE)


def _guess(key: jax.Array, state: None, x: jax.Array, num_samples: int) -> jax.Array:
    shape = (len(x), num_samples, toy.NUM_CLASSES)
    return jax.nn.log_softmax(jax.random.normal(key, shape))


#: For what does not depend on how well anything is learnt.
GUESSING = Learner(lambda key, x: None, lambda *_: None, jax.jit(_guess, static_argnums=3))


def make_loop(acquisition: Acquisition, learner: Learner = MLP_LEARNER) -> Loop:
    return Loop(learner, acquisition, batch_size=BATCH_SIZE, num_samples=8, capacity=20)


def make_data(num_points: int = NUM_POINTS) -> Data:
    pool, test = toy.blobs(0, num_points, spread=1.5), toy.blobs(1, NUM_TEST, spread=1.5)
    return Data(*pool, toy.nothing(), *test)


def initial_state(data: Data, seed: int = 0, initial_per_class: int = 1) -> LoopState:
    return loops.init(
        jax.random.key(seed),
        data.y,
        num_classes=toy.NUM_CLASSES,
        initial_per_class=initial_per_class,
    )


def drive(loop: Loop, state: LoopState, data: Data, num_rounds: int = NUM_ROUNDS, **kwargs: Any):
    """All states that a run yields, and its rounds."""
    yielded = list(loops.run(loop, state, data, num_rounds=num_rounds, **kwargs))
    return [state for state, _, _ in yielded], [measured for _, measured, _ in yielded]


def acquired(rounds: list[Round]) -> list[int]:
    indices = [r.batch.indices.tolist() for r in rounds if r.batch is not None]
    return [i for batch in indices for i in batch]


def labelled_points(state: LoopState) -> set[int]:
    return set(np.flatnonzero(state.pool.status == pools.LABELLED).tolist())


@pytest.fixture(scope="module")
def loop() -> Loop:
    return make_loop(functions.batchbald(num_configurations=20))


@pytest.fixture(scope="module")
def data() -> Data:
    return make_data()


@pytest.fixture(scope="module")
def finished(loop: Loop, data: Data) -> tuple[list[LoopState], list[Round]]:
    return drive(loop, initial_state(data), data)


@pytest.fixture(scope="module")
def step(loop: Loop) -> Callable[[LoopState, Data], tuple[LoopState, Round]]:
    return jax.jit(partial(loops.step, loop))


def assert_same_rounds(actual: list[Round], expected: list[Round]) -> None:
    """Bit for bit."""
    assert len(actual) == len(expected)
    chex.assert_trees_all_equal(actual, expected)


def assert_like(actual: Round, expected: Round) -> None:
    """The same choices, and the same numbers to rounding: another program computed them."""
    assert actual.batch is not None
    assert expected.batch is not None
    assert (actual.round, actual.num_labelled) == (expected.round, expected.num_labelled)
    assert actual.evaluation.num_correct == expected.evaluation.num_correct
    np.testing.assert_allclose(actual.evaluation.nll, expected.evaluation.nll, rtol=1e-3)
    assert actual.batch.indices.tolist() == expected.batch.indices.tolist()
    np.testing.assert_allclose(actual.batch.gains, expected.batch.gains, atol=1e-3)


def test_the_initial_state(data: Data):
    state = initial_state(data, initial_per_class=2)
    points = sorted(labelled_points(state))
    assert sorted(np.asarray(data.y)[points].tolist()) == [0, 0, 1, 1, 2, 2]
    assert np.asarray(state.pool.labels)[points].tolist() == np.asarray(data.y)[points].tolist()
    assert state.round == 0
    assert labelled_points(initial_state(data, initial_per_class=0)) == set()
    assert labelled_points(initial_state(data, seed=1)) != labelled_points(initial_state(data))


def test_rounds_of_acquisition_and_one_evaluation_more(finished):
    _, rounds = finished
    assert [int(r.round) for r in rounds] == [0, 1, 2, 3, 4]
    assert [int(r.num_labelled) for r in rounds] == [3, 6, 9, 12, 15]
    assert [r.batch is None for r in rounds] == [False] * 4 + [True]


def test_no_point_is_acquired_twice(finished, data: Data):
    _, rounds = finished
    indices = acquired(rounds)
    assert len(indices) == len(set(indices)) == NUM_ROUNDS * BATCH_SIZE
    assert all(0 <= i < NUM_POINTS for i in indices)
    assert not set(indices) & labelled_points(initial_state(data))


def test_the_pool_holds_what_was_acquired_with_its_own_labels(finished, data: Data):
    states, rounds = finished
    points = labelled_points(initial_state(data)) | set(acquired(rounds))
    assert labelled_points(states[-1]) == points
    is_labelled = np.isin(np.arange(NUM_POINTS), list(points))
    assert states[-1].pool.labels.tolist() == np.where(is_labelled, data.y, -1).tolist()


def test_zero_rounds_are_one_evaluation(loop: Loop, data: Data, finished):
    states, rounds = drive(loop, initial_state(data), data, num_rounds=0)
    assert [r.batch for r in rounds] == [None]
    chex.assert_trees_all_equal(rounds[0].evaluation, finished[1][0].evaluation)
    # The state is as it was: a longer run goes on from it.
    assert_same_rounds(drive(loop, states[0], data)[1], finished[1])


@pytest.mark.parametrize("after", range(1, NUM_ROUNDS + 1))
def test_a_run_continues_from_any_state_bit_for_bit(loop: Loop, data: Data, finished, after: int):
    states, rounds = finished
    assert_same_rounds(drive(loop, states[after - 1], data)[1], rounds[after:])


def test_a_capacity_that_is_too_small_is_refused(loop: Loop, data: Data):
    with pytest.raises(ValueError, match=r"loop\.capacity: 4 is too small .* up to \d+ points"):
        drive(loop._replace(capacity=4), initial_state(data), data)


@pytest.mark.parametrize("name", ["y", "y_test"])
def test_a_class_that_the_learner_does_not_know_is_refused(data: Data, name: str):
    loop = make_loop(functions.catalogue()["random"], GUESSING)
    classes = getattr(data, name).at[5].set(toy.NUM_CLASSES)
    state = initial_state(data)
    with pytest.raises(
        ValueError, match=rf"data\.{name}: there is a class 3, .* 3 classes, 0 to 2; "
    ):
        drive(loop, state, data._replace(**{name: classes}))


def test_a_test_point_without_a_class_is_refused(data: Data):
    """-1 would be read as the last class."""
    loop = make_loop(functions.random, GUESSING)
    with pytest.raises(
        ValueError, match=r"data\.y_test: there is a class -1, .* leave test points"
    ):
        drive(loop, initial_state(data), data._replace(y_test=data.y_test.at[5].set(-1)))


def test_asking_again_is_conditional_on_what_is_pending(data: Data):
    # Exact, so the order of the thinning keys does not matter.
    loop = make_loop(functions.batchbald(toy.NUM_CLASSES ** (2 * BATCH_SIZE - 1)))
    inputs = loops.predict(
        loop, initial_state(data), loops.fit(loop, initial_state(data), data), data
    )
    state, first = loops.ask(loop, initial_state(data), inputs)
    state, second = loops.ask(loop, state, inputs)
    _, both = loops.ask(loop._replace(batch_size=2 * BATCH_SIZE), initial_state(data), inputs)
    assert [*first.indices.tolist(), *second.indices.tolist()] == both.indices.tolist()


def test_a_run_comes_from_its_key(loop: Loop, data: Data, finished):
    # From the same labels: only what the key decides can differ.
    state = initial_state(data)
    assert_same_rounds(drive(loop, state, data, num_rounds=1)[1][:1], finished[1][:1])
    (first, _) = drive(loop, state._replace(key=jax.random.key(5)), data, num_rounds=1)[1]
    assert first.evaluation.nll != finished[1][0].evaluation.nll


def test_every_round_draws_anew(loop: Loop, data: Data):
    # The same labels in another round: other parameters, other samples.
    state = initial_state(data)
    later = state._replace(round=jnp.int32(1))
    chex.assert_trees_all_equal(loops.fit(loop, state, data), loops.fit(loop, state, data))
    for a, b in zip(
        jax.tree.leaves(loops.fit(loop, state, data)),
        jax.tree.leaves(loops.fit(loop, later, data)),
        strict=True,
    ):
        assert np.any(a != b)


def test_every_purpose_has_its_own_key(data: Data):
    """Every key that a run hands out, to the learner and to the acquisition function."""
    seen: list[tuple[int, ...]] = []

    def note(key: jax.Array) -> None:
        jax.debug.callback(lambda d: seen.append(tuple(d.tolist())), jax.random.key_data(key))

    def init(key: jax.Array, x: jax.Array) -> None:
        note(key)

    def fit(key: jax.Array, *_: Any) -> None:
        note(key)

    def sample(key: jax.Array, state: None, x: jax.Array, num_samples: int) -> jax.Array:
        note(key)
        return jnp.full((len(x), num_samples, toy.NUM_CLASSES), -jnp.log(3.0))

    def select(key: jax.Array, inputs: Inputs, **kwargs: Any) -> CandidateBatch:
        note(key)
        return functions.bald.select(key, inputs, **kwargs)

    acquisition = Acquisition("noting", ("log_probs",), select)
    loop = make_loop(acquisition, Learner(init, fit, sample))
    drive(loop, initial_state(data), data, num_rounds=2)
    jax.effects_barrier()
    assert len(seen) == 2 * 5 + 3  # the last round predicts and selects nothing
    assert len(set(seen)) == len(seen)


def test_a_jitted_step_is_a_round_of_the_run(loop: Loop, data: Data, step, finished):
    states, rounds = finished
    state = initial_state(data)
    for expected_state, expected in list(zip(states, rounds, strict=True))[:-1]:
        state, measured = step(state, data)
        assert_like(measured, expected)
        chex.assert_trees_all_equal(state, expected_state)


def test_steps_vmapped_over_two_trials_are_two_trials(loop: Loop, data: Data, step):
    singles = [initial_state(data, seed) for seed in (0, 1)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)
    step_both = jax.jit(jax.vmap(partial(loops.step, loop), in_axes=(0, None)))
    for _ in range(2):
        both, measured = step_both(both, data)
        for trial, single in enumerate(singles):
            singles[trial], expected = step(single, data)
            assert_like(jax.tree.map(lambda leaf, t=trial: leaf[t], measured), expected)
    assert labelled_points(singles[0]) != labelled_points(singles[1])


def test_trials_run_together_are_trials_run_alone(loop: Loop, data: Data, finished):
    starts = [initial_state(data, seed) for seed in (0, 1)]
    together = list(loops.run_together(loop, starts, [data, data], num_rounds=NUM_ROUNDS))
    assert [trial for trial, *_ in together] == [0, 1] * (NUM_ROUNDS + 1)
    alone = [finished[1], drive(loop, starts[1], data)[1]]
    for trial, rounds in enumerate(alone):
        measured = [measured for index, _, measured, _ in together if index == trial]
        assert measured[-1].batch is None
        for actual, expected in zip(measured[:-1], rounds[:-1], strict=True):
            assert_like(actual, expected)


def test_trials_run_together_continue_and_end_one_by_one(loop: Loop, data: Data, finished):
    states, rounds = finished
    # One has a round to go, the other two; neither ends the other.
    starts = [states[NUM_ROUNDS - 1], states[NUM_ROUNDS - 2]]
    together = list(loops.run_together(loop, starts, [data, data], num_rounds=NUM_ROUNDS))
    assert [trial for trial, *_ in together] == [0, 1, 1]
    assert [measured.batch is None for _, _, measured, _ in together] == [True, False, True]
    assert_like(together[1][2], rounds[NUM_ROUNDS - 1])
    chex.assert_trees_all_equal(together[1][1].pool, states[NUM_ROUNDS - 1].pool)


#: Its state is how often it was fitted.
COUNTING = GUESSING._replace(
    init=lambda key, x: jnp.int32(0),
    fit=lambda key, state, labelled, validation: state + 1,
    warm_start=True,
)


def test_a_warm_start_goes_on_from_the_round_before(data: Data):
    loop = make_loop(functions.random, COUNTING)
    warm = initial_state(data)._replace(learned=jnp.int32(5))
    states, _ = drive(loop, warm, data)
    assert [int(state.learned) for state in states] == [6, 7, 8, 9, 9]
    again, _ = drive(loop, states[1], data)
    assert [int(state.learned) for state in again] == [8, 9, 9]
    stepped, _ = jax.jit(partial(loops.step, loop))(warm, data)
    assert stepped.learned == 6


def test_a_warm_start_and_its_state_belong_together(data: Data):
    cold = make_loop(functions.random, COUNTING._replace(warm_start=False))
    warm = make_loop(functions.random, COUNTING)
    with pytest.raises(ValueError, match=r"warm_start is True; pass learned=learner.init"):
        loops.fit(warm, initial_state(data), data)
    with pytest.raises(ValueError, match=r"warm_start is False; pass no learned="):
        loops.fit(cold, initial_state(data)._replace(learned=jnp.int32(5)), data)


def test_without_a_warm_start_nothing_is_kept(data: Data):
    loop = make_loop(functions.random, COUNTING._replace(warm_start=False))
    states, _ = drive(loop, initial_state(data), data)
    assert all(state.learned is None for state in states)
    assert loops.fit(loop, states[-1], data) == 1


def test_predictions_that_are_not_numbers_are_wrong(data: Data):
    # argmax would take them for class 0.
    learner = GUESSING._replace(sample=lambda *args: jnp.nan * _guess(*args))
    loop = make_loop(functions.bald, learner)
    data = data._replace(y_test=jnp.zeros_like(data.y_test))
    assert loops.evaluate(loop, initial_state(data), None, data).num_correct == 0


def test_the_target_ends_a_run(loop: Loop, data: Data, finished):
    _, rounds = finished
    counts = [int(r.evaluation.num_correct) for r in rounds]
    target = max(counts)
    last = counts.index(target)
    assert 0 < last < NUM_ROUNDS, "the test needs a target that is reached in between"
    states, stopped = drive(loop, initial_state(data), data, target_correct=target)
    assert_same_rounds(stopped[:-1], rounds[:last])
    assert_same_rounds(stopped[-1:], [rounds[last]._replace(batch=None)])
    assert_same_rounds(drive(loop, states[-1], data, target_correct=target)[1], stopped[-1:])


def test_a_target_out_of_reach_changes_nothing(loop: Loop, data: Data, finished):
    rounds = drive(loop, initial_state(data), data, target_correct=NUM_TEST + 1)[1]
    assert_same_rounds(rounds, finished[1])


@pytest.mark.parametrize("name", ["bald", "random", "kbald", "epig", "power-bald"])
def test_an_exhausted_pool_ends_a_run(name: str):
    data = make_data(num_points=10)
    data = data._replace(x_target=data.x)
    acquisition = functions.catalogue(num_configurations=20)[name]
    loop = make_loop(acquisition, GUESSING)
    states, rounds = drive(loop, initial_state(data), data, num_rounds=9)
    assert [int(r.num_labelled) for r in rounds] == [3, 6, 9, 10]
    assert rounds[-1].batch is None
    *full, last = (r.batch.indices.tolist() for r in rounds[:-1] if r.batch is not None)
    assert all(-1 not in indices for indices in full)
    assert last[1:] == [-1, -1]
    assert sorted(i for i in acquired(rounds) if i >= 0) == sorted(
        set(range(10)) - labelled_points(initial_state(data))
    )
    # An unfilled slot must not write over the last point.
    assert states[-1].pool.labels.tolist() == data.y.tolist()
    assert_same_rounds(drive(loop, states[-1], data, num_rounds=9)[1], rounds[-1:])


def test_predictions_that_are_not_numbers_acquire_nothing(data: Data):
    learner = GUESSING._replace(sample=lambda *args: jnp.nan * _guess(*args))
    states, rounds = drive(make_loop(functions.bald, learner), initial_state(data), data)
    assert set(acquired(rounds)) <= {-1}
    assert rounds[-1].batch is None
    chex.assert_trees_all_equal(states[-1].pool, initial_state(data).pool)


def test_points_asked_for_are_not_asked_for_again(loop: Loop, data: Data):
    state = initial_state(data)
    inputs = loops.predict(loop, state, loops.fit(loop, state, data), data)
    state, one = loops.ask(loop, state, inputs)
    state, two = loops.ask(loop, state, inputs)
    assert not set(one.indices.tolist()) & set(two.indices.tolist())
    assert pools.num_labelled(state.pool) == 3


@pytest.mark.parametrize(
    ("name", "in_pool", "in_targets"),
    [("random", 0, 0), ("bald", NUM_ROUNDS, 0), ("epig", NUM_ROUNDS, NUM_ROUNDS)],
)
def test_nothing_is_predicted_that_nobody_looks_at(
    data: Data, name: str, in_pool: int, in_targets: int
):
    sampled = []
    data = data._replace(x_target=data.x_test[:5])
    names = {id(data.x): "pool", id(data.x_test): "test", id(data.x_target): "targets"}

    def sample(key: jax.Array, state: None, x: jax.Array, num_samples: int) -> jax.Array:
        sampled.append(names.get(id(x), "?"))
        return _guess(key, state, x, num_samples)

    acquisition = functions.catalogue(num_configurations=20)[name]
    learner = Learner(lambda key, x: None, lambda *_: None, sample)
    drive(make_loop(acquisition, learner), initial_state(data), data)
    assert sampled.count("test") == NUM_ROUNDS + 1
    assert sampled.count("pool") == in_pool
    assert sampled.count("targets") == in_targets
    assert "?" not in sampled


def test_pool_and_targets_are_predicted_by_the_same_networks(data: Data):
    # The last points of the pool as targets: what is predicted for them is the same.
    loop, state = make_loop(functions.epig), initial_state(data)
    data = data._replace(x_target=data.x[-7:])
    inputs = loops.predict(loop, state, loops.fit(loop, state, data), data)
    assert inputs.log_probs is not None
    assert inputs.target_log_probs is not None
    np.testing.assert_allclose(inputs.target_log_probs, inputs.log_probs[-7:], atol=1e-5)
    spread = np.exp(inputs.log_probs).std(axis=1).max()
    assert spread > 0.01, "the networks must differ for this to tell anything"


def test_targets_that_are_required_and_missing_are_asked_for(data: Data):
    with pytest.raises(ValueError, match=r"data\.x_target: epig requires target points"):
        drive(make_loop(functions.epig, GUESSING), initial_state(data), data)


def traced_once(loop: Loop) -> Loop:
    """The same, with chex counting how often each function is traced."""
    chex.clear_trace_counter()
    init, fit, sample, *_ = loop.learner
    return loop._replace(
        learner=loop.learner._replace(
            init=jax.jit(chex.assert_max_traces(lambda key, x: init(key, x), n=1)),
            fit=jax.jit(chex.assert_max_traces(lambda *args: fit(*args), n=1)),
            # Once for the pool, once for the test points.
            sample=jax.jit(
                chex.assert_max_traces(lambda *args: sample(*args), n=2),
                static_argnums=3,
            ),
        ),
        acquisition=loop.acquisition._replace(
            select=chex.assert_max_traces(
                lambda *args, **kwargs: loop.acquisition.select(*args, **kwargs), n=1
            )
        ),
    )


def test_a_run_traces_and_compiles_each_function_once(loop: Loop, data: Data, finished):
    counted, state = traced_once(loop), initial_state(data)
    before, counts, rounds = len(toy.COMPILED), [], []
    for _, measured, _ in loops.run(counted, state, data, num_rounds=NUM_ROUNDS):
        counts.append(len(toy.COMPILED))
        rounds.append(measured)
    assert counts[0] > before, "the listener must hear the first round"
    assert toy.COMPILED[counts[0] :] == []
    assert acquired(rounds) == acquired(finished[1])


def test_the_trace_counter_counts():
    counted = traced_once(make_loop(functions.random, GUESSING))
    small, large = make_data(8), make_data(9)
    drive(counted, initial_state(small), small, num_rounds=1)
    with pytest.raises(AssertionError, match="traced"):
        drive(counted, initial_state(large), large, num_rounds=1)


class OwnNet(nn.Module):
    """What a user writes: a flax module with dropout, and nothing of this library."""

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        x = nn.tanh(nn.Dense(12)(x))
        x = nn.LayerNorm()(x)
        x = nn.Dropout(0.2)(x, deterministic=deterministic)
        return nn.Dense(toy.NUM_CLASSES)(x)


def test_a_users_own_flax_module(data: Data):
    learner = mc_dropout_learner(flax_model(OwnNet()), toy.RECIPE)
    loop = make_loop(functions.bald, learner)
    rounds = drive(loop, initial_state(data), data, num_rounds=2)[1]
    assert len(set(acquired(rounds))) == 2 * BATCH_SIZE
    assert rounds[-1].evaluation.num_correct > 0.7 * NUM_TEST


def forest_learner() -> Learner:
    """A random forest of scikit-learn; its trees are the posterior samples. No flax, no jit."""

    def fit(key: jax.Array, state: None, examples: pools.Labelled, _: pools.Labelled):
        n = int(examples.num_examples)
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        forest = RandomForestClassifier(n_estimators=8, random_state=seed)
        return forest.fit(np.asarray(examples.x[:n]), np.asarray(examples.y[:n]))

    def sample(key: jax.Array, forest: Any, x: jax.Array, num_samples: int) -> jax.Array:
        probs = np.zeros((len(x), num_samples, toy.NUM_CLASSES), np.float32)
        trees = jax.random.permutation(key, len(forest.estimators_))[:num_samples]
        for k, tree in enumerate(trees.tolist()):
            predicted = forest.estimators_[tree].predict_proba(np.asarray(x))
            probs[:, k, forest.classes_.astype(int)] = predicted
        return jnp.log(probs)  # zeros become -inf, which is fine

    return Learner(lambda key, x: None, fit, sample)


def test_a_learner_that_is_not_flax(data: Data):
    loop = make_loop(functions.batchbald(num_configurations=20), forest_learner())
    states, rounds = drive(loop, initial_state(data), data, num_rounds=3)
    assert len(set(acquired(rounds))) == 3 * BATCH_SIZE
    assert rounds[-1].evaluation.num_correct > 0.5 * NUM_TEST
    # Continued, it is the same run.
    assert_same_rounds(drive(loop, states[1], data, num_rounds=3)[1], rounds[2:])


def test_a_custom_acquisition(data: Data):
    """The last points that are available, however they are predicted."""

    def select(
        key: jax.Array, inputs: Inputs, *, batch_size: int, available: jax.Array, pending: None
    ) -> CandidateBatch:
        assert inputs.log_probs is None
        scores = jnp.arange(available.size, dtype=jnp.float32)
        return select_top(scores, batch_size=batch_size, available=available)

    loop = make_loop(Acquisition("last", (), select), GUESSING)
    rounds = drive(loop, initial_state(data), data, num_rounds=2)[1]
    left = sorted(set(range(NUM_POINTS)) - labelled_points(initial_state(data)), reverse=True)
    assert acquired(rounds) == left[: 2 * BATCH_SIZE]


def test_a_custom_acquisition_sees_the_predictions_for_the_pool(data: Data):
    """Entropy of the mean prediction, written with the library's own parts."""

    def select(
        key: jax.Array, inputs: Inputs, *, batch_size: int, available: jax.Array, pending: None
    ) -> CandidateBatch:
        assert inputs.log_probs is not None
        scores = predictive_entropy(inputs.log_probs)
        return select_top(scores, batch_size=batch_size, available=available)

    loop, state = make_loop(Acquisition("entropy", ("log_probs",), select)), initial_state(data)
    inputs = loops.predict(loop, state, loops.fit(loop, state, data), data)
    assert inputs.log_probs is not None
    probs = np.exp(inputs.log_probs).mean(axis=1)
    entropy = -np.sum(probs * np.log(probs), axis=-1)
    entropy[list(labelled_points(state))] = -1
    (measured, _) = drive(loop, state, data, num_rounds=1)[1]
    assert measured.batch is not None
    assert measured.batch.indices.tolist() == np.argsort(-entropy)[:BATCH_SIZE].tolist()


def test_the_evaluation_is_that_of_the_mean_prediction(data: Data):
    log_probs = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (NUM_TEST, 8, 3)))
    learner = Learner(lambda key, x: None, lambda *_: None, lambda *_: log_probs)
    loop = make_loop(functions.random, learner)
    (measured,) = drive(loop, initial_state(data), data, num_rounds=0)[1]
    mean = np.exp(np.asarray(log_probs, np.float64)).mean(axis=1)
    assert measured.evaluation.num_correct == np.sum(mean.argmax(axis=1) == data.y_test)
    nll = -np.mean(np.log(mean[np.arange(NUM_TEST), data.y_test]))
    np.testing.assert_allclose(measured.evaluation.nll, nll, rtol=1e-5)


@pytest.mark.parametrize("needs_labels", [True, False])
def test_a_learner_that_needs_labels_starts_with_a_random_batch(data: Data, needs_labels: bool):
    loop = make_loop(functions.bald, GUESSING._replace(needs_labels=needs_labels))
    state = initial_state(data, initial_per_class=0)
    inputs = loops.predict(loop, state, None, data)
    key, available = round_key(state, "select"), pools.available(state.pool)
    by_score = loop.acquisition.select(
        key, inputs, batch_size=BATCH_SIZE, available=available, pending=None
    )
    at_random = select_random(key, batch_size=BATCH_SIZE, available=available)
    assert set(by_score.indices.tolist()) != set(at_random.indices.tolist())
    asked, cold = loops.ask(loop, state, inputs)
    expected = at_random if needs_labels else by_score
    np.testing.assert_array_equal(cold.indices, expected.indices)
    np.testing.assert_allclose(cold.gains, expected.gains, atol=1e-6)
    # With a label, it is the acquisition function's turn.
    told = loops.tell(asked, cold.indices, loops.oracle(data, cold.indices))
    _, warm = loops.ask(loop, told, inputs)
    by_score = loop.acquisition.select(
        key, inputs, batch_size=BATCH_SIZE, available=pools.available(told.pool), pending=None
    )
    np.testing.assert_array_equal(warm.indices, by_score.indices)
