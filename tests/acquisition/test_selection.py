"""`bb.select`: the same batch whatever the predictions came in, and refusals that help."""

import inspect
from typing import Any

import fuzz
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bbald_jax as bb
from bbald_jax.acquisition.top import select_top

#: Past the type checks of the tests, which would refuse some bad arguments first.
select = inspect.unwrap(bb.select)

# One shape for most tests, so that most share a compilation.
N, K, C, B, M = 8, 4, 3, 3, 64
PROBS = np.random.default_rng(0).dirichlet(np.ones(C), size=(N, K))
BATCHBALD = {"kind": "probs", "batch_size": B, "num_configurations": M}
BALD = {"kind": "probs", "batch_size": B, "acquisition": "bald"}


@pytest.fixture(scope="module")
def batch() -> bb.Selection:
    return bb.select(PROBS, kind="probs", batch_size=B, num_configurations=M)


def assert_same(first: bb.Selection, second: bb.Selection) -> None:
    jax.tree.map(np.testing.assert_array_equal, first[:5], second[:5])
    assert first.warnings == second.warnings


def test_it_is_what_the_jitted_function_selects(batch: bb.Selection):
    expected = bb.select_batchbald(
        jax.random.key(0),
        bb.from_probs(PROBS),
        batch_size=B,
        num_configurations=M,
        available=jnp.ones(N, bool),
    )
    for field in ("indices", "gains", "scores"):
        np.testing.assert_array_equal(getattr(batch, field), getattr(expected, field))
        assert isinstance(getattr(batch, field), np.ndarray)
    assert batch.diagnostics.certified_ratio == expected.diagnostics.certified_ratio
    assert isinstance(batch.diagnostics.upper_bound, np.ndarray)
    np.testing.assert_array_equal(
        batch.predicted_classes, PROBS.mean(axis=1).argmax(axis=1)[batch.indices]
    )
    assert batch.warnings == ()


def test_kinds_and_axes_change_nothing(batch: bb.Selection):
    logits = (np.log(PROBS) + 7).astype(np.float64)
    for kind, values in (("logits", logits), ("log-probs", np.log(PROBS))):
        other = select(values, **(BATCHBALD | {"kind": kind}))
        np.testing.assert_array_equal(other.indices, batch.indices)
        np.testing.assert_allclose(other.scores, batch.scores, atol=1e-5)
    assert_same(select(np.moveaxis(PROBS, 0, 2), **BATCHBALD, axes="KCN"), batch)
    assert_same(select(PROBS.tolist(), **BATCHBALD), batch)


@pytest.mark.parametrize("acquisition", ["batchbald", "kbald"])
def test_progress_is_told_point_by_point_and_changes_nothing(acquisition: str):
    told = []
    settings = BATCHBALD | {"acquisition": acquisition, "exclude": [0, 1, 2, 3, 4, 5], "seed": 1}
    batch = select(PROBS, **settings, progress=told.append)
    assert told == [1, 2]  # no more points are there
    assert_same(batch, select(PROBS, **settings))


def test_an_acquisition_function_of_ones_own():
    def by_index(key, inputs, *, batch_size, available, pending):
        scores = jnp.arange(inputs.log_probs.shape[0], dtype=jnp.float32)
        return select_top(scores, batch_size=batch_size, available=available)

    latest = bb.Acquisition("latest", ("log_probs",), by_index)
    batch = bb.select(PROBS, kind="probs", batch_size=2, acquisition=latest, exclude=[7])
    assert batch.indices.tolist() == [6, 5]
    assert batch.scores.tolist() == [6, 5]


def test_unfilled_slots_are_left_out():
    def nothing(key, inputs, *, batch_size, available, pending):
        return select_top(jnp.zeros(N), batch_size=batch_size, available=available & False)

    batch = select(PROBS, **(BALD | {"acquisition": bb.Acquisition("none", (), nothing)}))
    assert [len(array) for array in batch[:4]] == [0, 0, 0, 0]
    assert batch.warnings == ("3 points were asked for, and only 0 were there to choose from.",)


def test_the_seed_decides_what_is_random():
    chosen = {
        tuple(select(PROBS, **(BALD | {"acquisition": "random"}), seed=seed).indices)
        for seed in (0, 0, 1, 2, np.int64(2), 2**32 - 1)
    }
    assert 1 < len(chosen) <= 4


