"""Sessions with people who label: what is asked, told and refused."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import bbald_jax as bb
from bbald_jax.acquisition.functions import batchbald
from bbald_jax.labelling.session import Session

N, K, C = 40, 8, 3
BATCHBALD = batchbald(num_configurations=30)


@pytest.fixture(scope="module")
def log_probs(make_log_probs) -> jax.Array:
    return make_log_probs(N, K, C)


@pytest.fixture
def session() -> Session:
    return Session(N, C)


@pytest.fixture
def asked(session: Session, log_probs: jax.Array) -> Session:
    """Pending are the points with the highest BALD scores: `PENDING`."""
    assert session.ask(log_probs, 4, "bald").size == 4
    return session


def everything(session: Session) -> list[Any]:
    """All that a session can be asked about, as plain values."""
    labelled = session.labelled
    return [
        *(session.num_points, session.num_classes, session.seed, session.ids.tolist()),
        *(labelled.indices.tolist(), labelled.labels.tolist()),
        *(session.pending.tolist(), session.skipped.tolist(), what_happened(session)),
    ]


def what_happened(session: Session) -> list[tuple[str, int | None, int | None]]:
    """Without ids and times, and without the creation."""
    first, *rest = session.history
    assert (first.id, first.kind) == (1, "create")
    return [(event.kind, event.index, event.label) for event in rest]


def test_a_new_session_is_empty(session: Session):
    assert everything(session) == [N, C, 0, list(range(N)), [], [], [], [], []]


def test_ask_returns_the_batch_of_the_acquisition_function(session: Session, log_probs: jax.Array):
    indices = session.ask(log_probs, 4, "bald")
    assert isinstance(indices, np.ndarray)
    assert indices.tolist() == bb.select_bald(log_probs, batch_size=4).indices.tolist()
    assert session.pending.tolist() == sorted(indices.tolist())
    assert what_happened(session) == [("ask", index, None) for index in indices]
    assert [event.extra for event in session.events("ask")] == 4 * [
        {"ask": 0, "acquisition": "bald"}
    ]


def test_batchbald_is_the_default():
    assert inspect.signature(Session.ask).parameters["acquisition"].default == "batchbald"


def test_answers_come_in_parts_and_in_any_order(asked: Session):
    a, b, c, d = asked.pending.tolist()
    asked.tell([d, b], [2, 0])
    assert asked.pending.tolist() == [a, c]
    asked.skip([c])
    asked.tell(np.array([a]), np.array([1], np.uint8))
    assert asked.labelled.indices.tolist() == [a, b, d]
    assert asked.labelled.labels.tolist() == [1, 0, 2]
    assert asked.skipped.tolist() == [c]
    assert asked.pending.tolist() == []
    assert what_happened(asked)[4:] == [
        *(("tell", d, 2), ("tell", b, 0)),
        ("skip", c, None),
        ("tell", a, 1),
    ]


def test_a_snapshot_has_every_status_and_a_label_its_annotator(asked: Session):
    one, two, *_ = points = asked.pending.tolist()
    asked.tell([one], [2])
    asked.skip([two])
    now = asked.snapshot()
    assert (now.num_points, now.num_classes, now.seed, now.num_asks) == (N, C, 0, 1)
    assert now.status[points].tolist() == [2, 3, 1, 1]
    assert now.available.sum() == N - 4
    asked.assign([one], annotator="ben", overlap=True)
    assert asked.label_by(one, annotator="ben") is None
    asked.tell([one], [0], annotator="ben")
    assert (asked.label_by(one), asked.label_by(one, annotator="ben")) == (2, 0)
    assert asked.label_by(two) is None


def test_a_batch_is_conditional_on_what_is_pending(session: Session, log_probs: jax.Array):
    pending = session.ask(log_probs, 2, BATCHBALD)
    expected = BATCHBALD.select(
        jax.random.fold_in(jax.random.key(0), 1),
        bb.Inputs(log_probs),
        batch_size=2,
        available=jnp.ones(N, bool),
        pending=jnp.asarray([*sorted(pending), *[-1] * 14], jnp.int32),
    )
    assert session.ask(log_probs, 2, BATCHBALD).tolist() == expected.indices.tolist()
    # Answered, they are only left out: what the labels say is in the next predictions.
    other = Session(N, C)
    other.tell(other.ask(log_probs, 2, BATCHBALD), [0, 0])
    assert other.ask(log_probs, 2, BATCHBALD).tolist() != expected.indices.tolist()


@pytest.mark.filterwarnings("ignore:The K")  # the samples are spent
def test_what_is_pending_is_rarely_compiled_for(log_probs: jax.Array):
    session, before = Session(N, C), len(toy.COMPILED)
    for _ in range(2):  # once without pending points, and once with them
        session.ask(log_probs, 2, batchbald(num_configurations=31))
    assert sum("batchbald" in name for name in toy.COMPILED[before:]) == 2
    before = len(toy.COMPILED)
    for _ in range(6):  # up to 16 pending
        session.ask(log_probs, 2, batchbald(num_configurations=31))
    session.tell(session.pending[:5], [0] * 5)
    session.ask(log_probs, 2, batchbald(num_configurations=31))
    assert toy.COMPILED[before:] == []


@pytest.mark.parametrize("name", ["random", "bald"])
def test_no_point_is_asked_for_twice(name: str, log_probs: jax.Array):
    session, seen = Session(N, C), []
    for size in (15, 15, 15, 15):
        indices = session.ask(log_probs, size, name)
        seen += indices.tolist()
        session.tell(indices[::3], [0] * len(indices[::3]))
        session.skip(indices[1::3])
    assert sorted(seen) == list(range(N))  # the third batch was shortened, the fourth empty
    assert {event.extra["ask"] for event in session.events("ask")} == {0, 1, 2}


def test_where_nothing_is_left_nothing_is_chosen_or_compiled(log_probs: jax.Array):
    def never(key: Any, inputs: Any, **_: Any):
        raise AssertionError("there is nothing to choose from")

    session = Session(N, C)
    session.ask(None, N, "random")
    before = session.history
    indices = session.ask(log_probs, 3, bb.Acquisition("never", ("log_probs",), never))
    assert (indices.shape, indices.dtype) == ((0,), np.int64)
    assert session.history == before
    with pytest.raises(ValueError, match="log_probs"):
        session.ask(log_probs[:1], 3)


@pytest.mark.parametrize("batch_size", [N, N + 1, 10**9])
def test_more_than_there_is_is_all_there_is(session: Session, log_probs: jax.Array, batch_size):
    assert sorted(session.ask(log_probs, batch_size, "bald").tolist()) == list(range(N))


def test_without_a_model_points_are_asked_for_at_random(session: Session):
    assert session.ask(None, 5, "random").size == 5
    with pytest.raises(ValueError, match="'bald' requires predictions"):
        session.ask(None, 5, "bald")


def test_every_ask_draws_anew_and_the_seed_decides():
    def draw(seed: int) -> list[list[int]]:
        session, batches = Session(N, C, seed=seed), []
        for _ in range(2):
            batches.append(session.ask(None, 10, "random").tolist())
            session.tell(batches[-1], [0] * 10)
        return batches

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    # Other numbers, too, not only the best of what the first ask left.
    first = np.asarray(
        bb.select_random(
            jax.random.fold_in(jax.random.key(0), 0),
            batch_size=20,
            available=np.ones(N, bool),  # type: ignore[arg-type]
        ).indices
    )
    assert draw(0)[0] == first[:10].tolist()
    assert draw(0)[1] != first[10:].tolist()


def last_points(key: Any, inputs: Any, *, batch_size: int, available: Any, pending: Any):
    """The last points of all, available or not."""
    return bb.CandidateBatch(*[len(available) - 1 - jnp.arange(batch_size)] * 3, diagnostics=None)


def test_an_own_acquisition_function(session: Session):
    function = bb.Acquisition("last", (), last_points)
    assert session.ask(None, 2, function).tolist() == [N - 1, N - 2]
    before = everything(session)
    with pytest.raises(ValueError, match=rf"function 'last'\[0\]: point {N - 1} is pending"):
        session.ask(None, 2, function)
    assert everything(session) == before


def test_what_is_missing_or_does_not_fit_is_refused(session: Session, log_probs: jax.Array):
    function = bb.Acquisition("closed", ("gaussian", "features"), last_points)
    posterior = bb.GaussianPosterior(
        jnp.ones((N, 2)), jnp.ones(N), jnp.ones((N, 2)), jnp.ones(N), jnp.int32(C)
    )
    with pytest.raises(ValueError, match=r"'closed' requires gaussian; pass bb.Inputs\("):
        session.ask(log_probs, 2, function)
    with pytest.raises(ValueError, match="features: 39 rows for the session's N = 40"):
        session.ask(bb.Inputs(None, features=jnp.ones((39, 2)), gaussian=posterior), 2, function)
    with pytest.raises(ValueError, match="gaussian: 1 rows for"):
        small = posterior._replace(factors=jnp.ones((1, 2)))
        session.ask(bb.Inputs(None, features=jnp.ones((N, 2)), gaussian=small), 2, function)
    with pytest.raises(ValueError, match="target_log_probs: 'epig' requires"):
        session.ask(None, 2, bb.Acquisition("epig", ("target_log_probs",), last_points))
    assert what_happened(session) == []
    assert session.ask(
        bb.Inputs(None, features=jnp.ones((N, 2)), gaussian=posterior), 2, function
    ).tolist() == [N - 1, N - 2]


def test_the_session_itself_gives_labels_and_targets(asked: Session, log_probs: jax.Array):
    seen = []

    def select(key: Any, inputs: bb.Inputs, **kwargs: Any):
        seen.append(inputs)
        return last_points(key, inputs, **kwargs)

    first, *_ = asked.pending.tolist()
    asked.tell([first], [2])
    asked.ask(log_probs, 1, bb.Acquisition("mine", ("target_log_probs", "labelled"), select))
    (inputs,) = seen
    assert np.flatnonzero(np.asarray(inputs.labelled)).tolist() == [first]
    targets = asked.targets()
    np.testing.assert_array_equal(inputs.target_log_probs, inputs.log_probs[targets])
    # Those that are given come first.
    asked.release([N - 1])
    given = bb.Inputs(log_probs, target_log_probs=log_probs[:2])
    asked.ask(given, 1, bb.Acquisition("mine", ("target_log_probs", "labelled"), select))
    np.testing.assert_array_equal(seen[1].target_log_probs, log_probs[:2])


def test_targets_are_a_random_part_that_stays():
    session = Session(N, C, seed=1)
    targets = session.targets(10)
    assert targets.size == len(set(targets.tolist())) == 10
    assert targets.tolist() == sorted(targets.tolist()) == session.targets(10).tolist()
    assert targets.tolist() != Session(N, C, seed=2).targets(10).tolist()
    assert session.targets().tolist() == list(range(N))  # there are no 500
    with pytest.raises(ValueError, match="num_targets: 0"):
        session.targets(0)


def test_spent_samples_are_mentioned():
    # Two samples that are certain, and disagree: one label tells which is right.
    certain = np.tile([[[0.0, -np.inf], [-np.inf, 0.0]]], (6, 1, 1))
    certain[::2] = certain[::2, ::-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bb.Session(6, 2).ask(certain, 1)  # no point after the first
    with pytest.warns(UserWarning, match="spent after 1 of 3 points.*: raise K"):
        bb.Session(6, 2).ask(certain, 3)
    with pytest.warns(UserWarning, match="K = 2 posterior samples do not differ"):
        bb.Session(6, 2).ask(certain[:, [0, 0]], 3, "bald")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], r"shape \(39, 8, 3\) .* N = 40, C = 3"),
        (lambda x: x[..., :2] - np.log(np.exp(x[..., :2]).sum(-1, keepdims=True)), r"\(40, 8, 2\)"),
        (np.exp, "for probabilities use from_probs"),
        (lambda x: x * np.where(np.arange(N) == 5, np.nan, 1)[:, None, None], r"\[5, 0, 0\].*NaN"),
        (lambda x: x[0], "2 axes, expected 3"),
    ],
)
def test_predictions_are_checked(session: Session, log_probs: jax.Array, change, message: str):
    with pytest.raises(ValueError, match=message):
        session.ask(change(np.asarray(log_probs)), 2, "bald")
    assert what_happened(session) == []


def test_a_batch_of_none_and_an_unknown_function_are_refused(session: Session):
    with pytest.raises(ValueError, match="batch_size: 0"):
        session.ask(None, 0, "random")
    with pytest.raises(ValueError, match=r"'batch-bald' is none of random.*bald"):
        session.ask(None, 1, "batch-bald")


@pytest.fixture
def busy(log_probs: jax.Array) -> Session:
    """Pending: 10 and 11; labelled: 0; skipped: 20."""
    chosen = iter([[0, 10, 11, 20], [0], [0]])

    def select(key: Any, inputs: Any, **kwargs: Any):
        return bb.CandidateBatch(*[jnp.array(next(chosen))] * 3, diagnostics=None)

    session = Session(N, C)
    session.ask(None, 4, bb.Acquisition("these", (), select))
    session.tell([0], [2])
    session.skip([20])
    return session


BAD_POINTS = [
    ([10, 40], r"indices\[1\]: 40 is no point here; pass 0 to 39"),
    ([-1], r"indices\[0\]: -1 is no point"),
    ([2**70], "no list of integers"),
    ([10, 11, 10], r"indices\[2\]: point 10 is named twice"),
    ([10, 5], r"indices\[1\]: point 5 is unlabelled, not pending; session.pending lists"),
    ([10, 0], r"indices\[1\]: point 0 is labelled already"),
    ([10, 20], r"indices\[1\]: point 20 is skipped"),
    (10, r"int64 of shape \(\) is no list of integers"),
    ([[10]], r"shape \(1, 1\)"),
    ([10.0], "float64"),
    ([True] * 2, "bool"),
    (["10"], "no list of integers"),
]


@pytest.mark.parametrize(("points", "message"), BAD_POINTS)
def test_wrong_points_are_refused_and_change_nothing(busy: Session, points: Any, message: str):
    before = everything(busy)
    with pytest.raises(ValueError, match=message):
        busy.tell(points, [0] * np.size(points))
    with pytest.raises(ValueError, match=message):
        busy.skip(points)
    assert everything(busy) == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], r"labels\[1\]: 3, of point 11, is no class; pass 0 to 2, or skip"),
        ([-1, 0], r"labels\[0\]: -1, of point 10"),
        ([0], "labels: 1 for 2 indices"),
        ([0, 1, 2], "labels: 3 for 2 indices"),
        ([0.5, 1], "labels: float64"),
        ([0, None], "labels: object"),
    ],
)
def test_wrong_labels_are_refused_and_change_nothing(busy: Session, labels: Any, message: str):
    before = everything(busy)
    with pytest.raises(ValueError, match=message):
        busy.tell([10, 11], labels)
    assert everything(busy) == before


def test_telling_nothing_is_fine(busy: Session):
    busy.tell([], [])
    busy.skip([])
    assert busy.pending.tolist() == [10, 11]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_points": 0}, "num_points: 0"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 2**32}, "seed: 4294967296"),
        ({"ids": ["a", "b"]}, r"ids: shape \(2,\) for 3 points"),
        ({"ids": ["a", "b", "a"]}, r"ids\[2\]: 'a' is there twice"),
        ({"ids": ["1", 1, 2]}, "neither all strings nor all integers"),
        ({"ids": [0.5, 1, 2]}, "neither all strings nor all integers"),
        ({"ids": "abc"}, r"ids: shape \(\)"),
        (
            {"ids": np.asarray([1, 2, 2**63], np.uint64)},
            r"ids\[2\]: 9223372036854775808 is above 2\^63 - 1; pass strings",
        ),
        ({"classes": ["a"]}, "classes: 1 names for num_classes = 2"),
        ({"classes": ["a", "a"]}, r"classes\[1\]: 'a' is there twice"),
        ({"classes": ["a", ""]}, r"classes\[1\]: '' is no name"),
        ({"classes": "ab"}, "classes: 'ab' is no list of names"),
        ({"num_points": None}, "num_points: None"),
    ],
)
def test_a_session_that_cannot_be_is_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Session(**{"num_points": 3, "num_classes": 2, **arguments})


def test_without_ids_the_indices_are_the_names(session: Session):
    assert session.indices_of([3, 1]).tolist() == [3, 1]
