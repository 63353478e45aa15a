"""Sessions with people who label: what is asked, told and refused, and a file that keeps it all."""

import inspect
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bbald_jax as bb
from bbald_jax import files
from bbald_jax import pool as pools
from bbald_jax.acquisition.functions import batchbald
from bbald_jax.labelling.session import Event, Session

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
        *(session.pending.tolist(), session.skipped.tolist(), session.history),
    ]


def test_a_new_session_is_empty(session: Session):
    assert everything(session) == [N, C, 0, list(range(N)), [], [], [], [], ()]


def test_ask_returns_the_batch_of_the_acquisition_function(session: Session, log_probs: jax.Array):
    indices = session.ask(log_probs, 4, "bald")
    assert isinstance(indices, np.ndarray)
    assert indices.tolist() == bb.select_bald(log_probs, batch_size=4).indices.tolist()
    assert session.pending.tolist() == sorted(indices.tolist())
    assert session.history == (Event("ask", tuple(indices.tolist()), (), "bald"),)


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
    assert asked.history[1:] == (
        Event("tell", (d, b), (2, 0)),
        Event("skip", (c,)),
        Event("tell", (a,), (1,)),
    )


def test_the_pool_is_that_of_the_loop(asked: Session):
    a, b, *_ = asked.pending.tolist()
    asked.tell([a], [2])
    asked.skip([b])
    assert asked._pool.status[a] == pools.LABELLED
    assert asked._pool.status[b] == pools.SKIPPED
    assert asked._pool.labels[a] == 2
    assert pools.num_labelled(asked._pool) == 1


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
    assert sum(event.action == "ask" for event in session.history) == 3


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


def test_what_a_session_cannot_give_is_refused(session: Session, log_probs: jax.Array):
    function = bb.Acquisition("epig", ("log_probs", "target_log_probs"), last_points)
    with pytest.raises(ValueError, match="'epig' requires target_log_probs"):
        session.ask(log_probs, 2, function)


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
    assert session.history == ()


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
    ],
)
def test_a_session_that_cannot_be_is_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Session(**{"num_points": 3, "num_classes": 2, **arguments})


@pytest.mark.parametrize(
    "ids", [["cat.png", "dog.png", "Käse"], np.array([7, 3, 11]), np.array(["x", "y", "zz"])]
)
def test_ids_are_names_for_indices(ids: Any, tmp_path: Path):
    session = Session(3, 2, ids=ids)
    session.save(tmp_path / "session.json")
    for same in (session, Session.load(tmp_path / "session.json")):
        assert same.ids.tolist() == list(ids)
        assert same.indices_of(same.ids[[2, 0]]).tolist() == [2, 0]
        assert same.indices_of([]).tolist() == []
        with pytest.raises(ValueError, match="no point is called"):
            same.indices_of([ids[0], "cow.png"])


def test_without_ids_the_indices_are_the_names(session: Session):
    assert session.indices_of([3, 1]).tolist() == [3, 1]


def test_a_session_saved_and_loaded_goes_on_to_the_same_batches(tmp_path: Path, log_probs):
    def go(reload: bool) -> list[Any]:
        session = Session(N, C, seed=3)
        for step in range(4):
            indices = session.ask(log_probs, 4, ("random", "bald")[step % 2])
            if reload:
                session.save(tmp_path / "session.json")
                session = Session.load(str(tmp_path / "session.json"))
            session.tell(indices[1:3], [1, 2])
            session.skip(indices[:1])
        return everything(session)

    assert go(reload=True) == go(reload=False)


def test_the_file_is_json_and_says_what_it_is(busy: Session, tmp_path: Path):
    busy.save(tmp_path / "session.json")
    document = json.loads((tmp_path / "session.json").read_text())
    assert document["kind"] == "bbald_jax session"
    assert document["version"] == 1
    assert document["content"]["history"][1] == ["tell", [0], [2], None]
    assert [path.name for path in tmp_path.iterdir()] == ["session.json"]


@pytest.fixture
def saved(busy: Session, tmp_path: Path) -> Path:
    busy.save(tmp_path / "session.json")
    return tmp_path / "session.json"


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "cut short or damaged"),
        (lambda content: content[:-2], "cut short or damaged"),
        (lambda content: content[: len(content) // 2], "cut short or damaged"),
        (lambda content: bytes(len(content)), "cut short or damaged"),
        (lambda content: b"\x80\x04" + content, "cut short or damaged"),
        (lambda content: b"[" * 100_000, "cut short or damaged"),
        (lambda content: content.replace(b"[0], [2]", b"[0], [1]"), "damaged, its content is not"),
        (lambda content: b'{"labels": [1, 2]}', "not a bbald_jax session; pass another file"),
        (lambda content: b"[]", "not a bbald_jax session; pass another file"),
        (edited(kind="recipe"), "not a bbald_jax session; pass another file"),
        (edited(version=2), r"newer bbald_jax \(version 2 .* up to 1\); update bbald_jax"),
        (edited(content=None), "damaged"),
        (edited(sha256=None), "damaged"),
    ],
)
def test_a_file_that_is_no_whole_session_is_refused(
    saved: Path, damage: Callable[[bytes], bytes], message: str
):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        Session.load(saved)
    assert str(caught.value).startswith(f"{saved}: ")
    assert len(str(caught.value).splitlines()) == 1


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_no_damage_goes_unnoticed(saved: Path, busy: Session, data: st.DataObject):
    whole = bytearray(saved.read_bytes())
    position = data.draw(st.integers(0, len(whole) - 2))  # the last is the end of the line
    byte = data.draw(st.integers(0, 255))
    changed = saved.with_name("changed.json")
    changed.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
    try:
        assert everything(Session.load(changed)) == everything(busy)
    except ValueError as error:
        assert str(changed) in str(error)
    changed.write_bytes(whole[:position])
    with pytest.raises(ValueError, match="cut short or damaged"):
        Session.load(changed)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Session.load(tmp_path / "session.json")


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_last_one(
    saved: Path, busy: Session, when: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = everything(busy)
    busy.tell([11], [1])
    monkeypatch.setattr(files.os, when, fail)
    with pytest.raises(OSError, match="No space left"):
        busy.save(saved)
    monkeypatch.undo()
    assert everything(Session.load(saved)) == before
    busy.save(saved)
    assert everything(Session.load(saved)) == everything(busy)


KILLED = """
import os, signal, sys
import bbald_jax as bb

session = bb.Session(40, 3, seed=5)
session.tell(session.ask(None, 3, "random"), [0, 1, 2])
indices = session.ask(None, 4, "random")
session.save(sys.argv[1])
print(*indices, flush=True)
assert not {"flax", "optax", "orbax", "click"} & set(sys.modules)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_between_ask_and_tell_loses_nothing(tmp_path: Path):
    path = tmp_path / "session.json"
    command = [sys.executable, "-c", KILLED, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    printed = [int(word) for word in result.stdout.split()]

    alive = Session(40, 3, seed=5)
    alive.tell(alive.ask(None, 3, "random"), [0, 1, 2])
    assert alive.ask(None, 4, "random").tolist() == printed
    loaded = Session.load(path)
    assert everything(loaded) == everything(alive)
    for session in (loaded, alive):
        session.tell(printed, [0, 0, 1, 1])
    assert loaded.ask(None, 4, "random").tolist() == alive.ask(None, 4, "random").tolist()
