"""The catalogue: every acquisition function behaves alike behind one signature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from conftest import MakeLogProbs, assert_nats

import bbald_jax as bb
from bbald_jax.acquisition import functions
from bbald_jax.acquisition.top import select_top

NAMES = [
    "random",
    "predictive-entropy",
    "margin",
    "variation-ratio",
    "mean-std",
    "bald",
    "batchbald",
    "power-bald",
    "softmax-bald",
    "softrank-bald",
    "epig",
    "kbald",
    "gaussian-batchbald",
    "batch-epig",
]
#: They look at no prediction; test_joint_forms.py is about them.
CLOSED = ["gaussian-batchbald-closed", "batch-epig-closed", "weighted-epig-closed"]
#: Nor do these, which look at features: see test_baselines.py.
BASELINES = ["badge", "coreset", "bait", "typiclust"]
WITH_TARGETS = ("epig", "batch-epig")
KEY = jax.random.key(0)
BATCH_SIZE = 3
NO_PENDING = (-1, -1)


def mask(*available: int) -> jax.Array:
    return jnp.isin(jnp.arange(6), jnp.asarray(available, jnp.int32))


@pytest.fixture(params=NAMES)
def function(request: pytest.FixtureRequest) -> bb.Acquisition:
    return bb.catalogue(num_configurations=20)[request.param]


@pytest.fixture
def log_probs(make_log_probs: MakeLogProbs) -> jax.Array:
    return make_log_probs(6, 4, 3)


def select(
    function: bb.Acquisition,
    log_probs: jax.Array | None,
    available: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    pending: tuple[int, ...] = NO_PENDING,
    key: jax.Array = KEY,
) -> bb.CandidateBatch:
    """Of six points, which are their own targets."""
    return function.select(
        key,
        bb.Inputs(log_probs, log_probs),
        batch_size=BATCH_SIZE,
        available=mask(*available),
        pending=jnp.asarray(pending),
    )


def test_the_catalogue_knows_each_function_by_its_own_name():
    catalogue = bb.catalogue()
    assert list(catalogue) == NAMES + CLOSED + BASELINES
    assert [function.name for function in catalogue.values()] == NAMES + CLOSED + BASELINES


def test_the_batch_has_b_slots_of_different_points(function: bb.Acquisition, log_probs: jax.Array):
    batch = select(function, log_probs)
    assert batch.indices.shape == batch.scores.shape == batch.gains.shape == (BATCH_SIZE,)
    assert batch.diagnostics.is_exact.shape == (BATCH_SIZE,)
    assert batch.indices.dtype == jnp.int32
    assert len(set(batch.indices.tolist())) == BATCH_SIZE
    assert set(batch.indices.tolist()) <= set(range(6))


def test_only_what_is_available_and_not_pending_is_chosen(
    function: bb.Acquisition, log_probs: jax.Array
):
    batch = select(function, log_probs, (1, 2, 4, 5), (4, 0))
    assert sorted(batch.indices.tolist()) == [1, 2, 5]


def test_too_few_points_leave_slots_unfilled(function: bb.Acquisition, log_probs: jax.Array):
    batch = select(function, log_probs, (1, 4, 5), (4, 4))
    assert sorted(batch.indices[:2].tolist()) == [1, 5]
    assert batch.indices[2] == -1
    assert batch.gains[2] == 0
    assert batch.scores[2] == batch.scores[1]


def test_pending_may_be_left_out(function: bb.Acquisition, log_probs: jax.Array):
    batch = function.select(
        KEY,
        bb.Inputs(log_probs, log_probs),
        batch_size=BATCH_SIZE,
        available=mask(0, 2, 3, 5),
        pending=None,
    )
    expected = select(function, log_probs, (0, 2, 3, 5))
    np.testing.assert_array_equal(batch.indices, expected.indices)


def test_works_under_jit_and_vmap(function: bb.Acquisition, make_log_probs: MakeLogProbs):
    pools = jnp.stack([make_log_probs(6, 4, 3, seed=seed) for seed in (1, 2)])
    keys = jax.random.split(KEY, 2)

    @jax.jit
    @jax.vmap
    def both(key: jax.Array, log_probs: jax.Array) -> bb.CandidateBatch:
        return select(function, log_probs, (0, 2, 3, 4, 5), (2, -1), key)

    batches = both(keys, pools)
    for i in range(2):
        expected = select(function, pools[i], (0, 2, 3, 4, 5), (2, -1), keys[i])
        np.testing.assert_array_equal(batches.indices[i], expected.indices)
        assert_nats(batches.scores[i], expected.scores, 2e-6)


def test_what_is_required_must_be_given(function: bb.Acquisition, log_probs: jax.Array):
    if function.requires:
        with pytest.raises(ValueError, match=r"inputs\.log_probs: .* requires predictions"):
            select(function, None)
    else:
        batch, expected = select(function, None), select(function, log_probs)
        np.testing.assert_array_equal(batch.indices, expected.indices)


def test_targets_are_required_by_epig_and_batch_epig_alone(
    function: bb.Acquisition, log_probs: jax.Array
):
    def select_without_targets() -> bb.CandidateBatch:
        return function.select(
            KEY,
            bb.Inputs(log_probs),
            batch_size=BATCH_SIZE,
            available=mask(*range(6)),
            pending=None,
        )

    if function.name in WITH_TARGETS:
        assert function.requires == ("log_probs", "target_log_probs")
        with pytest.raises(ValueError, match=r"inputs\.target_log_probs: .* the same posterior"):
            select_without_targets()
    else:
        assert function.requires == (() if function.name == "random" else ("log_probs",))
        expected = select(function, log_probs)
        jax.tree.map(np.testing.assert_array_equal, select_without_targets(), expected)


def test_every_function_is_described_in_one_line(function: bb.Acquisition):
    assert 20 < len(function.description) < 90
    assert "\n" not in function.description


def test_broken_points_are_never_chosen_and_are_counted(
    function: bb.Acquisition, log_probs: jax.Array
):
    if not function.requires:
        return  # it does not look at them
    broken = log_probs.at[0, 3, 1].set(jnp.nan).at[3, 0, 2].set(jnp.inf).at[4].set(jnp.nan)
    batch = select(function, broken, (0, 1, 2, 3, 5), (4, -1))
    assert sorted(batch.indices.tolist()) == [1, 2, 5]
    assert np.all(np.isfinite(batch.scores))
    assert np.all(np.isfinite(batch.gains))
    assert batch.diagnostics.num_invalid == 3
    # What is broken, or cannot be chosen, does not change how the others are judged.
    if function.name not in WITH_TARGETS:  # their targets are the pool, here
        mended = log_probs.at[jnp.asarray([0, 3, 4])].set(log_probs[1])
        expected = select(function, mended, (1, 2, 5))
        np.testing.assert_array_equal(batch.indices, expected.indices)
        assert_nats(batch.scores, expected.scores, 2e-6)


def test_fewer_points_than_slots(function: bb.Acquisition, log_probs: jax.Array):
    few, num_points = log_probs[:2], 2
    batch = function.select(
        KEY,
        bb.Inputs(few, few),
        batch_size=BATCH_SIZE,
        available=jnp.ones(num_points, bool),
        pending=None,
    )
    assert sorted(batch.indices[:num_points].tolist()) == list(range(num_points))
    np.testing.assert_array_equal(batch.indices[num_points:], -1)
    np.testing.assert_array_equal(batch.gains[num_points:], 0)


def test_bald_is_select_bald(log_probs: jax.Array):
    batch = select(bb.catalogue()["bald"], log_probs)
    expected = bb.select_bald(log_probs, batch_size=BATCH_SIZE)
    jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_batchbald_is_select_batchbald_with_its_number_of_configurations(log_probs: jax.Array):
    for num_configurations, is_exact in ((5, [True, True, False]), (20, [True] * 3)):
        function = bb.catalogue(num_configurations=num_configurations)["batchbald"]
        batch = select(function, log_probs)
        np.testing.assert_array_equal(batch.diagnostics.is_exact, is_exact)
        expected = bb.select_batchbald(
            KEY,
            log_probs,
            batch_size=BATCH_SIZE,
            num_configurations=num_configurations,
            available=mask(*range(6)),
            pending=jnp.asarray(NO_PENDING),
        )
        jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_batchbald_and_kbald_are_conditional_on_what_is_pending():
    # A noiseless question, asked already, and its copies; one weaker question of another kind.
    votes = jnp.log(jnp.eye(3))
    asked = votes[jnp.asarray([0, 0, 1, 1])]
    weaker = jax.nn.log_softmax(jnp.where(votes[jnp.asarray([0, 1, 0, 1])] > -1, 2.0, 0.0))
    log_probs = jnp.stack([asked, asked, asked, asked, asked, weaker])
    catalogue = bb.catalogue(num_configurations=20)
    assert int(select(catalogue["bald"], log_probs, pending=(0, -1)).indices[0]) in {1, 2, 3, 4}
    assert select(catalogue["batchbald"], log_probs, pending=(0, -1)).indices[0] == 5
    assert select(catalogue["kbald"], log_probs, pending=(0, -1)).indices[0] == 5


@pytest.mark.parametrize("is_flat", [True, False], ids=["nothing-to-learn", "copies"])
def test_among_equals_the_key_chooses_and_never_the_order(
    function: bb.Acquisition, make_log_probs: MakeLogProbs, is_flat: bool
):
    log_probs = jnp.tile(make_log_probs(1, 4, 3, scale=0.0 if is_flat else 2.0), (6, 1, 1))
    # Rounding, which would decide alone.
    log_probs = log_probs + 1e-7 * jax.random.normal(KEY, log_probs.shape)
    firsts = {
        int(select(function, log_probs, key=key).indices[0]) for key in jax.random.split(KEY, 40)
    }
    assert firsts == set(range(6))


def test_random_takes_another_batch_for_another_key():
    batches = {
        tuple(select(functions.random, None, key=key).indices.tolist())
        for key in jax.random.split(KEY, 20)
    }
    assert len(batches) > 10


def test_a_function_of_ones_own_fits_the_seam(log_probs: jax.Array):
    def select_highest_index(
        key: jax.Array, inputs: bb.Inputs, *, batch_size: int, available: jax.Array, pending: None
    ) -> bb.CandidateBatch:
        scores = jnp.arange(available.size, dtype=jnp.float32)
        return select_top(scores, batch_size=batch_size, available=available)

    own = bb.Acquisition("highest-index", (), select_highest_index)
    np.testing.assert_array_equal(select(own, None, (0, 1, 4, 5)).indices, [5, 4, 1])


def test_a_function_of_ones_own_runs_in_the_loop():
    """The gain of a label about the targets that are predicted worst, say."""

    def select_for_hard_targets(
        key: jax.Array,
        inputs: bb.Inputs,
        *,
        batch_size: int,
        available: jax.Array,
        pending: jax.Array,
    ) -> bb.CandidateBatch:
        targets = inputs.target_log_probs
        assert targets is not None
        hardest = jax.lax.top_k(bb.variation_ratio(targets), 3)[1]
        scores = bb.epig(inputs.log_probs, targets[hardest])
        available = bb.without_pending(available, pending)
        return bb.select_top(scores, batch_size=batch_size, available=available)

    own = bb.Acquisition("hard-targets", ("log_probs", "target_log_probs"), select_for_hard_targets)

    def guess(key: jax.Array, state: None, x: jax.Array, num_samples: int) -> jax.Array:
        return jax.nn.log_softmax(jax.random.normal(key, (len(x), num_samples, 3)))

    learner = bb.Learner(lambda key, x: None, lambda *_: None, guess)
    loop = bb.loop.Loop(learner, own, batch_size=2, num_samples=8, capacity=9)
    x, y = toy.blobs(0, 30, spread=1.5)
    data = bb.loop.Data(x, y, toy.nothing(), *toy.blobs(1, 20), x_target=toy.blobs(2, 10)[0])
    state = bb.loop.init(KEY, y, num_classes=toy.NUM_CLASSES, initial_per_class=1)
    rounds = [measured for _, measured, _ in bb.loop.run(loop, state, data, num_rounds=3)]
    acquired = [i for r in rounds if r.batch is not None for i in r.batch.indices.tolist()]
    assert len(set(acquired)) == 6
    assert set(acquired) <= set(range(30))
    assert [int(r.num_labelled) for r in rounds] == [3, 5, 7, 9]
