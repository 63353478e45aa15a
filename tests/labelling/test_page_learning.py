"""What is learnt and planned in the background, and the accuracy that is measured meanwhile."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.labelling.page import handing
from bbald_jax.labelling.page.desk import ConflictError, Desk
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.overview import overview
from bbald_jax.labelling.page.results import rows_of

N, C = 90, 3
TRUTH = np.arange(N) % C


def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 8)) + 4 * np.eye(8)[TRUTH]


def make_desk(session: bb.Session | None = None, **settings: Any) -> Desk:
    session = session or bb.Session(N, classes=["a", "b", "c"])
    return Desk(session, Learning(session, features, batch_size=8, **settings))


def learn(desk: Desk) -> None:
    """A round, in this thread."""
    desk.learning._round(jax.numpy.asarray(features(), jax.numpy.float32))
    desk.learning.stage = "learning"


def work(desk: Desk, number: int) -> None:
    for _ in range(number):
        point = desk.in_hand("anna")[0]
        desk.answer("anna", point, int(TRUTH[point]))


def test_without_a_label_there_is_a_plan_and_with_some_a_model():
    desk = make_desk()
    learn(desk)
    plan = [*desk.learning._plan]
    assert len(plan) == 8
    assert len({TRUTH[point] for point in plan}) == C
    assert desk.in_hand("anna") == plan[:3]
    work(desk, 12)
    desk.unsure("anna", desk.in_hand("anna")[0])
    learn(desk)
    taken = {*desk.session.pending, *desk.session.labelled.indices, *desk.notes.unsure}
    assert not taken & {*desk.learning._plan}
    model = desk.learning.model
    assert model is not None
    assert model.num_labels == 12
    assert (model.probs.argmax(axis=1) == TRUTH).mean() > 0.9
    asked = [event.extra["acquisition"] for event in desk.session.events("ask")]
    assert asked[:8] == [FOR_THE_HEAD] * 8
    seen = overview(desk)
    assert seen["fitted"] == 12
    best = seen["classes"][1]["confident"][0]
    assert TRUTH[best["index"]] == 1
    assert best["probability"] == pytest.approx(model.probs[best["index"], 1])
    assert [fit.num_labels for fit in desk.notes.fits] == [0, 12]


def test_the_thread_learns_and_a_failure_is_said():
    desk = make_desk()
    desk.learning.start()
    assert desk.learning.wait_until_idle(60.0)
    work(desk, 3)
    assert desk.learning.wait_until_idle(60.0)
    assert desk.learning.model is not None
    assert desk.learning.model.num_labels == 3
    assert desk.progress("anna")["stage"] == "learning"
    desk.learning.stop()

    def broken() -> np.ndarray:
        raise ValueError("no such\nfeatures")

    failed = Desk(desk.session, Learning(desk.session, broken))
    failed.learning.start()
    assert failed.learning.wait_until_idle(60.0)
    assert failed.progress("anna")["problem"] == "no such features"
    assert len(failed.in_hand("anna")) == handing.IN_HAND


def test_the_accuracy_is_measured_beside_training_and_survives_a_restart():
    desk = make_desk(target=0.25)
    with pytest.raises(ConflictError, match="learnt nothing yet"):
        desk.measure()
    work(desk, 12)
    learn(desk)
    assert desk.progress("anna")["can_measure"]
    desk.measure()
    learn(desk)
    assert desk.learning.accuracy.startswith("Accuracy of the model of 12 labels: between ")
    held = desk.in_hand("anna")
    drawn = [point for point in held if desk.is_drawn(point)]
    assert len(drawn) == handing.DRAWN_IN_HAND
    with pytest.raises(ConflictError, match="drawn to measure"):
        desk.unsure("anna", drawn[0])
    before = desk.session.labelled.indices.tolist()
    desk.answer("anna", drawn[0], int(TRUTH[drawn[0]]))
    desk.answer("anna", drawn[0], int(TRUTH[drawn[0]]))  # sent twice
    assert desk.session.labelled.indices.tolist() == before, "training has seen an audit label"
    assert drawn[0] in {row["item"] for row in rows_of(desk.session, None)}
    assert desk.undo("anna") == drawn[0]
    assert drawn[0] in desk.in_hand("anna")
    desk.answer("anna", drawn[0], int(TRUTH[drawn[0]]))
    desk.skip("anna", drawn[1])
    assert not len(desk.session.skipped)
    work(desk, 20)
    learn(desk)
    audit = desk.notes.audit
    estimate = audit.estimate(desk.session)
    assert estimate is not None
    assert estimate.lower <= (audit.models[0].predicted == TRUTH).mean() <= estimate.upper
    assert estimate.num_audited >= 8
    assert f"by {estimate.num_audited} items" in desk.learning.accuracy
    assert desk.learning.is_reached
    assert "Stop: the target, 25%, is reached" in desk.learning.accuracy
    seen = overview(desk)["accuracy"]
    assert [each["num_labels"] for each in seen] == [model.num_labels for model in audit.models]
    assert [number for number, *_ in seen[0]["intervals"]] == [0]  # then came the second model
    assert seen[-1]["intervals"] == [(estimate.num_audited, estimate.lower, estimate.upper)]
    again = make_desk(desk.session)
    again.notes.follow()
    assert again.notes.audit.estimate(desk.session) == estimate


def test_what_training_chooses_and_the_audit_has_is_not_asked_twice():
    desk = make_desk()
    work(desk, 12)
    learn(desk)
    desk.measure()
    learn(desk)
    one, two = (point for point in desk.in_hand("anna") if desk.is_drawn(point))
    free = next(iter(set(range(N)) - {*desk.in_hand("anna"), *desk.session.labelled.indices}))
    desk.answer("anna", one, 2)
    desk.learning._plan = [one, two, free]
    assert not {one, two} & {*desk.in_hand("ben")[2:]}
    told = dict(zip(*(part.tolist() for part in desk.session.labelled), strict=True))
    assert told[one] == 2
    assert two not in told
    desk.answer("anna", two, 1)
    told = dict(zip(*(part.tolist() for part in desk.session.labelled), strict=True))
    assert told[two] == 1


def test_a_drawn_point_that_goes_to_others_never_becomes_a_training_label(
    monkeypatch: pytest.MonkeyPatch,
):
    desk = make_desk()
    work(desk, 12)
    learn(desk)
    desk.measure()
    learn(desk)
    point = next(point for point in desk.in_hand("anna") if desk.is_drawn(point))
    now = handing.time.time
    monkeypatch.setattr(handing.time, "time", lambda: now() + 601)
    assert point in desk.in_hand("ben")
    desk.answer("anna", point, 0)
    assert point not in desk.session.labelled.indices
    with pytest.raises(ConflictError, match="answered by anna already"):
        desk.answer("ben", point, 1)
    assert not desk.session.disagreements


def test_who_goes_on_under_another_name_gives_everything_back():
    desk = make_desk()
    work(desk, 12)
    learn(desk)
    desk.measure()
    learn(desk)
    held = desk.in_hand("anna")
    desk.leave("anna")
    assert not desk.session.in_hand
    drawn = [point for point in held if point in desk.notes.audit.points]
    assert len(drawn) == handing.DRAWN_IN_HAND
    assert {*drawn} <= {*desk.in_hand("ben")}


def test_a_cell_of_a_notebook_learns_and_knows_how_good_it_is(tmp_path: Path):
    pytest.importorskip("anywidget", reason="needs the extra widget")
    from bbald_jax.labelling.widget import Labeller

    texts = [f"text {number}" for number in range(N)]
    labeller = Labeller(texts, ["a", "b", "c"], tmp_path / "labels.db", features(), batch_size=8)
    assert labeller.predictions().shape == (N, C)
    work(labeller.desk, 12)
    assert (labeller.predictions().argmax(axis=1) == TRUTH).mean() > 0.9
    assert labeller.accuracy is None
    labeller.handle({"what": "measure", "body": {"annotator": "anna"}})
    labeller.predictions()
    work(labeller.desk, 10)
    labeller.predictions()
    accuracy, measured = labeller.accuracy, labeller.measured
    assert accuracy is not None
    assert measured is not None
    assert (accuracy.num_trained, measured.num_labels) == (12, 12)
    assert accuracy.num_audited > 3
    assert accuracy.lower <= (measured.predicted == TRUTH).mean() <= accuracy.upper
    labeller.close()