def mask(*indices: int) -> np.ndarray:
    return np.isin(np.arange(N), indices)


@pytest.mark.parametrize(
    "wrap",
    [list, tuple, set, frozenset, np.array, np.uint8, jnp.asarray, lambda points: mask(*points)],
)
def test_lists_of_points_are_indices_or_masks(wrap: Any):
    left = set(range(N)) - {1, 4}
    assert set(select(PROBS, **BALD, exclude=wrap([4, 1])).indices) <= left
    assert set(select(PROBS, **BALD, pending=wrap([4, 1])).indices) <= left
    assert set(select(PROBS, **BALD, candidates=wrap([4, 1, 0])).indices) == {0, 1, 4}


def test_empty_lists_are_empty():
    everything = select(PROBS, **BALD)
    for empty in ([], (), set(), np.zeros(0), mask()):
        assert_same(select(PROBS, **BALD, exclude=empty, pending=empty), everything)


def test_pending_points_condition_the_batch(batch: bb.Selection):
    first = int(batch.indices[0])
    rest = bb.select(PROBS, kind="probs", batch_size=2, num_configurations=M, pending=[first])
    np.testing.assert_array_equal(rest.indices, batch.indices[1:])
    np.testing.assert_allclose(rest.gains, batch.gains[1:], atol=1e-5)


def test_fewer_points_than_asked_for_are_all_returned_with_a_warning():
    batch = select(PROBS, **(BALD | {"batch_size": 10**12}), exclude=[2])
    assert sorted(batch.indices) == [0, 1, 3, 4, 5, 6, 7]
    assert batch.warnings == (
        "1000000000000 points were asked for, and only 7 were there to choose from.",
    )


def test_samples_that_are_spent_are_a_warning():
    # Two samples that disagree with certainty about each point: one label tells them apart.
    certain = np.zeros((N, 2, 2))
    certain[:, [0, 1], [0, 1]] = 1
    certain[::2] = certain[::2, ::-1]
    (warning,) = select(certain, **BATCHBALD).warnings
    assert "K = 2 posterior samples were spent after 1 of 3 points" in warning
    assert "raise K to 20" in warning


def test_more_samples_than_points_is_a_warning():
    (warning,) = select(np.transpose(PROBS, (1, 0, 2)), **BALD).warnings
    assert "axes='NKC' there are fewer points (N = 4) than samples (K = 8)" in warning
    assert "axes='KNC' (--axes KNC) is right" in warning
    (warning,) = select(np.transpose(PROBS, (2, 0, 1)), **BALD, axes="CKN").warnings
    assert "axes='CNK' (--axes CNK) is right" in warning
    assert select(PROBS[:K], **BALD).warnings == ()


@pytest.mark.parametrize("acquisition", ["bald", "batchbald"])
def test_a_single_sample_is_a_warning(acquisition: str):
    batch = select(PROBS[:, :1], **(BATCHBALD | {"acquisition": acquisition}))
    (warning,) = batch.warnings
    assert "K = 1" in warning
    assert batch.gains == pytest.approx(0, abs=1e-6)


REQUIRES_TARGETS = bb.Acquisition(
    "spy",
    ("log_probs", "target_log_probs"),
    lambda key, inputs, *, batch_size, available, pending: select_top(
        jnp.full(N, inputs.target_log_probs[0, 1, 2]), batch_size=batch_size, available=available
    ),
)


def test_targets_reach_the_function_that_requires_them():
    targets = np.transpose(PROBS[:2], (1, 0, 2))
    settings = BALD | {"acquisition": REQUIRES_TARGETS, "axes": "KNC"}
    batch = select(np.transpose(PROBS, (1, 0, 2)), targets=targets, **settings)
    np.testing.assert_allclose(batch.scores, np.log(PROBS[0, 1, 2]), rtol=1e-6)


