"""Who gets what: overlap, what comes back, undo across kinds, and what is remembered."""

import time

import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.labelling.page.desk import ConflictError, Desk
from bbald_jax.labelling.page.handing import IN_HAND
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.notes import Notes


def make_desk(num_points: int = 30, **settings: float) -> Desk:
    session = bb.Session(num_points, classes=["cat", "dog"])
    return Desk(session, Learning(session, lambda: np.zeros((0, 0))), **settings)


def test_people_have_different_items_and_a_restart_keeps_them():
    desk = make_desk()
    anna, ben = desk.in_hand("anna"), desk.in_hand("ben")
    assert len(anna) == len(ben) == IN_HAND
    assert not set(anna) & set(ben)
    again = Desk(desk.session, desk.learning)
    assert again.in_hand("anna") == anna


def test_the_plan_is_handed_out_in_its_order():
    desk = make_desk()
    desk.learning._plan = [7, 3, 9, 20]
    assert desk.in_hand("anna") == [7, 3, 9]
    events = list(desk.session.events("ask"))
    assert {event.extra["acquisition"] for event in events} == {FOR_THE_HEAD}
    assert desk.in_hand("ben")[0] == 20


def test_everything_is_handed_out_and_then_nothing():
    desk = make_desk(5)
    seen = []
    while held := desk.in_hand("anna"):
        seen.append(held[0])
        desk.answer("anna", held[0], 0)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_what_is_in_hand_for_long_goes_to_others(monkeypatch: pytest.MonkeyPatch):
    desk = make_desk(3, timeout=60.0)
    held = desk.in_hand("anna")
    assert desk.in_hand("ben") == []
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert sorted(desk.in_hand("ben")) == sorted(held)
    desk.answer("anna", held[0], 1)  # who comes back is heard nevertheless
    desk.answer("ben", held[0], 0)
    assert len(desk.session.answers) == 2


def test_a_share_is_labelled_twice_and_disagreements_are_listed():
    desk = make_desk(40, overlap=0.5)
    for _ in range(20):
        desk.answer("anna", desk.in_hand("anna")[0], 0)
    for_two = {point for point in desk.session.labelled.indices.tolist() if desk._is_for_two(point)}
    assert 4 <= len(for_two) <= 16
    while desk._second_opinions("ben", 1):
        pass
    held = {answer.point for answer in desk.session.in_hand if answer.annotator == "ben"}
    assert held == for_two
    for point in held:
        desk.answer("ben", point, 1)
    assert len(desk.session.disagreements) == len(for_two)
    assert desk._second_opinions("cleo", 5) == []


def test_unsure_goes_to_somebody_else_and_not_back():
    desk = make_desk(3)
    first = desk.in_hand("anna")[0]
    desk.unsure("anna", first)
    assert first not in desk.in_hand("anna")
    assert desk.in_hand("ben") == [first]
    desk.answer("ben", first, 1)
    assert not Notes(desk.session).unsure


def test_undo_takes_back_whatever_was_last():
    desk = make_desk()
    one, two, three = desk.in_hand("anna")
    desk.answer("anna", one, 0)
    desk.unsure("anna", two)
    desk.skip("anna", three)
    assert [desk.undo("anna") for _ in range(3)] == [three, two, one]
    with pytest.raises(ConflictError, match="nothing to undo"):
        desk.undo("anna")
    assert {one, two, three} <= set(desk.in_hand("anna"))
    desk.notes.follow()
    assert not desk.notes.unsure
    assert not len(desk.session.labelled.indices)


def test_an_unsure_item_can_be_labelled_from_the_review_and_that_be_undone():
    desk = make_desk()
    point = desk.in_hand("anna")[0]
    desk.unsure("anna", point)
    desk.correct("anna", point, 1)
    assert desk.session.labelled.labels.tolist() == [1]
    desk.correct("ben", point, 0)
    assert desk.session.labelled.labels.tolist() == [0]
    desk.undo("ben")
    assert desk.session.labelled.labels.tolist() == [1]


def test_a_class_that_is_added_can_be_told():
    desk = make_desk()
    desk.add_class("bird")
    desk.answer("anna", desk.in_hand("anna")[0], 2)
    assert desk.session.classes == ("cat", "dog", "bird")
    with pytest.raises(ValueError, match="there twice"):
        desk.add_class("bird")
