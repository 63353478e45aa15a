"""Sampling a pool that is spread over devices: the numbers of one device, and no exchange."""

import re
from pathlib import Path

import pytest
from several_devices import run_code

CODE = """
import toy
from bbald_jax.learning.sharded_sampling import _sample
from bbald_jax.pool import Labelled

mesh = jax.make_mesh((8,), ("pool",), axis_types=(jax.sharding.AxisType.Auto,))
key = jax.random.key(0)
x = np.random.default_rng(0).normal(size=(8 * 70 - 3, 2)).astype(np.float32)  # 70 on each: > 64
available = np.arange(len(x)) % 3 > 0


def check(learner, state, x, num_samples, atol):
    whole = np.asarray(learner.sample(key, state, jnp.asarray(x), num_samples))
    pool = bb.sample_sharded(
        key, learner, state, x, mesh=mesh, num_samples=num_samples, available=available[: len(x)]
    )
    found = np.asarray(pool.log_probs)
    assert pool.num_points == len(x), pool.layout
    np.testing.assert_allclose(found[: len(x)], whole, rtol=0, atol=atol)
    flat = found[len(x) :]  # the padding, as `shard_pool` makes it
    assert len(flat) and (flat == np.float32(-np.log(whole.shape[2]))).all()
    mask = np.asarray(pool.available)
    assert (mask[: len(x)] == available[: len(x)]).all() and not mask[len(x) :].any()
    assert len(pool.log_probs.sharding.device_set) == 8
    shard = pool.log_probs.addressable_shards[3].data
    assert shard.shape == (len(found) // 8, *whole.shape[1:])
    text = _sample.lower(
        key, state, jnp.zeros((len(found), x.shape[1]), device=pool.log_probs.sharding),
        learner=learner, mesh=mesh, layout=pool.layout, num_samples=num_samples,
    ).compile().as_text()
    # The test would see one: a sum over the devices is an all-reduce.
    for word in ("all-reduce", "all-gather", "all-to-all", "collective", "reduce-scatter", "send"):
        assert word not in text, word
    return pool


network = bb.mc_dropout_learner(toy.mlp(), toy.RECIPE)
pool = check(network, network.init(key, jnp.asarray(x)), x, 4, atol=0)

# What the command line does: from predictions to a batch, on all devices or one.
logits = np.random.default_rng(1).normal(size=(203, 5, 3)).astype(np.float32)
for name in ("bald", "epig", "batchbald") if EVERY else ("bald",):
    given = dict(kind="logits", acquisition=name, batch_size=4, exclude=range(3), pending=[7, 202])
    one = bb.select(logits, num_configurations=50, **given)
    many = bb.select(logits, num_configurations=50, **given, devices=jax.devices())
    for field in ("indices", "predicted_classes", "warnings", "targets"):
        assert list(getattr(many, field)) == list(getattr(one, field)), field
    np.testing.assert_allclose(many.scores, one.scores, rtol=0, atol=3e-6)
logits[200, 1, 2] = np.nan  # on the last device
try:
    bb.select(logits, **given, devices=jax.devices())
except ValueError as error:
    assert "logits[200, 1, 2] (value nan): NaN" in str(error), error
if EVERY:
    batch = bb.select_sharded(key, pool, batch_size=3, num_configurations=50)
    assert available[np.asarray(batch.indices)].all()
    ensemble = bb.ensemble_learner(network, 2)
    check(ensemble, ensemble.init(key, jnp.asarray(x)), x, 4, atol=0)
    head = bb.logistic_head(3)
    many = np.tile(x, (16, 1))[:-3]  # more than 1,048 on each, for K C = 1,000
    labelled = Labelled(jnp.asarray(x[:8]), jnp.arange(8) % 3, jnp.int32(6))
    available = np.tile(available, 16)
    state = head.fit(key, head.init(key, jnp.asarray(many)), labelled, None)
    check(head, state, many, 333, atol=0)
    check(head, state, x, 4, atol=1e-5)
    check(head, state, x[:5], 4, atol=1e-5)
    check(network, network.init(key, jnp.asarray(x)), x[:13], 4, atol=1e-6)
"""


def test_a_sharded_pool_is_sampled_and_chosen_from_as_a_whole_one():
    run_code("EVERY = False\n" + CODE, 8)


@pytest.mark.slow
def test_every_learner_samples_a_sharded_pool_as_a_whole_one():
    run_code("EVERY = True\n" + CODE, 8)


@pytest.mark.slow
def test_the_example_of_the_documentation():
    page = Path(__file__).parents[2] / "docs" / "scale.md"
    (example,) = re.findall(r"```py\n(.*?)```", page.read_text(), re.DOTALL)
    indices = re.findall(r"\d+", run_code(example, 4))
    assert len({*indices}) == 5 and all(int(index) < 2000 for index in indices)