def test_a_random_part_of_the_pool_stands_for_targets_that_are_not_given(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("bbald_jax.acquisition.selection.NUM_TARGETS", 3)
    settings = BALD | {"acquisition": "epig"}
    parts = []
    for seed in range(4):
        batch = select(PROBS, **settings, seed=seed, exclude=[2])
        assert len(set(batch.targets.tolist())) == 3
        assert set(batch.targets.tolist()) <= set(range(N))
        given = select(PROBS, **settings, targets=PROBS[batch.targets], exclude=[2])
        np.testing.assert_allclose(batch.scores, given.scores, atol=1e-6)
        assert given.targets.size == 0
        parts.append(tuple(batch.targets.tolist()))
    assert len(set(parts)) > 1
    again = select(PROBS, **settings, seed=3, exclude=[2])
    assert tuple(again.targets.tolist()) == parts[3]
    assert select(PROBS, **BALD).targets.size == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": range(N)}, "no point is left"),
        ({"acquisition": "badge"}, "badge requires features, which predictions do not hold"),
        ({"targets": PROBS}, "bald does not look at target predictions"),
    ],
)
def test_what_needs_no_look_at_the_predictions_is_checked_before(
    settings: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        select(np.full_like(PROBS, np.nan), **(BALD | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "prob"}, r"kind: 'prob' is none of probs, logits, log-probs"),
        ({"batch_size": 0}, r"batch_size: 0 is not an integer of at least 1"),
        ({"batch_size": 2.5}, r"batch_size: 2.5 is not"),
        ({"num_configurations": -1}, r"num_configurations: -1 is not"),
        ({"num_configurations": 10**9}, r"num_configurations: 1000000000 is more than"),
        ({"seed": -1}, r"seed: -1 is not an integer in 0 to 2\*\*32 - 1"),
        ({"seed": 2**32}, r"seed: 4294967296 is not"),
        ({"seed": 0.5}, r"seed: 0.5 is not"),
        ({"acquisition": "bold"}, r"acquisition: 'bold' is none of .*batchbald"),
        ({"axes": "NKD"}, r"axes: 'NKD' is no order of the letters"),
        ({"axes": "KCN"}, r"probs\[0, 0\]: axis C \(classes\) sums to .*see axes"),
        ({"kind": "log-probs"}, r"log_probs\[0, 0, 0\] .*kind probs"),
        ({"exclude": [0, N]}, rf"exclude\[1\]: index {N} is outside 0 to 7"),
        ({"exclude": [-1]}, r"exclude\[0\]: index -1 is outside 0 to 7; .*leave out -1"),
        ({"pending": [3, 4, 3]}, r"pending\[2\]: index 3 is repeated; .* dtype bool"),
        ({"candidates": [1.0]}, r"candidates: dtype float64 holds neither"),
        ({"candidates": ["one"]}, r"candidates: dtype <U3 holds neither"),
        ({"exclude": 3}, r"exclude: shape \(\) has 0 axes"),
        ({"exclude": [[3]]}, r"exclude: shape \(1, 1\) has 2 axes"),
        ({"exclude": [True, False]}, r"exclude: a mask of length 2 for 8 points"),
        ({"exclude": np.zeros(0, bool)}, r"exclude: a mask of length 0 for 8 points"),
        ({"exclude": {True, False}}, r"exclude: dtype bool holds neither integers"),
        ({"exclude": {0, None}}, r"exclude: dtype object holds neither integers"),
        ({"exclude": {0, N}}, r"exclude\[1\]: index 8 is outside"),
        ({"exclude": "labelled.txt"}, r"exclude: shape \(\) has 0 axes"),
        ({"exclude": [1, 2], "pending": [2]}, r"exclude, pending: point 2 is in both"),
        ({"exclude": range(N)}, r"no point is left to choose from: of 8 points all"),
        ({"candidates": []}, r"no point is left to choose from"),
        ({"targets": PROBS}, r"targets: bald does not look at target predictions"),
        (
            {"acquisition": REQUIRES_TARGETS, "targets": PROBS[0]},
            r"targets: probs: shape \(4, 3\) has 2 axes",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_fix(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        select(PROBS, **(BALD | settings))


@pytest.mark.parametrize("bad", [PROBS[0], PROBS[:0], PROBS.astype(str), None, "predictions.npy"])
def test_predictions_that_are_none_are_refused(bad: Any):
    with pytest.raises(ValueError, match=r"^(predictions|probs): "):
        select(bad, **BALD)


def test_too_little_memory_is_said():
    def greedy(key, inputs, *, batch_size, available, pending):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating it all")

    message = r"^greedy: too little memory for 8 points and num_configurations 10000 \(.*memory\);"
    with pytest.raises(ValueError, match=message):
        select(PROBS, **(BALD | {"acquisition": bb.Acquisition("greedy", (), greedy)}))


def test_a_nan_is_refused_wherever_it_is():
    values = PROBS.copy()
    values[5, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"^probs\[5, 2, 1\] \(value nan\): NaN;"):
        select(values, **BALD, exclude=[5])


_NUMBERS = st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5, 7.0, np.nan, np.inf, -np.inf])
_GOOD_PREDICTIONS = st.one_of(
    st.just(PROBS),
    st.integers(0, 3).map(lambda shift: np.roll(PROBS, shift, axis=2).astype(np.float16)),
    st.just(np.eye(C)[np.arange(N * K) % C].reshape(N, K, C)),
)
_BAD_PREDICTIONS = st.one_of(
    hnp.arrays(np.float32, (N, K, C), elements=_NUMBERS),
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0), elements=_NUMBERS),
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("bool", "i1", "u8", "c8", "U2", "M8[s]")]),
        st.sampled_from([(N, K, C), (0, K, C), (N,), (), (N, K, 0)]),
    ),
    st.sampled_from([None, "probs", object(), [[1, 2], [3]], {1: PROBS}]),
    st.just(np.zeros((N, K, C), "V2")),
)
_GOOD_POINTS = st.one_of(
    st.none(),
    st.lists(st.integers(0, N - 1), unique=True, max_size=3),
    st.lists(st.booleans(), min_size=N, max_size=N),
)
_BAD_POINTS = st.one_of(
    hnp.arrays(bool, st.sampled_from([0, 1, N - 1, N + 1])),
    st.lists(st.integers(-2, N), max_size=3),
    st.sampled_from([3, 2.5, "done", [2**70], [0.5], ["a"], [[1]], [None], PROBS, object()]),
)


