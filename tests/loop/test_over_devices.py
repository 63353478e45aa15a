"""Trials spread over devices: the rounds are those of one trial after the other."""

import pytest
from several_devices import run_code

CODE = """
import toy


def fit_means(key, means, labelled, validation):
    # The labelled points of a class on average: quick to compile.
    is_there = jnp.arange(len(labelled.y)) < labelled.num_examples
    is_class = (jax.nn.one_hot(labelled.y, 3) * is_there[:, None]).T
    return (means + is_class @ labelled.x) / (1 + is_class.sum(axis=1, keepdims=True))


def sample_means(key, means, x, num_samples):
    noise = 0.2 * jax.random.normal(key, (num_samples, 1, 3))
    return jax.nn.log_softmax((x @ means.T)[:, None] + jnp.swapaxes(noise, 0, 1))


if KIND == "head":
    learner = bb.logistic_head(3)
elif KIND == "network":
    learner = bb.mc_dropout_learner(toy.mlp(), toy.RECIPE._replace(warm_start=WARM))
else:
    learner = bb.Learner(
        jax.jit(lambda key, x: jax.random.normal(key, (3, 2))),
        jax.jit(fit_means),
        jax.jit(sample_means, static_argnums=3),
        warm_start=WARM,
        needs_labels=True,
    )
acquisition = bb.catalogue(num_configurations=50)[ACQUISITION]
loop = bb.loop.Loop(learner, acquisition, batch_size=2, num_samples=4, capacity=12)
data, states = [], []
for trial in range(3):
    x, y = toy.blobs(trial, 60, 1.5)
    validation = toy.labelled(*toy.blobs(trial + 10, 20, 1.5))
    data.append(bb.loop.Data(x, y, validation, *toy.blobs(trial + 20, 40, 1.5), x[:20]))
    learned = learner.init(jax.random.key(trial + 50), x) if WARM else None
    key = jax.random.key(trial)
    states.append(  # the last without a label: its first batch is random
        bb.loop.init(key, y, num_classes=3, initial_per_class=int(trial < 2), learned=learned)
    )
ends = dict(num_rounds=2, target_correct=30)
alone = [list(bb.loop.run(loop, *each, **ends)) for each in zip(states, data)]
asked = []


def arrays(trial):
    asked.append(trial)
    return data[trial]


def numbers(tree):
    return jax.tree.map(
        lambda x: np.asarray(jax.random.key_data(x) if x.dtype == states[0].key.dtype else x), tree
    )


def make_mesh(num_devices, axis):
    devices = np.asarray(jax.devices()[:num_devices])
    return jax.sharding.Mesh(devices, (axis,), axis_types=(jax.sharding.AxisType.Auto,))


def compare(ours, theirs, atol):
    for (state, measured, _), (its_state, its_measured, _) in zip(ours, theirs, strict=True):
        found, expected = numbers((state, measured)), numbers((its_state, its_measured))
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)


for num_devices in DEVICES:
    mesh = make_mesh(num_devices, "trial")
    spread = [[], [], []]
    for trial, *round in bb.loop.run_over_devices(loop, states, arrays, mesh=mesh, **ends):
        spread[trial].append(round)
    for ours, theirs in zip(spread, alone, strict=True):
        compare(ours, theirs, ATOL)
if SPREAD:  # the pool of one trial
    for trial in (1, 2):
        mesh = make_mesh(2, "pool")
        rounds = list(bb.loop.run(loop, states[trial], data[trial], mesh=mesh, **ends))
        indices = [round.batch.indices.tolist() for _, round, _ in rounds[:-1]]
        assert indices == [round.batch.indices.tolist() for _, round, _ in alone[trial][:-1]]
        for (_, ours, _), (_, theirs, _) in zip(rounds, alone[trial], strict=True):
            nll = ours.evaluation.nll, theirs.evaluation.nll
            np.testing.assert_allclose(*numbers(nll), rtol=0, atol=1e-6)
            if ours.batch is not None:
                scores = ours.batch.scores, theirs.batch.scores
                np.testing.assert_allclose(*numbers(scores), rtol=0, atol=3e-6)
print(sorted({*asked}), [len(rounds) for rounds in alone])
if REFUSES:
    data[1] = data[1]._replace(y_test=data[1].y_test.at[3].set(7))
    try:
        next(bb.loop.run_over_devices(loop, states, arrays, mesh=mesh, **ends))
    except ValueError as error:
        print(error)
    small = loop._replace(capacity=4)
    try:
        next(bb.loop.run_over_devices(small, states, arrays, mesh=mesh, **ends))
    except ValueError as error:
        print(error)
"""


def settings(**values: object) -> str:
    return "\n".join(f"{name} = {value!r}" for name, value in values.items()) + "\n"


def test_rounds_on_two_devices_are_those_of_one():
    given = settings(
        KIND="means",
        ACQUISITION="bald",
        WARM=True,
        DEVICES=(2,),
        ATOL=1e-6,
        REFUSES=True,
        SPREAD=False,
    )
    asked, class_7, capacity = run_code(given + CODE, 2).splitlines()
    # Trials end at different times, one of them after the last round.
    assert asked == "[0, 1, 2] [3, 1, 2]"
    assert "data.y_test: there is a class 7" in class_7
    assert "loop.capacity: 4 is too small" in capacity


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize(
    ("kind", "acquisition", "warm", "atol"),
    [
        ("network", "batchbald", False, 0),
        ("network", "batchbald", True, 0),
        ("head", "weighted-epig-closed", False, 1e-6),
        ("head", "epig", False, 1e-6),
    ],
)
def test_rounds_on_three_devices_are_those_of_one(
    kind: str, acquisition: str, warm: bool, atol: float
):
    given = settings(
        KIND=kind,
        ACQUISITION=acquisition,
        WARM=warm,
        DEVICES=(2, 3),
        ATOL=atol,
        REFUSES=False,
        SPREAD=acquisition == "batchbald",
    )
    assert run_code(given + CODE, 3).startswith("[0, 1, 2] [")
