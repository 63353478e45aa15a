"""The baselines on features: each pick against float64 brute force, and what all promise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import bbald_jax as bb
from bbald_jax.acquisition import clusters, typiclust

N, D, C, B = 40, 3, 3, 4
KEY = jax.random.key(0)
NAMES = ("badge", "coreset", "bait", "typiclust")
LABELLED = (7, 21)
PENDING = (3, 8)
RNG = np.random.default_rng(0)
# Five heaps, so that clusters mean something; far from the origin, so that rounding would show.
FEATURES = 4 * RNG.normal(size=(5, D))[np.arange(N) % 5] + RNG.normal(size=(N, D)) + 20
MEAN_LOG_PROBS = jax.nn.log_softmax(jnp.asarray(2 * RNG.normal(size=(N, C)), jnp.float32))


def mask(*points: int) -> jax.Array:
    return jnp.isin(jnp.arange(N), jnp.asarray(points, jnp.int32))


def make_inputs(features: Any = FEATURES, mean_log_probs: jax.Array = MEAN_LOG_PROBS) -> bb.Inputs:
    features = jnp.asarray(features, jnp.float32)
    labelled = mask(*LABELLED)
    return bb.Inputs(None, None, mean_log_probs, features, labelled)


def select(
    name: str,
    inputs: bb.Inputs | None = None,
    available: jax.Array | None = None,
    pending: tuple[int, ...] = (*PENDING, -1),
    key: jax.Array = KEY,
) -> bb.CandidateBatch:
    available = ~mask(*LABELLED) if available is None else available
    return bb.catalogue()[name].select(
        key,
        inputs or make_inputs(),
        batch_size=B,
        available=available,
        pending=jnp.asarray(pending, jnp.int32),
    )


CANDIDATES = [n for n in range(N) if n not in (*LABELLED, *PENDING)]


# --- what all promise


@pytest.mark.parametrize("name", NAMES)
def test_only_what_can_be_chosen_is_chosen_and_slots_stay_empty(name: str):
    batch = select(name)
    assert len(set(batch.indices.tolist())) == B
    assert set(batch.indices.tolist()) <= set(CANDIDATES)
    np.testing.assert_allclose(batch.scores, np.cumsum(batch.gains), rtol=1e-5)
    assert float(batch.gains.min()) >= 0
    few = select(name, available=mask(2, 3, 5, 30))
    assert sorted(few.indices[:3].tolist()) == [2, 5, 30]
    assert few.indices[3] == -1
    assert few.gains[3] == 0
    assert few.scores[3] == few.scores[2]
    assert select(name, available=mask()).indices.tolist() == [-1] * B


@pytest.mark.parametrize("name", NAMES)
def test_a_point_without_features_or_prediction_changes_nothing_else(name: str):
    broken = FEATURES.copy()
    broken[8] = np.nan  # it is pending
    broken[21, 1] = np.inf  # it is labelled
    broken[5, 0] = 1e30
    predictions = MEAN_LOG_PROBS.at[12, 1].set(jnp.nan)
    found = select(name, make_inputs(broken, predictions))
    looks_at_predictions = name in ("badge", "bait")
    assert int(found.diagnostics.num_invalid) == 3 + looks_at_predictions
    assert not {5, 8, 21} & set(found.indices.tolist())
    assert 12 not in found.indices.tolist() or not looks_at_predictions
    assert np.isfinite(found.scores).all()
    # As in a pool without them.
    if name in ("badge", "typiclust"):
        return  # which draw for other points then
    there = np.setdiff1d(np.arange(N), [5, 8, 21, 12] if looks_at_predictions else [5, 8, 21])
    labelled = mask(*LABELLED)[there]
    sound = jnp.asarray(FEATURES, jnp.float32)[there]
    expected = bb.catalogue()[name].select(
        KEY,
        bb.Inputs(None, None, MEAN_LOG_PROBS[there], sound, labelled),
        batch_size=B,
        available=~labelled,
        pending=jnp.asarray([np.flatnonzero(there == 3)[0]]),
    )
    np.testing.assert_array_equal(found.indices, there[expected.indices])
    np.testing.assert_allclose(found.gains, expected.gains, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_under_vmap_and_jit(name: str):
    inputs = [make_inputs(), make_inputs(FEATURES[::-1].copy())]
    both = jax.jit(jax.vmap(lambda inputs: select(name, inputs)))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)
    )
    for i, each in enumerate(inputs):
        expected = select(name, each)
        np.testing.assert_array_equal(both.indices[i], expected.indices)
        np.testing.assert_allclose(both.gains[i], expected.gains, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_among_equals_the_key_chooses(name: str):
    copies = make_inputs(np.ones((N, D)), jnp.tile(MEAN_LOG_PROBS[:1], (N, 1)))
    batches = [select(name, copies, key=jax.random.key(seed)) for seed in range(8)]
    for batch in batches:
        assert len(set(batch.indices.tolist())) == B
        assert np.isfinite(batch.scores).all()
    assert len({int(batch.indices[0]) for batch in batches}) > 3


@pytest.mark.parametrize("name", NAMES)
def test_what_is_required_must_be_given_and_fit(name: str):
    function, inputs = bb.catalogue()[name], make_inputs()
    for field in function.requires:
        with pytest.raises(ValueError, match=rf"inputs\.{field}: this acquisition function requ"):
            select(name, inputs._replace(**{field: None}))
    with pytest.raises(ValueError, match=f"{name} requires features, which predictions do not"):
        bb.select(np.full((4, 2, 2), 0.5), kind="probs", acquisition=name)
    options = {"batch_size": 0, "available": mask(), "pending": None}
    with pytest.raises(ValueError, match="batch_size: 0"):
        function.select(KEY, inputs, **options)


def test_labelled_points_are_not_chosen_even_if_they_are_available():
    everything = jnp.ones(N, bool)
    for name in NAMES[1:]:
        batch = select(name, make_inputs()._replace(labelled=~mask(1, 2)), everything, (-1, -1, -1))
        assert sorted(batch.indices.tolist()) == [-1, -1, 1, 2], name


# --- BADGE


def test_badge_draws_by_squared_distances_of_gradients():
    gradients = reference.gradients(FEATURES, MEAN_LOG_PROBS)
    batch = select("badge")
    chosen = list(PENDING)
    for index, gain in zip(batch.indices.tolist(), batch.gains.tolist(), strict=True):
        nearest = min(((gradients[index] - gradients[j]) ** 2).sum() for j in chosen)
        assert gain == pytest.approx(nearest, rel=1e-4)
        chosen.append(index)
    # The first pick's frequencies, over keys.
    select_all = jax.jit(jax.vmap(lambda key: select("badge", key=key).indices[0]))
    firsts = np.asarray(select_all(jax.random.split(KEY, 4_000)))
    distances = ((gradients[:, None] - gradients[list(PENDING)]) ** 2).sum(axis=2).min(axis=1)
    distances[[*LABELLED, *PENDING]] = 0
    expected = distances / distances.sum()
    frequencies = np.bincount(firsts, minlength=N) / len(firsts)
    errors = np.sqrt(expected * (1 - expected) / len(firsts))
    assert (np.abs(frequencies - expected) <= 4.5 * errors).all()


def test_badge_begins_with_the_longest_gradient():
    lengths = (reference.gradients(FEATURES, MEAN_LOG_PROBS) ** 2).sum(axis=1)
    lengths[list(LABELLED)] = 0
    for seed in range(3):
        batch = select("badge", pending=(-1, -1, -1), key=jax.random.key(seed))
        assert int(batch.indices[0]) == int(lengths.argmax())
        assert float(batch.gains[0]) == pytest.approx(lengths.max(), rel=1e-4)


# --- core-set


def test_coreset_takes_the_farthest_point_first():
    batch = select("coreset")
    indices, gains = reference.k_centre(FEATURES, B, CANDIDATES, [*LABELLED, *PENDING])
    assert batch.indices.tolist() == indices
    np.testing.assert_allclose(batch.gains, gains, rtol=1e-4)
    in_two_goes = select("coreset", pending=(*PENDING, indices[0]))
    assert in_two_goes.indices[:3].tolist() == indices[1:]


def test_coreset_without_labels_begins_in_the_middle():
    inputs = make_inputs()._replace(labelled=mask())
    batch = select("coreset", inputs, jnp.ones(N, bool), (-1, -1, -1))
    middle = np.linalg.norm(FEATURES - FEATURES.mean(axis=0), axis=1).argmin()
    rest, gains = reference.k_centre(FEATURES, B - 1, range(N), [middle])
    assert batch.indices.tolist() == [middle, *rest]
    np.testing.assert_allclose(batch.gains, [0, *gains], rtol=1e-4)


# --- BAIT


def check_bait(inputs: bb.Inputs, batch: bb.CandidateBatch, weights: np.ndarray) -> None:
    """Every gain is what the trace loses."""
    known = [*LABELLED, *PENDING]
    before = reference.fisher_trace(inputs.features, weights, 1.0, known)
    for index, gain in zip(batch.indices.tolist(), batch.gains.tolist(), strict=True):
        known.append(index)
        after = reference.fisher_trace(inputs.features, weights, 1.0, known)
        assert gain == pytest.approx(before - after, rel=1e-3)
        before = after


def test_bait_goes_forward_and_backward():
    inputs = make_inputs(FEATURES - 20)
    batch = select("bait", inputs)
    expected = reference.select_bait(
        inputs.features, MEAN_LOG_PROBS, B, CANDIDATES, [*LABELLED, *PENDING]
    )
    assert batch.indices.tolist() == expected
    check_bait(inputs, batch, reference.mean_weights(MEAN_LOG_PROBS))
    # The first forward picks are another batch: the backward half is there.
    forward = bb.select_bait(
        inputs.features,
        MEAN_LOG_PROBS,
        batch_size=2 * B,
        labelled=inputs.labelled,
        available=mask(*CANDIDATES),
        pending=jnp.asarray(PENDING),
    )
    assert set(expected) != set(forward.indices[:B].tolist())


def test_bait_has_the_full_information_of_two_classes():
    two = jax.nn.log_softmax(MEAN_LOG_PROBS[:, :2])
    inputs = make_inputs(FEATURES - 20, two)
    probs = reference.to_probs(two)
    full = np.stack([np.diag(p) - np.outer(p, p) for p in probs])
    check_bait(inputs, select("bait", inputs), full)


def test_bait_does_not_depend_on_the_scale_of_the_features():
    small, large = (select("bait", make_inputs(FEATURES * scale)) for scale in (1e-3, 1e3))
    np.testing.assert_array_equal(small.indices, large.indices)
    np.testing.assert_allclose(small.gains, large.gains, rtol=1e-3)


# --- TypiClust, and k-means


def test_typiclust_takes_the_most_typical_of_the_clusters_without_a_label():
    batch = select("typiclust")
    x = clusters.centred(jnp.asarray(FEATURES, jnp.float32), jnp.zeros(N, bool))
    num_clusters = len(LABELLED) + len(PENDING) + B
    found, _ = clusters.kmeans(
        jax.random.split(KEY)[0], x, jnp.ones(N, bool), jnp.int32(num_clusters), capacity=N
    )
    assert len(set(found.tolist())) == num_clusters
    typical = reference.typicality(FEATURES, np.asarray(found))
    expected = reference.select_typiclust(
        typical, np.asarray(found), B, CANDIDATES, [*LABELLED, *PENDING]
    )
    assert batch.indices.tolist() == expected
    np.testing.assert_allclose(batch.gains, typical[expected], rtol=1e-3)


def test_typicality_over_many_blocks_of_points():
    rng = np.random.default_rng(1)
    num_points = 1_400
    found = rng.permutation(np.repeat([0, 1, 2, 3], [1, 3, 1_046, 350]))
    points = rng.normal(size=(num_points, 2))
    length = np.sqrt((points**2).sum(axis=1).mean())
    typical = typiclust._typicality(
        jnp.asarray(points, jnp.float32), jnp.asarray(found, jnp.int32), 4, jnp.float32(length)
    )
    expected = reference.typicality(points, found)
    lonely = found == 0
    np.testing.assert_allclose(typical[~lonely], expected[~lonely], rtol=1e-3)
    assert float(typical[lonely][0]) == expected[lonely][0] == 0


def test_kmeans_ends_where_every_centre_is_the_mean_of_what_is_nearest():
    rng = np.random.default_rng(2)
    points, is_valid = rng.normal(size=(300, 2)), np.arange(300) != 5
    found, centres = clusters.kmeans(
        KEY, jnp.asarray(points, jnp.float32), jnp.asarray(is_valid), jnp.int32(70), capacity=80
    )
    found, centres = np.asarray(found), np.asarray(centres)[:70]
    assert found[5] == 80
    assert set(found[is_valid].tolist()) == set(range(70))
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    np.testing.assert_array_equal(distances[is_valid].argmin(axis=1), found[is_valid])
    means = np.stack([points[(found == c) & is_valid].mean(axis=0) for c in range(70)])
    np.testing.assert_allclose(centres, means, atol=1e-5)


def test_seeds_are_drawn_far_apart():
    squared = jnp.asarray([0.0, 1.0, 5.0, 2.0, 0.0])
    available = jnp.asarray([True, True, False, True, True])
    keys = jax.random.split(KEY, 3_000)
    drawn = jax.vmap(lambda key: clusters.draw_far(key, squared, available))(keys)
    frequencies = np.bincount(np.asarray(drawn), minlength=5) / 3_000
    np.testing.assert_allclose(frequencies, [0, 1 / 3, 0, 2 / 3, 0], atol=0.04)
    level = jax.vmap(lambda key: clusters.draw_far(key, jnp.zeros(5), available))(keys)
    frequencies = np.bincount(np.asarray(level), minlength=5) / 3_000
    np.testing.assert_allclose(frequencies, [0.25, 0.25, 0, 0.25, 0.25], atol=0.04)


def test_the_nearest_of_many_centres():
    points = jnp.asarray(RNG.normal(size=(90, D)), jnp.float32)
    order = jnp.asarray(RNG.permutation(90)[:80], jnp.int32)
    squared, index = clusters.nearest(points, points, order, jnp.int32(75))
    x = np.asarray(points, np.float64)
    distances = ((x[:, None] - x[np.asarray(order[:75])]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(index, distances.argmin(axis=1))
    np.testing.assert_allclose(squared, distances.min(axis=1), atol=1e-4)
