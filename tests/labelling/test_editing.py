"""Several people: corrections, undo, second opinions, and what comes from outside."""

import time
from typing import Any

import numpy as np
import pytest

from bbald_jax.labelling.events import Disagreement
from bbald_jax.labelling.session import Session

N, C = 20, 3


@pytest.fixture
def session() -> Session:
    return Session(N, C)


def label_of(session: Session, index: int) -> int | None:
    indices, labels = session.labelled
    return dict(zip(indices.tolist(), labels.tolist(), strict=True)).get(index)


def given(session: Session, index: int, **labels: int) -> None:
    for annotator, label in labels.items():
        session.import_labels([index], [label], annotator=annotator)


def test_points_are_handed_to_people(session: Session):
    assert session.assign([3, 1, 2], annotator="ann", acquisition="mine").tolist() == [3, 1, 2]
    assert session.assign([2, 4, 3], annotator="bob").tolist() == [4]
    assert session.pending.tolist() == [1, 2, 3, 4]
    assert [(x.point, x.annotator, x.label) for x in session.in_hand] == [
        *((3, "ann", None), (1, "ann", None), (2, "ann", None), (4, "bob", None))
    ]
    assert [event.extra for event in session.events("ask", index=1)] == [{"acquisition": "mine"}]
    # It used up no number of `ask`, from which the random keys come.
    session.ask(None, 1, "random")
    assert [event.extra.get("ask") for event in session.events("ask")] == [None] * 4 + [0]


def test_only_who_has_a_point_answers_it(session: Session):
    session.assign([1, 2], annotator="ann")
    for annotator, who in ((None, "ann"), ("bob", "ann")):
        with pytest.raises(ValueError, match=rf"indices\[0\]: point 1 is in hand with '{who}'"):
            session.tell([1], [0], annotator=annotator)
        with pytest.raises(ValueError, match=r"pass that annotator, or .* import_labels"):
            session.skip([1], annotator=annotator)
    session.tell([1], [0], annotator="ann")
    # What nobody in particular has, anyone may answer.
    session.assign([5, 6])
    session.tell([5], [2], annotator="bob")
    assert [(x.point, x.annotator) for x in session.in_hand] == [(2, "ann"), (6, None)]
    assert [(x.point, x.annotator, x.label) for x in session.answers] == [
        (1, "ann", 0),
        (5, "bob", 2),
    ]


@pytest.mark.parametrize("annotator", ["", "x" * 1001, "a\0b"])
def test_a_name_is_a_name(session: Session, annotator: str):
    with pytest.raises(ValueError, match=r"annotator: .* is no name; pass a string of 1 to 1,000"):
        session.assign([1], annotator=annotator)


def test_a_second_opinion_is_asked_for_on_purpose(session: Session):
    session.assign([1, 2, 3], annotator="ann")
    session.tell([1], [0], annotator="ann")
    session.skip([3], annotator="ann")
    assert session.assign([1, 2, 3, 4], annotator="ann", overlap=True).tolist() == [4]
    assert session.assign([1, 2, 3], annotator="bob", overlap=True).tolist() == [1, 2]
    assert session.pending.tolist() == [2, 4]  # there is an answer to 1
    session.tell([1, 2], [1, 1], annotator="bob")
    assert session.pending.tolist() == [4]
    assert session.disagreements == (Disagreement(1, {"ann": 0, "bob": 1}),)


def test_the_majority_decides_and_the_latest_among_equals(session: Session):
    given(session, 7, ann=0)
    assert label_of(session, 7) == 0
    given(session, 7, bob=1)
    assert label_of(session, 7) == 1
    given(session, 7, cleo=0)
    assert label_of(session, 7) == 0
    given(session, 7, dan=1)
    assert label_of(session, 7) == 1
    given(session, 8, ann=2, bob=2, cleo=0)
    assert label_of(session, 8) == 2
    assert [found.point for found in session.disagreements] == [7, 8]
    assert session.disagreements[0].labels == {"ann": 0, "bob": 1, "cleo": 0, "dan": 1}


def test_who_corrects_their_own_label_changes_a_vote(session: Session):
    given(session, 7, ann=0, bob=1, cleo=1)
    session.correct(7, 2, annotator="ann")
    assert label_of(session, 7) == 1
    session.correct(7, 0, annotator="bob")
    session.correct(7, 0, annotator="cleo")
    assert label_of(session, 7) == 0


def test_anyone_else_decides(session: Session):
    given(session, 7, ann=0, bob=0)
    session.correct(7, 2, annotator="eve")
    assert label_of(session, 7) == 2
    given(session, 7, cleo=0)
    assert label_of(session, 7) == 2
    session.correct(7, 1)
    assert label_of(session, 7) == 1
    assert session.disagreements == ()
    session.correct(7, 0, annotator="eve")  # hers is still a decision, and the latest
    assert label_of(session, 7) == 0


