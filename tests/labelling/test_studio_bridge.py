"""Rounds against recorded answers: what is asked is imported once, what people do comes back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

pytest.importorskip("httpx", reason="needs the extra label-studio")
import httpx
from studio_replay import TOKEN, Killed, Replay

from bbald_jax.cli import label_studio_command as command
from bbald_jax.cli.console import Refused
from bbald_jax.labelling.label_studio import bridge as rounds
from bbald_jax.labelling.label_studio.bridge import Bridge, Project
from bbald_jax.labelling.label_studio.client import LabelStudio, ServerAwayError
from bbald_jax.labelling.label_studio.control import Control
from bbald_jax.labelling.page.items import ImageFolder, Texts
from bbald_jax.labelling.page.learning import Learning, Model
from bbald_jax.labelling.page.results import rows_of

N, QUEUE = 9, 4
# Of the data where a run is ended at each of its calls.
FEW = 6
CLASSES = ["cat", "dog"]


class Planned(Learning):
    """Always has a plan, the points from the last to the first, and learns nothing."""

    def start(self) -> None:
        self.stage = "learning"

    def wait_until_idle(self, timeout: float) -> bool:
        return True

    def take(self, number: int) -> list[int]:
        left = set(range(self._session.num_points)) - {
            *self._session.labelled.indices,
            *self._session.pending,
        }
        return sorted(left - {*self._session.skipped.tolist()}, reverse=True)[:number]


class Studio:
    """A session in memory, a project on a server with recorded answers, and rounds between them."""

    def __init__(self, session: bb.Session | None = None) -> None:
        self.server, self.said = Replay(), []
        self.session = session or bb.Session(N, classes=CLASSES)
        self.client = LabelStudio("http://127.0.0.1:8080", TOKEN, transport=self.server)
        self.client.create_project({"title": "Cats", "label_config": "<View/>"})
        self.begin()

    def begin(self) -> None:
        """Another process."""
        learning = Planned(self.session, lambda: np.zeros((0, 0)))
        learning.start()
        project = Project(1, Control("class", tuple(CLASSES), "Text", "text"), "key")
        items = Texts([f"text {i}" for i in range(N)])
        more: dict[str, Any] = {"queue": QUEUE, "say": self.said.append}
        self.bridge = Bridge(self.session, learning, items, self.client, project, **more)

    def round(self) -> bool:
        self.server.now += 20
        return self.bridge.round()

    def tasks(self) -> list[int]:
        """The points of the tasks, in the order in which people get them."""
        return [task["meta"]["bbald"] for _, task in sorted(self.server.tasks.items())]


def test_what_is_asked_is_imported_in_order_and_more_before_the_queue_is_empty():
    studio = Studio()
    assert studio.round()
    assert studio.tasks() == [8, 7, 6, 5]
    assert studio.server.tasks[1]["sent"] == {"item": "8", "text": "text 8"}
    assert sorted(studio.session.pending) == [5, 6, 7, 8]
    studio.server.label(1, "dog")
    studio.round()
    assert studio.tasks() == [8, 7, 6, 5], "three of four are left"
    studio.server.label(2, "cat")
    studio.server.skip(3)
    studio.round()
    assert dict(zip(*studio.session.labelled, strict=True)) == {7: 0, 8: 1}
    assert studio.session.skipped.tolist() == [6]
    assert studio.tasks() == [8, 7, 6, 5, 4, 3, 2]
    assert [answer.annotator for answer in studio.session.answers] == ["label-studio/1"] * 2
    assert studio.bridge.progress() == "2 labels, 1 skipped, 4 in the queue"
    imports = [call for call in studio.server.calls if call.endswith("import")]
    assert len(imports) == 2
    assert not [call for call in studio.server.calls if "next" in call], "that would lock a task"


def test_while_nothing_is_planned_yet_people_who_label_get_random_items(
    monkeypatch: pytest.MonkeyPatch,
):
    studio = Studio()
    studio.round()
    for number in (1, 2):
        studio.server.label(number, "dog")
    studio.begin()
    monkeypatch.setattr(Planned, "wait_until_idle", lambda *_: False)
    monkeypatch.setattr(Planned, "take", lambda *_: [])
    studio.round()
    studio.round()
    assert len(studio.tasks()) == QUEUE, "what was said before does not say that anybody is there"
    studio.server.label(3, "dog")
    studio.round()
    assert len(studio.tasks()) == QUEUE + 1, "half of the queue, of which one is left"
    last = list(studio.session.events("ask"))[-1]
    assert last.extra["acquisition"] == "random"


def test_changes_deletions_and_second_opinions_come_back():
    studio = Studio()
    studio.round()
    one, two = studio.server.label(1, "dog"), studio.server.label(2, "cat", {"id": 1})
    studio.server.label(1, "cat", 2)
    studio.round()
    assert {a.annotator: a.label for a in studio.session.answers if a.point == 8} == {
        "label-studio/1": 1,
        "label-studio/2": 0,
    }
    assert studio.session.disagreements[0].point == 8
    studio.server.edit(1, one, "cat")
    studio.server.remove(2, two)
    studio.round()
    assert studio.session.labelled == ([8], [0])
    assert sorted(studio.session.pending) == [3, 4, 5, 6, 7], "asked again, and in its old task"
    assert not [answer for answer in studio.session.in_hand if answer.annotator]
    studio.server.skip(2, 3)
    studio.round()
    assert studio.session.skipped.tolist() == [7]
    studio.server.label(2, "dog", 2)
    studio.round()
    assert dict(zip(*studio.session.labelled, strict=True)) == {7: 1, 8: 0}
    assert len(studio.tasks()) == len(set(studio.tasks()))


def test_a_task_that_is_deleted_is_asked_again_and_a_label_stays():
    studio = Studio()
    studio.round()
    studio.server.label(1, "dog")
    studio.round()
    del studio.server.tasks[1], studio.server.tasks[2]
    for _ in range(3):  # its absence is no change: the counts of the project show it
        studio.round()
    assert studio.session.labelled == ([8], [1])
    assert studio.tasks() == [6, 5, 7, *studio.tasks()[3:]]
    assert 8 not in studio.tasks()
    calls = len(studio.server.calls)
    studio.round()
    assert len(studio.server.calls) == calls + 2, "it looks for more and more"


def test_tasks_of_others_are_left_alone():
    studio = Studio()
    foreign = [{"data": {"text": "theirs"}, "meta": {}}]
    foreign += [{"data": {"text": "old"}, "meta": {"bbald": 8, "session": "another"}}]
    studio.client.import_tasks(1, foreign)
    studio.server.label(1, "dog")
    studio.server.label(2, "dog")
    for _ in range(3):
        studio.round()
    assert len(studio.server.tasks) == 2 + QUEUE
    assert not len(studio.session.labelled.labels)


def test_what_is_no_class_is_said_once_and_waits():
    studio = Studio()
    studio.round()
    studio.server.label(1, "bird")
    for _ in range(3):
        studio.round()
    (line,) = studio.said
    assert line.startswith("item 8, annotation 5: 'bird' is no class of the session")
    assert 8 in studio.session.pending


def test_an_import_whose_answer_was_lost_and_came_later_leaves_no_copies():
    studio = Studio()
    late = []

    def lose(number: int, is_done: bool) -> httpx.Response | None:
        if studio.server.calls[number].endswith("import") and not is_done:
            raise httpx.ReadTimeout("slow")
        return None

    studio.server.fault = lose
    with pytest.raises(ServerAwayError):
        studio.round()
    late = studio.session.pending.tolist()
    studio.begin()
    studio.server.fault = lambda *_: None
    studio.round()
    assert sorted(studio.tasks()) == late
    studio.server.label(2, "cat")
    again = [{"data": {}, "meta": {"bbald": p, "session": "key"}} for p in late]
    studio.client.import_tasks(1, again)  # now the server does what it was asked at first
    studio.server.label(studio.server.of(8)[1], "dog")  # and somebody is faster than the round
    studio.round()
    assert sorted(studio.tasks())[-4:] == late
    assert dict(zip(*studio.session.labelled, strict=True)) == {7: 0, 8: 1}


def test_an_image_that_cannot_be_shown_is_skipped(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"no image")
    studio = Studio()
    studio.bridge._items = ImageFolder(tmp_path, ["a.png"] * N)
    studio.round()
    assert sorted(studio.session.skipped) == [5, 6, 7, 8]
    assert "item 8 cannot be shown, and is skipped: " in studio.said[0]


def test_what_the_model_said_is_noted_just_before_the_label():
    studio = Studio()
    studio.bridge.learning.model = Model(3, np.full((N, 2), [0.2, 0.8]))
    studio.round()
    studio.server.label(1, "cat")
    studio.round()
    (row,) = rows_of(studio.session, None)
    assert (row["label"], row["probability"]) == ("cat", 0.2)


def test_drawn_items_measure_and_are_not_trained_on():
    studio = Studio()
    audit = bb.SessionAudit(studio.session)
    audit.add_model(np.full((N, 2), [0.2, 0.8]))
    studio.round()
    points = studio.bridge.notes.audit.points
    assert len(points) == QUEUE // 2
    assert {*studio.tasks()} == {*points, *studio.session.pending}
    assert len(studio.server.tasks) == QUEUE
    one, two = (studio.server.of(point)[0] for point in points)
    said = studio.server.label(one, "dog")
    studio.server.skip(two)
    studio.round()
    assert not len(studio.session.labelled.labels)
    answers = studio.bridge.notes.audit.answers
    assert {p: answers[p].label for p in points[:2]} == {points[0]: 1, points[1]: -1}
    assert audit.estimate().num_audited == 2
    studio.server.edit(one, said, "cat")
    studio.begin()
    studio.round()
    assert studio.bridge.notes.audit.answers[points[0]].label == 0
    studio.server.remove(one, said)
    studio.round()
    assert points[0] not in studio.bridge.notes.audit.answers
    assert studio.server.of(points[0]) == [one], "it waits for another answer"
    studio.server.label(one, "dog", 2)
    studio.round()
    assert studio.bridge.notes.audit.answers[points[0]].annotator == "label-studio/2"


def no_answer() -> None:
    raise httpx.ReadTimeout("slow")


def error_500() -> httpx.Response:
    return httpx.Response(500, json={"detail": "broken"})


def kill() -> None:
    raise Killed


# To be killed before a call is to be killed after the one before it.
@pytest.mark.parametrize(
    ("trouble", "is_done"), [(kill, True), (error_500, False), (no_answer, True)]
)
def test_ended_at_any_call_nothing_is_twice_and_nothing_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[], httpx.Response | None],
    is_done: bool,
):
    np.save(tmp_path / "rows.npy", np.zeros((FEW, 2)))
    items = Texts([f"text {i}" for i in range(FEW)])
    monkeypatch.setattr(command, "Learning", Planned)
    monkeypatch.setattr(command, "_say", lambda _: None)

    def run(server: Replay, session: bb.Session) -> None:
        """The command, and people who answer two tasks whenever it waits."""

        def people(_: float) -> None:
            assert len(server.calls) < 200, "it never comes to its end"
            left = [n for n, task in sorted(server.tasks.items()) if not task["annotations"]]
            for number in left[:2]:
                point = server.tasks[number]["meta"]["bbald"]
                server.skip(number) if point == 2 else server.label(number, CLASSES[point % 2])
            server.now += 20  # longer ago than what is listed twice in any case

        monkeypatch.setattr(rounds.time, "sleep", people)
        monkeypatch.setattr(
            command, "LabelStudio", lambda *given: LabelStudio(*given, transport=server)
        )
        # What is on the disk when a method returns is in memory here, which takes less time.
        monkeypatch.setattr(command, "open_session", lambda *_: (session, items, 0))
        command.label_studio(
            tmp_path / "data.csv", "http://a", None, "Cats", TOKEN, "cat,dog", None, None, None,
            str(tmp_path / "rows.npy"), QUEUE, 1.0, False, None, 0,
        )  # fmt: skip

    def check(server: Replay, session: bb.Session) -> None:
        assert len(server.projects) == 1
        points = [task["meta"]["bbald"] for _, task in sorted(server.tasks.items())]
        assert sorted(points) == list(range(FEW)), "imported twice, or lost"
        assert [event.index for event in session.events("ask")] == points
        labels = dict(zip(*session.labelled, strict=True))
        assert labels == {point: point % 2 for point in range(FEW) if point != 2}
        assert session.skipped.tolist() == [2]

    server, session = Replay(), bb.Session(FEW, classes=CLASSES)
    run(server, session)
    check(server, session)
    num_calls = len(server.calls)
    assert num_calls > 10
    for place in range(num_calls):
        server, session = Replay(), bb.Session(FEW, classes=CLASSES)

        def fault(number: int, done: bool, place: int = place) -> httpx.Response | None:
            return trouble() if (number, done) == (place, is_done) else None

        server.fault = fault
        try:
            run(server, session)
        except (Killed, Refused):
            assert len(server.calls) == place + 1
            run(server, session)
        check(server, session)
