"""What people say in Label Studio, read, and a session brought up to it step by step."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.labelling.events import Opinion
from bbald_jax.pool import LABELLED, PENDING, SKIPPED

pytest.importorskip("httpx", reason="needs the extra label-studio")
from studio_replay import RECORDED

from bbald_jax.labelling.label_studio.answers import Step, next_step, take
from bbald_jax.labelling.label_studio.tasks import (
    annotator,
    enlarged,
    make_task,
    read_answers,
    read_task,
)
from bbald_jax.labelling.page.items import ImageArray, Texts

CLASSES = {"cat": 0, "dog": 1}
Said = dict[str | None, Opinion]
ONE, TWO, THREE = "label-studio/1", "label-studio/2", "label-studio/3"


def test_recorded_tasks_are_read_with_few_fields_and_with_all():
    for name in ("tasks", "tasks with all fields"):
        read = [read_task(each, "key", 3) for each in RECORDED[name]["body"]["tasks"]]
        assert [task.point for task in read] == [2, 0]
        assert [task.num_skipped for task in read] == [0, 1]
        assert all(task.is_touched for task in read)
        answers = [read_answers(task.annotations, "class", CLASSES) for task in read]
        assert [each.labels for each in answers] == [{ONE: 1}, {ONE: None}]
    assert read_task(RECORDED["one task"]["body"], "key", 3).point == 2
    alone = RECORDED["one task"]["body"]["annotations"][0]["completed_by"]
    assert isinstance(alone, dict)
    assert annotator(alone) == annotator(1) == ONE
    assert annotator(None) == "label-studio/unknown"


def test_tasks_of_other_sessions_and_other_people_are_not_ours():
    task = RECORDED["tasks"]["body"]["tasks"][0]
    assert read_task(task, "another", 3).point is None
    assert read_task(task, "key", 2).point is None
    for meta in (None, {}, [], {"session": "key"}, {"bbald": "0", "session": "key"}):
        assert read_task({**task, "meta": meta}, "key", 3).point is None


def said(number: int, choice: str | None, who: int = 1, at: str = "1") -> dict:
    annotation = copy.deepcopy(RECORDED["tasks"]["body"]["tasks"][0]["annotations"][0])
    annotation["result"][0]["value"]["choices"] = [choice]
    empty = {"result": []} if choice is None else {}
    return annotation | {"id": number, "completed_by": who, "updated_at": at} | empty


def test_of_several_answers_of_a_person_the_last_label_holds():
    read = read_answers([said(3, "dog", at="2"), said(1, "cat", at="3")], "class", CLASSES)
    assert read == ({ONE: 0}, [])
    skipped = said(4, None, at="9") | {"was_cancelled": True}
    assert read_answers([said(3, "dog"), skipped], "class", CLASSES).labels == {ONE: 1}
    assert read_answers([said(3, None)], "class", CLASSES).labels == {ONE: None}
    assert read_answers([said(1, "dog"), said(2, "cat", 2)], "class", CLASSES).labels == {
        ONE: 1,
        TWO: 0,
    }
    # Another control of the same interface says nothing of the class.
    assert read_answers([said(1, "dog")], "mood", CLASSES).labels == {ONE: None}


def test_what_is_no_class_is_said_and_no_answer():
    two = said(2, "cat", 2)
    two["result"][0]["value"]["choices"] = ["cat", "dog"]
    labels, lines = read_answers([said(1, "bird"), two], "class", CLASSES)
    assert labels == {}
    assert "'bird' is no class of the session; end this, and begin again with" in lines[0]
    assert lines[1] == "annotation 2: 2 classes at once"


def test_one_step_leads_to_another():
    held: Said = {None: Opinion(PENDING, None, "ask")}
    assert next_step({}, {}) == Step("hold")
    assert next_step({}, held) is None
    assert next_step({ONE: 1}, held) == Step("tell", ONE, 1)
    assert next_step({ONE: None}, held) == Step("skip", ONE)
    mine: Said = {ONE: Opinion(LABELLED, 1, "tell")}
    assert next_step({ONE: 1}, mine) is None
    assert next_step({ONE: 0}, mine) == Step("correct", ONE, 0)
    assert next_step({ONE: None}, mine) == Step("undo", ONE)
    assert next_step({}, mine) == Step("undo", ONE)
    undone: Said = {ONE: Opinion(PENDING, None, "undo")}
    assert next_step({}, undone) == Step("release", ONE)
    assert next_step({ONE: 1, TWO: 0}, mine) == Step("assign", TWO)
    imported: Said = {ONE: Opinion(LABELLED, 1, "import")}
    assert next_step({}, imported) is None
    on_the_page: Said = {"anna": Opinion(LABELLED, 1, "tell")}
    assert next_step({}, on_the_page) is None


def test_whatever_people_do_the_session_comes_to_say_the_same():
    rng = np.random.default_rng(0)
    for _ in range(20):
        session = bb.Session(1, classes=["cat", "dog"])
        for _ in range(4):
            people = [ONE, TWO, THREE][: rng.integers(0, 4)]
            labels = {who: (0, 1, None)[rng.integers(3)] for who in people}
            if rng.random() < 0.1:
                session.assign([0], annotator="anna", overlap=True)
            num_steps = 0
            while (step := next_step(labels, session.opinions(0))) is not None:
                take(session, 0, step)
                num_steps += 1
                assert num_steps < 30, (labels, session.opinions(0))
            there = session.opinions(0)
            for who, label in labels.items():
                if label is None:  # of several skips one is enough
                    assert who not in there or there[who].status == SKIPPED
                else:
                    assert there[who][:2] == (LABELLED, label)
            if None in labels.values():
                skipped = [each for each in there.values() if each.status == SKIPPED]
                assert skipped or len(session.labelled.labels)
            assert not {ONE, TWO, THREE} & ({*there} - {*labels})
            if not labels and "anna" not in there:
                assert there == {None: Opinion(PENDING, None, "ask")}
        session.close()


def test_somebody_labels_what_another_person_on_the_page_has_skipped():
    session = bb.Session(1, classes=["cat", "dog"])
    session.assign([0], annotator="anna")
    session.skip([0], annotator="anna")
    step = next_step({ONE: 1}, session.opinions(0))
    assert step == Step("import", ONE, 1)
    take(session, 0, Step("import", ONE, 1))
    assert session.labelled.labels.tolist() == [1]
    assert next_step({ONE: 1}, session.opinions(0)) is None


def test_small_images_are_enlarged_pixel_by_pixel():
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(28 * 28).reshape(1, 28, 28).astype(np.uint8)
    items = ImageArray(pixels)
    content, media_type = enlarged(items.picture(0))
    assert media_type == "image/png"
    large = np.asarray(image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(large, pixels[0].repeat(10, axis=0).repeat(10, axis=1))
    big = ImageArray(np.zeros((1, 150, 20), np.uint8)).picture(0)
    assert enlarged(big) == big
    task = make_task(items, 0, "photo", "key")
    assert task["data"]["photo"].startswith("data:image/png;base64,iVBOR")
    assert task["meta"] == {"bbald": 0, "session": "key"}


def test_a_text_is_imported_as_it_is(tmp_path: Path):
    task = make_task(Texts(["<b>a</b>", "lone \udcff"]), 0, "text", "key")
    assert task["data"] == {"item": "0", "text": "<b>a</b>"}
    assert make_task(Texts(["lone \udcff"]), 0, "text", "key")["data"]["text"] == "lone ?"
