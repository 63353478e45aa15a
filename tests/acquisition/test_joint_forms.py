"""The joint scores without a ceiling: each pick against dense float64, and what all promise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import temporary_bytes

import bbald_jax as bb
from bbald_jax.information import gaussian
from bbald_jax.information.gaussian import (
    GaussianPosterior,
    covariance,
    learn,
    log_determinant,
    residuals,
)

N, K, C, T, B = 14, 12, 3, 5, 5
KEY = jax.random.key(0)


def make_posterior(seed: int = 0, num_points: int = N) -> GaussianPosterior:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_points + T, 4)) * rng.uniform(0.3, 3, size=(num_points + T, 1))
    weights = rng.uniform(0.02, 1 / C, size=num_points + T)
    factors, weights = jnp.asarray(factors, jnp.float32), jnp.asarray(weights, jnp.float32)
    pool, targets = slice(num_points), slice(num_points, None)
    doubts = jnp.asarray(rng.uniform(0, 1 - 1 / C, size=T), jnp.float32)
    return GaussianPosterior(
        factors[pool], weights[pool], factors[targets], weights[targets], jnp.int32(C), doubts
    )


def closed_gains(
    posterior: GaussianPosterior, chosen: list[int], has_targets: bool, shares=None
) -> np.ndarray:
    arrays = [np.asarray(a, np.float64) for a in posterior[:4]]
    factors = np.concatenate([arrays[0], arrays[2]])
    weights = np.concatenate([arrays[1], arrays[3]])
    num_points, contrasts = len(arrays[0]), (C - 1) / 2
    covariance = reference.posterior_covariance(factors, weights, chosen)
    variance = np.diag(covariance)
    if not has_targets:
        return contrasts * np.log1p(weights * variance)[:num_points]
    noisy = variance + 1 / weights
    squared = covariance[:num_points, num_points:] ** 2
    ratio = squared / noisy[:num_points, None] / noisy[num_points:]
    return -contrasts * np.average(np.log1p(-ratio), axis=1, weights=shares)


SELECT: dict[str, Callable[..., Any]] = {
    "gaussian-batchbald": bb.select_gaussian_batchbald,
    "batch-epig": bb.select_batch_epig,
    "gaussian-batchbald-closed": bb.select_gaussian_batchbald_closed,
    "batch-epig-closed": bb.select_batch_epig_closed,
    "weighted-epig-closed": partial(bb.select_batch_epig_closed, weigh_targets=True),
}
NAMES = tuple(SELECT)


class Case:
    """A selection, its problem, and what every gain should be, given what is chosen."""

    def __init__(self, select: Callable[..., Any], gains: Callable[[list[int]], np.ndarray]):
        self.select, self.gains = select, gains


def make_case(name: str, make_log_probs, num_classes: int = C, scale: float = 1.5) -> Case:
    if name.endswith("closed"):
        posterior, has_targets = make_posterior(), "epig" in name
        shares = np.asarray(posterior.target_doubts) if name.startswith("weighted") else None
        return Case(
            lambda **options: SELECT[name](posterior, **options),
            lambda chosen: closed_gains(posterior, chosen, has_targets, shares),
        )
    pool = make_log_probs(N, K, num_classes, scale=scale)
    targets = make_log_probs(T, K, num_classes, scale=scale, seed=1)
    if name == "batch-epig":

        def gains(chosen: list[int]) -> np.ndarray:
            before = reference.gaussian_epig(pool, chosen, targets)
            return np.array(
                [reference.gaussian_epig(pool, [*chosen, n], targets) - before for n in range(N)]
            )

        return Case(lambda **options: bb.select_batch_epig(pool, targets, **options), gains)

    def joint_gains(chosen: list[int]) -> np.ndarray:
        def value(points: list[int]) -> float:
            batch = np.asarray(pool)[points]
            return reference.gaussian_joint_mutual_information(batch) if points else 0.0

        before = value(chosen)
        return np.array(
            [value([*chosen, n]) - before if n not in chosen else 0.0 for n in range(N)]
        )

    return Case(lambda **options: bb.select_gaussian_batchbald(pool, **options), joint_gains)


#: Of gains, for the shrinkage of a thousandth; the closed forms have none.
TOLERANCE = {name: 1e-4 if name.endswith("closed") else 5e-3 for name in NAMES}


def check_picks(case: Case, batch: Any, chosen: list[int], tolerance: float) -> None:
    """Every pick has the highest gain given those before it, as far as the forms agree."""
    chosen = list(chosen)
    for index, gain in zip(batch.indices.tolist(), batch.gains.tolist(), strict=True):
        if index < 0:
            assert gain == 0
            continue
        expected = np.maximum(case.gains(chosen), 0)
        assert gain == pytest.approx(expected[index], abs=tolerance)
        others = [n for n in range(N) if n not in chosen]
        assert expected[index] >= expected[others].max() - 2 * tolerance
        chosen.append(index)
    np.testing.assert_allclose(batch.scores, np.cumsum(batch.gains), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_pick_is_the_greedy_one(make_log_probs, name: str):
    case = make_case(name, make_log_probs)
    batch = case.select(batch_size=B)
    assert len(set(batch.indices.tolist())) == B
    check_picks(case, batch, [], TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("num_classes", [2, K + 4])
def test_two_classes_and_more_classes_than_samples(make_log_probs, name: str, num_classes: int):
    case = make_case(name, make_log_probs, num_classes, scale=0.5)
    check_picks(case, case.select(batch_size=B), [], 2 * TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_pending_points_are_in_the_batch_from_the_start(make_log_probs, name: str):
    case = make_case(name, make_log_probs)
    pending = jnp.array([3, -1, 3, 8, -1], jnp.int32)
    batch = case.select(batch_size=B, pending=pending)
    assert not {3, 8} & set(batch.indices.tolist())
    check_picks(case, batch, [3, 8], TOLERANCE[name])
    # What is chosen in two goes is what is chosen in one.
    whole = case.select(batch_size=B)
    first = case.select(batch_size=2)
    rest = case.select(batch_size=B - 2, pending=first.indices)
    np.testing.assert_array_equal(whole.indices[2:], rest.indices)
    np.testing.assert_allclose(whole.gains[2:], rest.gains, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_only_available_points_are_chosen_and_slots_stay_empty(make_log_probs, name: str):
    case = make_case(name, make_log_probs)
    available = jnp.zeros(N, bool).at[jnp.array([2, 5, 9])].set(True)
    batch = case.select(batch_size=B, available=available)
    assert set(batch.indices[:3].tolist()) == {2, 5, 9}
    assert batch.indices[3:].tolist() == [-1, -1]
    assert batch.gains[3:].tolist() == [0, 0]
    assert float(batch.scores[-1]) == float(batch.scores[2])
    nothing = case.select(batch_size=2, available=jnp.zeros(N, bool))
    assert nothing.indices.tolist() == [-1, -1]


@pytest.mark.parametrize("name", NAMES)
def test_gains_are_not_negative_and_whole_pools_are_taken(make_log_probs, name: str):
    batch = make_case(name, make_log_probs, scale=4.0).select(batch_size=N + 2)
    assert sorted(batch.indices.tolist()) == [-1, -1, *range(N)]
    assert float(batch.gains.min()) >= 0


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_broken_point_is_left_out_and_changes_nothing_else(make_log_probs, name: str):
    sound = make_log_probs(N, K, C)
    targets = make_log_probs(T, K, C, seed=1)
    broken, broken_targets = sound.at[4, 2, 1].set(jnp.nan), targets.at[0, 0, 0].set(jnp.nan)

    def select(pool: jax.Array, targets: jax.Array, **options: Any):
        if name == "batch-epig":
            return bb.select_batch_epig(pool, targets, batch_size=B, **options)
        return bb.select_gaussian_batchbald(pool, batch_size=B, **options)

    found = select(broken, broken_targets, pending=jnp.array([4, 6], jnp.int32))
    assert int(found.diagnostics.num_invalid) == 1
    expected = select(
        sound,
        targets[1:],
        pending=jnp.array([6], jnp.int32),
        available=jnp.arange(N) != 4,
    )
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.gains, expected.gains, atol=1e-5)


def test_a_broken_posterior_is_left_out():
    posterior = make_posterior()
    broken = posterior._replace(weights=posterior.weights.at[4].set(jnp.nan))
    for select in (bb.select_gaussian_batchbald_closed, bb.select_batch_epig_closed):
        batch = select(broken, batch_size=N)
        assert 4 not in batch.indices.tolist()
        assert jnp.isfinite(batch.scores).all()
        assert int(batch.diagnostics.num_invalid) == 1


def test_the_first_gaussian_pick_is_balds(make_log_probs):
    pool = make_log_probs(N, K, C)
    batch = bb.select_gaussian_batchbald(pool, batch_size=2)
    assert int(batch.indices[0]) == int(jnp.argmax(bb.mutual_information(pool)))
    assert float(batch.gains[0]) == pytest.approx(
        float(bb.mutual_information(pool).max()), abs=1e-6
    )
    assert batch.diagnostics.is_exact.tolist() == [True, False]
    after = bb.select_gaussian_batchbald(pool, batch_size=1, pending=batch.indices[:1])
    assert after.diagnostics.is_exact.tolist() == [False]


def test_batch_epig_of_one_point_is_epig_where_information_is_small(make_log_probs):
    pool, targets = (make_log_probs(n, 40, C, scale=0.15, seed=n) for n in (N, T))
    batch = bb.select_batch_epig(pool, targets, batch_size=1)
    expected = bb.epig(pool, targets)
    assert float(batch.gains[0]) == pytest.approx(float(expected[batch.indices[0]]), rel=0.01)


def test_the_gains_of_gaussian_batchbald_fall(make_log_probs):
    pool = make_log_probs(N, K, C, scale=3.0)
    chosen: list[int] = []
    before = np.asarray(bb.mutual_information(pool))
    for _ in range(5):
        batch = bb.select_gaussian_batchbald(
            pool, batch_size=N, pending=jnp.array([*chosen, -1], jnp.int32)
        )
        first = int(batch.indices[0])
        assert float(batch.gains[0]) <= before[first] + 1e-5
        case = make_case("gaussian-batchbald", make_log_probs, scale=3.0)
        now = case.gains(chosen)
        others = [n for n in range(N) if n not in chosen]
        assert (now[others] <= before[others] + 1e-6).all()
        before = now
        chosen.append(first)


def test_a_gain_of_batch_epig_can_rise():
    """A point that is blurred by a coin tells more of the target once the coin is known."""
    outcome, coin = (each.ravel() for each in np.meshgrid([0.01, 0.99], [0.01, 0.99]))

    def predictions(probability: np.ndarray) -> np.ndarray:
        return np.log(np.stack([1 - probability, probability], axis=1))

    blurred = predictions((outcome + coin) / 2)
    pool = jnp.asarray(np.stack([predictions(coin), blurred]), jnp.float32)
    targets = jnp.asarray(predictions(outcome)[None], jnp.float32)
    alone = reference.gaussian_epig(pool, [1], targets)
    after = reference.gaussian_epig(pool, [0, 1], targets)
    after -= reference.gaussian_epig(pool, [0], targets)
    assert after > alone + 0.01
    coin_pending = jnp.array([0], jnp.int32)
    available = jnp.array([False, True])
    for pending, expected in ((None, alone), (coin_pending, after)):
        batch = bb.select_batch_epig(
            pool, targets, batch_size=1, available=available, pending=pending
        )
        assert float(batch.gains[0]) == pytest.approx(expected, abs=2e-3)


def test_copies_are_not_taken_together(make_log_probs):
    pool = make_log_probs(6, 40, C, scale=2.0)
    copies = jnp.concatenate([pool, pool, pool])
    batch = bb.select_gaussian_batchbald(copies, batch_size=6)
    assert len({index % 6 for index in batch.indices.tolist()}) == 6


def test_nothing_to_be_known_is_ordered_by_the_key():
    flat = jnp.full((50, 4, 3), -jnp.log(3.0))
    indices = [
        bb.select_gaussian_batchbald(flat, batch_size=5, key=jax.random.key(seed)).indices.tolist()
        for seed in range(2)
    ]
    assert indices[0] != indices[1]
    assert bb.select_gaussian_batchbald(flat, batch_size=5).indices.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_pool_does_not_matter(make_log_probs, name: str):
    if name.endswith("closed"):
        posterior = make_posterior()
        flipped = posterior._replace(
            factors=posterior.factors[::-1], weights=posterior.weights[::-1]
        )
        select = SELECT[name]
        one, other = select(posterior, batch_size=B), select(flipped, batch_size=B)
    else:
        pool, targets = make_log_probs(N, K, C), make_log_probs(T, K, C, seed=1)
        more = {"target_log_probs": targets} if name == "batch-epig" else {}
        select = SELECT[name]
        one = select(pool, batch_size=B, **more)
        other = select(pool[::-1], batch_size=B, **more)
        # Samples and classes in another order are the same samples and classes.
        if more:
            more = {"target_log_probs": targets[:, ::-1, ::-1]}
        same = select(pool[:, ::-1, ::-1], batch_size=B, **more)
        np.testing.assert_array_equal(one.indices, same.indices)
    np.testing.assert_array_equal(one.indices, N - 1 - other.indices)
    np.testing.assert_allclose(one.gains, other.gains, atol=1e-4)


def test_sizes_that_make_no_sense_are_refused(make_log_probs):
    pool = make_log_probs(N, K, C)
    with pytest.raises(ValueError, match="batch_size: 0"):
        bb.select_gaussian_batchbald(pool, batch_size=0)
    with pytest.raises(ValueError, match="batch_size: 0"):
        bb.select_batch_epig_closed(make_posterior(), batch_size=0)
    nobody_said = make_posterior()._replace(target_doubts=None)
    with pytest.raises(ValueError, match=r"posterior\.target_doubts: None"):
        bb.select_batch_epig_closed(nobody_said, batch_size=2, weigh_targets=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_has_it(make_log_probs, name: str):
    pool, targets = make_log_probs(N, K, C), make_log_probs(T, K, C, seed=1)
    function = bb.catalogue()[name]
    inputs = bb.Inputs(pool, targets, gaussian=make_posterior())
    options: dict[str, Any] = {"batch_size": B, "pending": jnp.array([2, -1], jnp.int32)}
    found = function.select(KEY, inputs, available=jnp.arange(N) != 5, **options)
    select = SELECT[name]
    arguments = {
        "gaussian-batchbald": (pool,),
        "batch-epig": (pool, targets),
    }.get(name, (make_posterior(),))
    expected = select(*arguments, available=jnp.arange(N) != 5, key=KEY, **options)
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert ("gaussian" in function.requires) == name.endswith("closed")
    if name.endswith("closed"):
        with pytest.raises(ValueError, match=r"inputs\.gaussian: .* bb\.logistic_head"):
            function.select(KEY, bb.Inputs(pool), available=jnp.ones(N, bool), **options)
        with pytest.raises(ValueError, match=f"{name} requires gaussian, which predictions do not"):
            bb.select(pool, kind="log-probs", acquisition=name)


@pytest.mark.parametrize("name", NAMES)
def test_jit_changes_nothing(make_log_probs, name: str):
    case = make_case(name, make_log_probs)
    jitted = case.select(batch_size=3)
    with jax.disable_jit():
        plain = case.select(batch_size=3)
    np.testing.assert_array_equal(jitted.indices, plain.indices)
    np.testing.assert_allclose(jitted.gains, plain.gains, atol=1e-5)


def test_stale_gains_hide_no_point_of_a_pool_of_many_blocks(make_log_probs):
    """Every pick is the best of a dense evaluation of all points, some blocks of candidates."""
    pool = make_log_probs(400, K, C, scale=2.0)
    batch = bb.select_gaussian_batchbald(pool, batch_size=12)
    points, unknown = residuals(pool), jnp.eye(K)
    left = np.ones(400, bool)
    for index, gain in zip(batch.indices.tolist(), batch.gains.tolist(), strict=True):
        shared = log_determinant(covariance(points, unknown)) / 2
        dense = np.maximum(bb.mutual_information(pool) + shared, 0)
        assert gain == pytest.approx(dense[left].max(), abs=1e-5)
        assert dense[index] == pytest.approx(gain, abs=1e-5)
        left[index] = False
        unknown = learn(points[index], unknown)


@pytest.mark.parametrize("num_classes", [C, K + 4])
def test_residuals_of_few_points_at_a_time_are_those_of_all(
    make_log_probs, monkeypatch: pytest.MonkeyPatch, num_classes: int
):
    pool = make_log_probs(N, K, num_classes).at[9, 0, 0].set(jnp.nan)
    together = residuals(pool)
    products = jnp.einsum("nrk,nrl->nkl", together, together)
    monkeypatch.setattr(gaussian, "_CHUNK_ELEMENTS", 4 * K * num_classes)  # 14 is no multiple of 4
    apart = residuals(pool)
    assert apart.shape == together.shape
    # A square root's last row is rounding; its products are what counts.
    np.testing.assert_allclose(jnp.einsum("nrk,nrl->nkl", apart, apart), products, atol=1e-5)


def test_batch_epig_of_many_classes_does_not_copy_the_predictions():
    num_points, num_samples, num_classes = 4_000, 5, 1_000
    shapes = [jax.ShapeDtypeStruct((n, num_samples, num_classes), jnp.float32) for n in (4_000, 50)]
    needed = temporary_bytes(lambda x, t: bb.select_batch_epig(x, t, batch_size=2), *shapes)
    stated = num_points * num_samples * (2 * num_samples + 5 * num_samples)
    assert needed < 4 * (stated + 5 * 2**20) < 4 * shapes[0].size / 3
