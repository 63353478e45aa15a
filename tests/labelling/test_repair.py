"""What can be read of a damaged session is recovered, and what was lost is counted."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bbald_jax.labelling.events import Event
from bbald_jax.labelling.pages import PAGE_SIZE
from bbald_jax.labelling.repair import repair
from bbald_jax.labelling.session import Session
from bbald_jax.labelling.state import created

N = 120


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with some hundred events, on some dozen pages; closed."""
    path = tmp_path_factory.mktemp("original") / "labels.db"
    ids = [f"images/{i:05d}.png" for i in range(N)]
    rng = np.random.default_rng(0)
    with Session.create(path, ids=ids, classes=["cat", "dog"], seed=7) as session:
        session.ask(None, 3, "random")
        points = rng.permutation(N)[:110]
        session.import_labels(points, rng.integers(2, size=110), annotator="ann")
        session.add_classes(["cow"])
        session.add_points(ids=["new.png"])
        session.record("settings", extra={"text": "a long one " * 1000})  # on pages of its own
        session.import_labels([N], ["cow"], annotator="bob")
        session.correct(N, "dog", annotator="ann")
        session.skip(session.pending[:1])
    return path


def told(session: Session) -> list[Event]:
    """What happened but for repairs."""
    return [event for event in session.history if event.kind != "repair"]


def assert_consistent(session: Session) -> None:
    """The state is what follows from the events."""
    with Session(1, 1) as replayed, replayed._store.writing() as transaction:
        transaction._db.execute("DROP TRIGGER events_never_go")
        transaction._db.execute("DELETE FROM events")
        transaction.summary = created(session.history[0])
        for event in session.history:
            transaction.put(event)
        assert transaction.summary == session._store.summary
        for name in ("answers", "points"):
            rows_there = session._store.query(f"SELECT * FROM {name}")
            assert transaction.query(f"SELECT * FROM {name}") == rows_there


def test_a_whole_one_is_recovered_whole(original: Path, tmp_path: Path):
    path = Path(shutil.copy(original, tmp_path / "labels.db"))
    report = repair(path, tmp_path / "new.db")
    assert path.read_bytes() == original.read_bytes()
    with Session.open(path) as old, Session.open(tmp_path / "new.db") as new:
        num_events = len(old.history)
        assert told(new) == list(old.history)
        assert report == (num_events, 0, True, 111, 0)
        np.testing.assert_array_equal(new.labelled, old.labelled)
        assert (new.classes, new.num_points) == (("cat", "dog", "cow"), N + 1)
        np.testing.assert_array_equal(new.ids, old.ids)
        assert_consistent(new)
        # It goes on with the next random key, under the next number.
        assert new.ask(None, 3, "random").tolist() == old.ask(None, 3, "random").tolist()
        assert [event.id for event in new.events("ask", after=4)] == [
            num_events + 2 + i for i in range(3)
        ]
    with pytest.raises(FileExistsError, match=r"new.db: is there already"):
        repair(path, tmp_path / "new.db")


def test_each_page_that_is_overwritten_costs_no_more_than_was_on_it(original: Path, tmp_path: Path):
    with Session.open(original) as session:
        whole = {event.id: event for event in session.history}
        ids, num_points = session.ids, session.num_points
    content = original.read_bytes()
    costs = []
    for start in range(0, len(content), PAGE_SIZE):
        path, output = tmp_path / f"{start}.db", tmp_path / f"{start}.new.db"
        garbage = bytes(range(256)) * (PAGE_SIZE // 256)
        path.write_bytes(content[:start] + garbage + content[start + PAGE_SIZE :])
        report = repair(path, output)
        with Session.open(output) as new:
            first, *events = told(new)
            assert all(whole[event.id] == event for event in events)
            assert (new.num_points, new.classes) == (num_points, ("cat", "dog", "cow"))
            assert (first.id, first.kind) == (1, "create")
            if report.is_end_known:
                assert report.num_events + report.num_lost == len(whole)
            assert np.sum(new.ids != ids) == report.num_names_lost
        costs.append((report.num_lost, report.num_names_lost, report.is_end_known))
    lost_events, lost_names, is_end_known = zip(*costs, strict=True)
    # Every event and every name is on one page, and the events are on several.
    assert sum(lost_events) >= len(whole)
    assert max(lost_events) < len(whole)
    assert sum(lost_names) == N + 1
    assert is_end_known.count(False) == 1  # that page has the summary


def test_what_is_still_in_the_log_is_recovered(tmp_path: Path):
    session = Session.create(tmp_path / "labels.db", num_points=N, num_classes=2)
    session.import_labels(np.arange(50), [1] * 50)
    session._store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    session.import_labels([60], [0])
    folder = Path(shutil.copytree(tmp_path, tmp_path / "copy"))
    assert (folder / "labels.db-wal").stat().st_size > 0
    report = repair(folder / "labels.db", tmp_path / "new.db")
    assert report == (52, 0, True, 51, 0)
    with Session.open(tmp_path / "new.db") as new:
        assert told(new) == list(session.history)


def test_points_and_classes_that_are_known_only_by_their_use_are_kept(tmp_path: Path):
    path = tmp_path / "labels.db"
    with Session.create(path, ids=[3, 7], classes=["cat", "dog"]) as session:
        session.add_classes(["cow", "emu"])
        session.add_classes(["fox"])
        session.add_points(ids=[9, 5])
        session.import_labels([3, 1], ["emu", "fox"])
        db = session._store._db
        for trigger in ("events_never_go", "events_never_change"):
            db.execute(f"DROP TRIGGER {trigger}")
        # The summary, the first new classes, and the new points are lost.
        for statement in ("summary", "events WHERE id IN (2, 4)", "names WHERE point > 1"):
            db.execute(f"DELETE FROM {statement}")
        db.execute("VACUUM")
        session.close()
    report = repair(path, tmp_path / "new.db")
    assert report == (4, 2, False, 2, 2)
    with Session.open(tmp_path / "new.db") as new:
        assert new.classes == ("cat", "dog", "class 2", "class 3", "fox")
        assert new.ids.tolist() == [3, 7, -3, -4]
        assert new.labelled.labels.tolist() == [4, 3]
        assert_consistent(new)


def test_nothing_comes_of_nothing(tmp_path: Path):
    path = tmp_path / "labels.db"
    path.write_bytes(b"\x0d" * 20_000)
    with pytest.raises(ValueError, match=r"labels.db: no event of a session can be read in it"):
        repair(path, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    path.unlink()
    with Session.create(path, num_points=N, num_classes=2) as session:
        session.record("note")
        session._store._db.execute("DROP TRIGGER events_never_go")
        session._store._db.execute("DELETE FROM events WHERE id = 1")
        session._store._db.execute("DELETE FROM summary")
        session._store._db.execute("VACUUM")
        session.close()
    with pytest.raises(ValueError, match=r"how many points and classes .* is lost; events .*: 1$"):
        repair(path, tmp_path / "new.db")
