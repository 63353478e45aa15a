"""The file of a session: what it keeps, who may use it at once, and what is refused."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.labelling import state, store
from bbald_jax.labelling.events import from_row
from bbald_jax.labelling.session import Session

N, C = 40, 3


def everything(session: Session) -> list[Any]:
    labelled = session.labelled
    return [
        *(session.num_points, session.num_classes, session.seed, session.classes),
        *(labelled.indices.tolist(), labelled.labels.tolist(), session.in_hand, session.answers),
        *(session.pending.tolist(), session.skipped.tolist(), session.ids.tolist()),
        session.history,
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.db"


@pytest.fixture
def session(path: Path) -> Session:
    return Session.create(path, num_points=N, num_classes=C, seed=5)


def test_what_is_in_the_file_is_all_there_is(path: Path, session: Session):
    indices = session.ask(None, 6, "random")
    session.tell(indices[:3], [2, 0, 1])
    session.skip(indices[3:4])
    session.assign([indices[0]], annotator="ann", overlap=True)
    with Session.open(str(path)) as other:
        assert everything(other) == everything(session)
        # What one does, the other sees at once.
        other.tell(indices[4:5], [1])
        assert everything(other) == everything(session)
    session.close()
    assert [file.name for file in path.parent.iterdir()] == ["labels.db"]


def test_one_that_was_opened_goes_on_to_the_same_batches(path: Path, make_log_probs):
    log_probs = make_log_probs(N, 8, C)

    def go(session: Session, reopen: bool) -> list[Any]:
        batches = []
        for step in range(4):
            indices = session.ask(log_probs, 4, ("random", "bald")[step % 2])
            if reopen:
                session.close()
                session = Session.open(path)
            session.tell(indices[1:3], [1, 2])
            session.skip(indices[:1])
            batches.append(indices.tolist())
        return [*batches, everything(session)[:6]]

    inside = go(Session(N, C, seed=3), reopen=False)
    assert go(Session.create(path, num_points=N, num_classes=C, seed=3), reopen=True) == inside


@pytest.mark.parametrize(
    "ids", [["cat.png", "dog.png", "Käse"], np.array([7, 3, 11]), np.array(["x", "y", "zz"])]
)
def test_ids_are_names_for_indices(ids: Any, path: Path):
    session = Session.create(path, ids=ids, num_classes=2)
    for same in (session, Session.open(path)):
        assert (same.num_points, same.ids.tolist()) == (3, list(ids))
        assert same.indices_of(same.ids[[2, 0]]).tolist() == [2, 0]
        assert same.indices_of([]).tolist() == []
        with pytest.raises(ValueError, match="no point is called"):
            same.indices_of([ids[0], "cow.png"])


def test_without_ids_nothing_is_written_for_a_point(path: Path):
    Session.create(path, num_points=10**9, num_classes=2).close()
    assert path.stat().st_size < 100_000


def test_it_says_what_it_is(path: Path, session: Session):
    session.close()
    db = sqlite3.connect(path)
    (application,), (version,), (mode,) = (
        db.execute(f"PRAGMA {name}").fetchone()
        for name in ("application_id", "user_version", "journal_mode")
    )
    assert (application.to_bytes(4, "big"), version, mode) == (b"bBLD", store.VERSION, "wal")


def test_every_answer_is_on_the_disk_before_the_call_returns(session: Session):
    ((level,),) = session._store.query("PRAGMA synchronous")
    assert level == 2  # FULL: the log is synchronised at every commit


def test_events_are_never_changed(session: Session):
    db = session._store._db
    for statement in ("UPDATE events SET label = 1", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="appended, never changed"):
            db.execute(statement)


def test_a_file_that_is_there_is_not_written_over(path: Path, session: Session):
    session.close()
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"labels.db: is there already; open it"):
        Session.create(path, num_points=N, num_classes=C)
    assert path.read_bytes() == before
    path.write_text("my notes")
    with pytest.raises(FileExistsError, match="is there already"):
        Session.create(path, num_points=N, num_classes=C)
    assert path.read_text() == "my notes"


def test_one_that_cannot_be_is_not_begun(path: Path):
    with pytest.raises(ValueError, match="num_points: 0"):
        Session.create(path, num_points=0, num_classes=C)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(OSError, match="unable to open"):
        Session.create(path / "in" / "no" / "folder", num_points=N, num_classes=C)


def test_what_a_killed_create_leaves_is_no_obstacle(path: Path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    with pytest.raises(ValueError, match="no bbald_jax session"):
        Session.open(path)
    assert Session.create(path, num_points=N, num_classes=C).num_points == N


def with_pragma(name: str, value: int):
    def change(path: Path) -> None:
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA {name} = {value}")
        db.close()

    return change


def overwritten(start: int, length: int = 60):
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[start : start + length] = b"\x55" * length
        path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_pragma("application_id", 7), "a database, but no bbald_jax session; pass another"),
        (with_pragma("user_version", 3), r"newer bbald_jax \(version 3 .* up to 2\); update"),
        (lambda path: path.write_text("id,label\n3,1\n"), "not a bbald_jax session; pass another"),
        (lambda path: path.write_bytes(b""), "not a bbald_jax session"),
        (lambda path: path.write_text('{"kind": "bbald_jax session"}'), "Session.from_version_1"),
        (overwritten(0), "not a bbald_jax session.*or, if it was one.*bbald session repair"),
        (overwritten(100), "damaged .*bbald session repair .*labels.db --output NEW"),
        (overwritten(4096 * 3), "damaged .*bbald session repair"),
    ],
)
def test_a_file_that_is_no_whole_session_is_refused(
    path: Path, session: Session, change, message: str
):
    session.tell(session.ask(None, 10, "random"), [0] * 10)
    session.close()
    change(path)
    with pytest.raises(ValueError, match=message) as caught:
        Session.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_an_event_that_was_changed_on_the_disk_is_noticed(path: Path, session: Session):
    session.record("note", extra={"text": "quite unmistakable"})
    session.close()
    content = path.read_bytes()
    assert content.count(b"quite unmistakable") == 1
    path.write_bytes(content.replace(b"quite unmistakable", b"quite unmistakeabl"))
    with pytest.raises(ValueError, match=r"damaged \(event 2 is not what was written\)"):
        _ = Session.open(path).history


def test_a_file_that_is_not_there_is_an_error(path: Path):
    with pytest.raises(FileNotFoundError):
        Session.open(path)
    assert not path.exists()


def test_a_closed_session_says_so(session: Session):
    session.close()
    session.close()
    with pytest.raises(ValueError, match=r"labels.db: this session is closed; open it again"):
        _ = session.labelled


def test_a_full_disk_changes_nothing(session: Session):
    indices = session.ask(None, 3, "random")
    before = everything(session)
    ((pages,),) = session._store.query("PRAGMA page_count")
    session._store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match=r"labels.db: database or disk is full"):
        session.record("note", extra={"text": "x" * 100_000})
    assert everything(session) == before
    session._store._db.execute("PRAGMA max_page_count = 1000000")
    session.tell(indices, [0, 1, 2])
    assert session.labelled.labels.size == 3


def test_whoever_waits_too_long_is_told(path: Path, session: Session, monkeypatch):
    monkeypatch.setattr(store, "_PATIENCE", 0.05)
    other = Session.open(path)
    with (
        session._store.writing(),
        pytest.raises(TimeoutError, match=r"another process has kept it locked for 0.05 s"),
    ):
        other.record("note")


def test_the_state_is_what_follows_from_the_events():
    """Random doings of three people; then all events are applied again, to empty tables."""
    session = Session(N, C)
    rng = np.random.default_rng(0)
    people = (None, "ann", "bob")
    done = set()

    def tables() -> list[list[tuple]]:
        names = ("answers", "points", "summary")
        return [session._store.query(f"SELECT * FROM {name} ORDER BY 1, 2") for name in names]

    for _ in range(400):
        who = people[rng.integers(3)]
        mine = [answer.point for answer in session.in_hand if answer.annotator == who]
        doing = ("ask", "tell", "tell", "skip", "correct", "undo", "assign", "release", "import")
        doing = (*doing, "forget")[rng.integers(10)]
        label = int(rng.integers(C))
        try:
            if doing == "ask" and len(mine) < 3:
                session.ask(None, 2, "random", annotator=who)
            elif doing == "tell" and mine:
                session.tell(mine[:1], [label], annotator=who)
            elif doing == "skip" and mine and rng.random() < 0.3:
                session.skip(mine[:1], annotator=who)
            elif doing == "correct":
                points = session.labelled.indices
                session.correct(int(rng.choice(points)), label, annotator=who)
            elif doing == "undo":
                session.undo(annotator=who)
            elif doing == "assign":
                session.assign(rng.permutation(N)[:3], annotator=who, overlap=True)
            elif doing == "release":
                session.release(annotator=who)
            elif doing == "import":
                session.import_labels([rng.integers(N)], [label], annotator=who)
            elif doing == "forget" and rng.random() < 0.1:
                session.forget(who)
            else:
                continue
            done.add(doing)
        except ValueError:
            continue
    assert len(done) == 9
    session.add_classes(2)
    session.add_points(5)
    before = tables()
    assert len(before[0]) > 20
    with session._store.writing() as transaction:
        events = [from_row(row) for row in transaction.query("SELECT * FROM events ORDER BY id")]
        start = state.created(events[0])
        transaction.summary = state.rebuild(session._store._db, start, events)
    assert tables() == before


def test_threads_share_a_session(session: Session):
    got: list[int] = []

    def work(name: str) -> None:
        for _ in range(5):
            for index in session.ask(None, 2, "random", annotator=name):
                got.append(int(index))
                session.tell([index], [0], annotator=name)

    threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(N))
    assert session.labelled.indices.tolist() == sorted(got)
    # Each ask has a number of its own.
    assert {event.extra["ask"] for event in session.events("ask")} == set(range(20))


@pytest.mark.parametrize("num_races", [1, 3])
def test_of_two_that_chose_the_same_one_chooses_again(
    path: Path, session: Session, num_races: int, monkeypatch: pytest.MonkeyPatch
):
    other, calls = Session.open(path), []

    def select(key: Any, inputs: Any, *, batch_size: int, available: Any, pending: Any):
        calls.append(None if pending is None else pending[:4].tolist())
        if len(calls) <= num_races:  # while this one was thinking
            assert other.ask(None, 1, first).tolist() == [len(calls) - 1]
        elif num_races == 3:  # it has lost too often: now it keeps the others waiting
            monkeypatch.setattr(store, "_PATIENCE", 0.05)
            with Session.open(path) as third, pytest.raises(TimeoutError):
                third.record("note")
        return first.select(key, inputs, available=available)

    def first_select(key: Any, inputs: Any, *, available: Any, **_: Any):
        index = jnp.flatnonzero(available)[:1]
        return bb.CandidateBatch(index, index, index, diagnostics=None)

    first = bb.Acquisition("first", (), first_select)
    assert session.ask(None, 1, bb.Acquisition("slow", (), select)).tolist() == [num_races]
    assert calls == [None, [0, -1, -1, -1], [0, 1, -1, -1], [0, 1, 2, -1]][: num_races + 1]
    numbers = [event.extra["ask"] for event in session.events("ask")]
    assert numbers == list(range(num_races + 1))