def mostly(good: st.SearchStrategy, bad: st.SearchStrategy) -> st.SearchStrategy:
    """One bad thing at a time is what people do, and what gets past the first check."""
    return st.integers(0, 9).flatmap(lambda number: bad if number == 9 else good)


def mostly_of(good: list, bad: list) -> st.SearchStrategy:
    return mostly(st.sampled_from(good), st.sampled_from(bad))


_POINTS = mostly(_GOOD_POINTS, _BAD_POINTS)
_SETTINGS = st.fixed_dictionaries(
    {
        "kind": mostly_of(["probs", "logits"], ["log-probs", "odds", None]),
        "acquisition": mostly_of(["bald", "random"], ["bold", None]),
        "batch_size": mostly_of([1, B, 10**18], [0, -1, 2.5, None]),
    },
    optional={
        "axes": mostly_of(["NKC"], ["KNC", "CKN", "NK", "", "NNC", None]),
        "candidates": _POINTS,
        "exclude": _POINTS,
        "pending": _POINTS,
        "targets": mostly_of([None], [PROBS, 3]),
        "num_configurations": mostly_of([1, 10**7], [0, 10**18, "many"]),
        "seed": mostly_of([0, 1], [-1, 2**40, 0.5, None]),
    },
)
_PREDICTIONS = mostly(_GOOD_PREDICTIONS, _BAD_PREDICTIONS)


@hypothesis.settings(max_examples=300)
@hypothesis.given(predictions=_PREDICTIONS, settings=_SETTINGS)
def test_anything_ends_in_a_batch_or_a_refusal(predictions: Any, settings: dict[str, Any]):
    batch = fuzz.result_or_refusal("bb.select", lambda: select(predictions, **settings))
    if not isinstance(batch, ValueError):
        assert 1 <= batch.indices.size <= settings["batch_size"]
        assert len(set(batch.indices.tolist())) == batch.indices.size
        assert np.all(np.isfinite(batch.gains))
        assert batch.predicted_classes.shape == batch.indices.shape


# Most drawings break something; here nothing is broken.
@hypothesis.settings(max_examples=50)
@hypothesis.given(
    exclude=st.sets(st.integers(0, N - 2), max_size=3),
    pending=st.sets(st.integers(0, N - 2), max_size=3),
    batch_size=st.sampled_from([1, B, 10**18]),
)
def test_no_point_is_returned_that_is_not_available(
    exclude: set[int], pending: set[int], batch_size: int
):
    settings = BALD | {"batch_size": batch_size, "pending": sorted(pending - exclude)}
    batch = fuzz.result_or_refusal(
        "bb.select", lambda: select(PROBS, **settings, exclude=mask(*exclude))
    )
    assert not isinstance(batch, ValueError)
    assert not set(batch.indices.tolist()) & (exclude | pending)
    assert batch.indices.size == min(batch_size, N - len(exclude | pending))