@pytest.mark.parametrize(
    ("index", "label", "message"),
    [
        (3, 0, "index: point 3 is unlabelled, and has no label to correct"),
        (4, 0, "index: point 4 is pending"),
        (20, 0, r"index\[0\]: 20 is no point"),
        (7, 3, r"labels\[0\]: 3, of point 7, is no class"),
        (7, "cat", "the classes of this session have no names"),
    ],
)
def test_corrections_are_checked(session: Session, index: int, label: Any, message: str):
    given(session, 7, ann=0)
    session.assign([4])
    before = session.history
    with pytest.raises(ValueError, match=message):
        session.correct(index, label)
    assert session.history == before


def test_undo_goes_back_answer_by_answer(session: Session):
    session.assign([1, 2, 3], annotator="ann")
    session.assign([4], annotator="bob")
    session.tell([1, 2], [0, 1], annotator="ann")
    session.tell([4], [2], annotator="bob")
    session.skip([3], annotator="ann")
    session.correct(1, 2, annotator="ann")
    session.correct(1, 1, annotator="ann")

    assert session.undo(annotator="ann") == 1
    assert label_of(session, 1) == 2
    assert session.undo(annotator="ann") == 1
    assert label_of(session, 1) == 0
    assert session.undo(annotator="ann") == 3
    assert (session.skipped.tolist(), session.pending.tolist()) == ([], [3])
    assert session.undo(annotator="ann") == 2
    session.tell([2], [0], annotator="ann")  # another answer, which is now the last
    assert session.undo(annotator="ann") == 2
    assert session.undo(annotator="ann") == 1
    assert session.pending.tolist() == [1, 2, 3]
    assert {x.annotator for x in session.in_hand} == {"ann"}
    with pytest.raises(ValueError, match="no answer of 'ann' is there to be undone"):
        session.undo(annotator="ann")
    assert label_of(session, 4) == 2
    with pytest.raises(ValueError, match="no answer of nobody in particular to point 4"):
        session.undo(index=4)
    assert session.undo(annotator="bob", index=4) == 4


def test_an_answer_to_a_certain_point_is_taken_back(session: Session):
    session.assign([1, 2])
    session.tell([1, 2], [0, 1])
    assert session.undo(index=1) == 1
    assert (session.pending.tolist(), session.labelled.indices.tolist()) == ([1], [2])


def test_a_decision_is_taken_back_whole(session: Session):
    given(session, 7, ann=0, bob=0)
    session.correct(7, 2, annotator="eve")
    session.correct(7, 1, annotator="eve")
    assert session.undo(annotator="eve") == 7
    assert label_of(session, 7) == 2
    assert session.undo(annotator="eve") == 7
    assert label_of(session, 7) == 0
    assert len(session.answers) == 2
    # In hand for a second opinion, it is in hand again.
    session.assign([7], annotator="eve", overlap=True)
    session.correct(7, 1, annotator="eve")
    session.undo(annotator="eve")
    assert [x.annotator for x in session.in_hand] == ["eve"]
    assert label_of(session, 7) == 0


def test_what_will_not_come_is_released(session: Session, monkeypatch: pytest.MonkeyPatch):
    session.assign([1, 2, 3], annotator="ann")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    session.assign([4, 5], annotator="bob")
    session.assign([6])
    session.tell([4], [0], annotator="bob")
    assert session.release(older_than=99).tolist() == [1, 2, 3]
    assert session.pending.tolist() == [5, 6]
    assert session.release([4, 5], annotator="ann").tolist() == []
    assert session.release([4, 5]).tolist() == [5]
    assert session.release(annotator="bob").tolist() == []
    with pytest.raises(ValueError, match=r"indices\[0\]: 99 is no point"):
        session.release([99])
    assert session.release().tolist() == [6]
    assert session.labelled.indices.tolist() == [4]
    assert [event.annotator for event in session.events("release")] == 3 * ["ann"] + ["bob", None]
    # They are asked for again, of whom it may be.
    assert session.assign([1, 5, 6], annotator="cleo").tolist() == [1, 5, 6]
    # Who answers too late is told so, and can still hand it in.
    with pytest.raises(ValueError, match="in hand with 'cleo'"):
        session.tell([1], [2], annotator="ann")
    session.import_labels([1], [2], annotator="ann")
    assert label_of(session, 1) == 2
    assert session.in_hand[0].point == 1


def test_nothing_older_than_zero_seconds_stays(session: Session):
    session.assign([1])
    assert session.release(older_than=0).tolist() == [1]


def test_an_annotator_is_forgotten(session: Session):
    session.assign([1, 2, 3, 4], annotator="ann")
    session.tell([1, 2], [0, 0], annotator="ann")
    session.skip([3], annotator="ann")
    given(session, 2, bob=1)
    session.forget("ann")
    assert (session.pending.size, session.skipped.size) == (0, 0)
    assert session.labelled.indices.tolist() == [2]
    assert label_of(session, 2) == 1
    assert session.assign([1, 3, 4], annotator="ann").tolist() == [1, 3, 4]
    with pytest.raises(ValueError, match="no answer of 'ann'"):
        session.undo(annotator="ann")
    assert sum(event.annotator == "ann" for event in session.history) == 4 + 3 + 1 + 3
    session.forget("nobody has this name")


