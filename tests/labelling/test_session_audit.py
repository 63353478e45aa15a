"""An audit that is kept in a session."""

from pathlib import Path

import jax
import numpy as np
import pytest

import bbald_jax as bb

N, C = 300, 3
ONE = bb.AuditSettings(planned_models=1)


class World:
    """Classes, a model's opinion, and a session in which 30 points are labelled."""

    def __init__(self, path: Path | None = None) -> None:
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, C, N)
        logits = rng.normal(size=(N, C))
        logits[np.arange(N), self.y] += 2
        self.probs = np.asarray(jax.nn.softmax(logits))
        self.session = (
            bb.Session(N, C)
            if path is None
            else bb.Session.create(path, num_points=N, num_classes=C)
        )
        self.session.import_labels(np.arange(30), self.y[:30])
        self.accuracy = float((self.probs.argmax(axis=1) == self.y).mean())


@pytest.fixture
def world() -> World:
    return World()


def test_it_is_the_audit_without_a_session(world: World):
    audit = bb.SessionAudit(world.session)
    audit.add_model(world.probs, settings=ONE)
    points = audit.draw(60)
    assert len(set(points.tolist())) == 60 and (points >= 30).all()
    assert audit.waiting.tolist() == points.tolist()
    audit.tell(points[::-1], world.y[points[::-1]])
    found = audit.estimate()
    assert found.lower <= world.accuracy <= found.upper
    assert (found.num_audited, found.num_trained) == (60, 30)
    # The same draws and labels, in an audit of its own.
    errors = (1 - world.probs.max(axis=1)).astype("<f2").astype(float)
    draws = tuple(
        bb.Draw(point, event.extra["probability"], 1, int(world.y[point]))
        for event in world.session.events("audit_draw")
        if (point := event.index) is not None
    )
    alone = bb.start_audit(errors, ONE)._replace(draws=draws)
    expected = bb.estimate_accuracy(
        alone,
        world.probs.argmax(axis=1),
        errors,
        labelled=np.arange(30),
        labels=world.y[:30],
    )
    assert found == expected
    assert not audit.advise(0.999).stop and audit.advise(0.2).stop
    # Training has seen nothing of it.
    assert len(world.session.labelled.indices) == 30 and not world.session.pending.size


def test_another_process_goes_on(tmp_path: Path):
    world = World(tmp_path / "labels.db")
    first = bb.SessionAudit(world.session)
    first.add_model(world.probs, settings=ONE)
    points = first.draw(20)
    first.tell(points[:5], world.y[points[:5]], annotator="ann")
    world.session.close()
    with bb.Session.open(tmp_path / "labels.db") as session:
        second = bb.SessionAudit(session)
        assert second.waiting.tolist() == points[5:].tolist()
        second.tell(points[5:], world.y[points[5:]])
        assert second.estimate().num_audited == 20
        more = second.draw(5)
        assert not set(more.tolist()) & set(points.tolist())


def test_a_point_that_training_labels_needs_no_answer(world: World):
    audit = bb.SessionAudit(world.session)
    audit.add_model(world.probs, settings=ONE)
    points = audit.draw(3)
    world.session.import_labels(points[:1], world.y[points[:1]])
    assert audit.waiting.tolist() == points[1:].tolist()
    audit.tell(points[1:], [-1, -1])
    assert audit.estimate().num_audited == 3


def test_what_makes_no_sense_is_refused_and_changes_nothing(world: World):
    audit = bb.SessionAudit(world.session)
    for call in (lambda: audit.draw(1), audit.estimate):
        with pytest.raises(ValueError, match="call add_model first"):
            call()
    with pytest.raises(ValueError, match=r"probs: shape \(299, 3\) is not \[300, C\]"):
        audit.add_model(world.probs[1:])
    with pytest.raises(ValueError, match="probs: there is a NaN"):
        audit.add_model(np.where(world.probs > 0.9, np.nan, world.probs))
    audit.add_model(world.probs)
    with pytest.raises(ValueError, match="settings: the audit has begun"):
        audit.add_model(world.probs, settings=ONE)
    points = audit.draw(2)
    before = len(list(world.session.events()))
    for indices, labels, words in (
        ([0], [1], "point 0 is not out for the audit"),
        ([points[0], points[0]], [1, 1], "is not out for the audit"),
        (points, [1, 3], "labels: 3, of point"),
        (points, [1], "1 for 2 indices"),
    ):
        with pytest.raises(ValueError, match=words):
            audit.tell(indices, labels)
    with pytest.raises(ValueError, match="num_points: 0"):
        audit.draw(0)
    assert len(list(world.session.events())) == before
    assert audit.waiting.tolist() == points.tolist()