def test_labels_that_exist_already(session: Session):
    session.assign([1, 2], annotator="ann")
    session.assign([3])
    session.skip([3])
    session.import_labels([0, 1, 3], [2, 1, 0])
    assert session.labelled.indices.tolist() == [0, 1, 3]
    assert session.pending.tolist() == [2]
    session.import_labels([0, 4], [2, 2])  # once more, and one more
    assert session.labelled.labels.tolist() == [2, 1, 0, 2]
    assert sum(event.kind == "import" for event in session.history) == 4
    before = session.history
    with pytest.raises(ValueError, match=r"labels\[1\]: 1, but point 4 has the label 2 by the"):
        session.import_labels([5, 4], [0, 1])
    with pytest.raises(ValueError, match=r"indices\[1\]: point 6 is named twice"):
        session.import_labels([6, 6], [0, 0])
    with pytest.raises(ValueError, match="no answer of nobody in particular"):
        session.undo()
    assert session.history == before
    assert not set(session.ask(None, N, "random").tolist()) & {0, 1, 2, 3, 4}


def test_classes_have_names():
    session = Session(N, classes=["cat", "dog"])
    assert (session.num_classes, session.classes) == (2, ("cat", "dog"))
    session.assign([0, 1, 2, 3])
    session.tell([0, 1], ["dog", "cat"])
    session.tell([2], [1])
    with pytest.raises(
        ValueError, match=r"labels\[0\]: 'cow' is no class; pass one of cat, dog, or"
    ):
        session.tell([3], ["cow"])
    with pytest.raises(ValueError, match=r"classes\[1\]: 'dog' is there twice"):
        session.add_classes(["cow", "dog"])
    with pytest.raises(ValueError, match="classes: 2 is no list of names"):
        session.add_classes(2)
    session.add_classes(["cow"])
    session.tell([3], np.array(["cow"]))
    session.correct(0, "cat")
    assert session.labelled.labels.tolist() == [0, 0, 1, 2]
    assert (session.num_classes, session.classes) == (3, ("cat", "dog", "cow"))


def test_classes_without_names_are_added_by_number(session: Session):
    with pytest.raises(ValueError, match="have no names; pass how many"):
        session.add_classes(["cow"])
    session.add_classes(2)
    assert (session.num_classes, session.classes) == (5, None)
    session.import_labels([0], [4])
    with pytest.raises(ValueError, match="classes: 0"):
        session.add_classes(0)


def test_points_are_added_behind_the_others(session: Session):
    assert session.add_points(3).tolist() == [20, 21, 22]
    assert session.num_points == 23
    assert session.assign([22]).tolist() == [22]
    assert session.ask(None, 30, "random").size == 22
    with pytest.raises(ValueError, match="ids: either all points have names or none; leave out"):
        session.add_points(ids=["x"])

    named = Session(ids=["a", "b"], num_classes=2)
    assert named.add_points(ids=["d", "c"]).tolist() == [2, 3]
    assert named.ids.tolist() == ["a", "b", "d", "c"]
    assert named.indices_of(["c", "a"]).tolist() == [3, 0]
    for ids, message in (
        (None, "num_points: None"),
        (["e", "a"], r"ids\[1\]: 'a' is there already"),
        ([7], "ids: the others are str, such as 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            named.add_points(ids=ids)
    with pytest.raises(ValueError, match="either all points have names or none; give ids"):
        named.add_points(2)
    assert named.num_points == 4


def test_events_of_others_are_kept_and_change_nothing(session: Session):
    session.assign([1])
    before = (session.pending.tolist(), session.labelled.indices.tolist())
    extra = {"probability": 0.25, "model": 3, "kind": "x", "point": [1, None, "ü"]}
    number = session.record("audit_draw", 5, extra, annotator="ann")
    session.record("audit_label", 5, label=2)
    session.record("note")
    (event,) = session.events("audit_draw")
    assert (event.id, event.index, event.extra, event.annotator) == (number, 5, extra, "ann")
    assert abs(event.time - time.time()) < 3600
    assert [event.label for event in session.events(index=5)] == [None, 2]
    assert [event.kind for event in session.events(after=number)] == ["audit_label", "note"]
    assert (session.pending.tolist(), session.labelled.indices.tolist()) == before
    assert 5 in session.ask(None, N, "random")  # no less a point to be chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "tell"}, "kind: 'tell' is one of the session's own"),
        ({"kind": "Audit"}, "small letters"),
        ({"index": 20}, r"index\[0\]: 20 is no point"),
        ({"index": 1, "label": 3}, r"labels\[0\]: 3, of point 1, is no class"),
        ({"extra": {"x": np.float32(1)}}, "extra: .*float32.*; pass what JSON can hold"),
        ({"extra": {"x": float("nan")}}, "extra: Out of range"),
    ],
)
def test_events_of_others_are_checked(session: Session, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        session.record(**{"kind": "note", **arguments})
    assert len(session.history) == 1
