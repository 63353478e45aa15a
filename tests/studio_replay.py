"""A Label Studio in memory: the answers that a real one gave (`studio_server`), about other tasks.

Every answer is a recorded one in which only ids, times and what was sent are put in their places.
"""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx

RECORDED = json.loads(Path(__file__).with_name("studio_answers.json").read_text())
TOKEN = "0123456789abcdef0123456789abcdef01234567"
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class Killed(BaseException):
    """The process ends here."""


class Replay(httpx.MockTransport):
    """The server; the tests are its people.

    Attributes:
      calls: what was called, in order.
      fault: called with each request's number, and whether it has been done yet; what it raises is
        what the client meets, what it returns is the answer.
      tasks: by id.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.calls: list[str] = []
        self.fault: Callable[[int, bool], httpx.Response | None] = lambda number, is_done: None
        self.projects: list[dict[str, Any]] = []
        self.tasks: dict[int, dict[str, Any]] = {}
        self.late: list[httpx.Request] = []
        self.now = 1_800_000_000.0
        self._last_id = 0

    def label(self, task: int, choice: str | list[str], who: int | dict = 1) -> dict[str, Any]:
        """Somebody answers; what they said is returned, and may be changed by `edit`."""
        annotation = copy.deepcopy(RECORDED["tasks"]["body"]["tasks"][0]["annotations"][0])
        annotation["result"][0]["value"]["choices"] = (
            [choice] if isinstance(choice, str) else choice
        )
        return self._annotate(task, annotation, who)

    def skip(self, task: int, who: int = 1) -> dict[str, Any]:
        """Somebody skips."""
        annotation = copy.deepcopy(RECORDED["tasks"]["body"]["tasks"][1]["annotations"][0])
        return self._annotate(task, annotation, who)

    def edit(self, task: int, annotation: dict[str, Any], choice: str) -> None:
        """Somebody changes their answer."""
        annotation["result"][0]["value"]["choices"] = [choice]
        annotation["updated_at"] = self._touch(task)

    def remove(self, task: int, annotation: dict[str, Any]) -> None:
        """Somebody deletes an answer."""
        self.tasks[task]["annotations"].remove(annotation)
        self._touch(task)

    def of(self, point: int) -> list[int]:
        """The tasks of a point."""
        return [number for number, task in self.tasks.items() if task["meta"]["bbald"] == point]

    def _annotate(self, task: int, annotation: dict, who: int | dict) -> dict[str, Any]:
        self._last_id += 1
        annotation |= {"id": self._last_id, "completed_by": who, "updated_at": self._touch(task)}
        self.tasks[task]["annotations"].append(annotation)
        return annotation

    def _touch(self, task: int) -> str:
        self.now += 1
        self.tasks[task]["updated_at"] = datetime.fromtimestamp(self.now, UTC).strftime(_FORMAT)
        return self.tasks[task]["updated_at"]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        number = len(self.calls)
        self.calls.append(f"{request.method} {request.url.path}")
        if (response := self.fault(number, False)) is not None:
            return response
        response = self._do(request)
        response.headers["Date"] = format_datetime(datetime.fromtimestamp(self.now, UTC), True)
        return self.fault(number, True) or response

    def _do(self, request: httpx.Request) -> httpx.Response:
        path, method, query = request.url.path, request.method, request.url.params
        if path == "/api/token/refresh":
            is_right = json.loads(request.content)["refresh"] == "my.personal.token"
            return _recorded("personal token" if is_right else "wrong personal token")
        access = f"Bearer {RECORDED['personal token']['body']['access']}"
        if request.headers["authorization"] not in (f"Token {TOKEN}", access):
            return _recorded("wrong token")
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["projects"]:
                response = RECORDED["projects"]["body"] | {"count": len(self.projects)}
                return _json(200, response | {"results": self.projects})
            case "POST", ["projects"]:
                return self._create(json.loads(request.content))
            case "GET", ["projects", number]:
                return self._project(int(number))
            case "POST", ["projects", number, "import"]:
                return self._import(int(number), json.loads(request.content))
            case "GET", ["tasks"]:
                return self._list(query)
            case "DELETE", ["tasks", number]:
                is_there = self.tasks.pop(int(number), None) is not None
                return _recorded("delete" if is_there else "delete again")
        raise AssertionError(f"nobody recorded {method} {path}")

    def _create(self, settings: dict[str, Any]) -> httpx.Response:
        if len(settings["title"]) < 3:
            return _recorded("short title")
        project = copy.deepcopy(RECORDED["create"]["body"]) | settings
        project["id"] = len(self.projects) + 1
        self.projects.append(project)
        return _json(201, project)

    def _project(self, number: int) -> httpx.Response:
        if not 1 <= number <= len(self.projects):
            return _recorded("no project")
        annotations = [each for task in self.tasks.values() for each in task["annotations"]]
        skips = sum(each["was_cancelled"] for each in annotations)
        counts = {"task_number": len(self.tasks), "skipped_annotations_number": skips}
        counts["total_annotations_number"] = len(annotations) - skips
        return _json(200, RECORDED["project"]["body"] | self.projects[number - 1] | counts)

    def _import(self, number: int, given: list[dict[str, Any]]) -> httpx.Response:
        numbers = []
        for task in given:
            self._last_id += 1
            numbers.append(self._last_id)
            new = copy.deepcopy(RECORDED["tasks"]["body"]["tasks"][0])
            new |= {"id": self._last_id, "annotations": [], "drafts": [], "meta": task["meta"]}
            self.tasks[self._last_id] = new | {"sent": task["data"]}
            self._touch(self._last_id)
        answer = RECORDED["import"]["body"] | {"task_count": len(given), "task_ids": numbers}
        return _json(201, answer)

    def _list(self, query: httpx.QueryParams) -> httpx.Response:
        if int(query["project"]) > len(self.projects):
            return _recorded("no project")
        found = sorted(self.tasks.values(), key=lambda task: task["id"])
        asked = json.loads(query["query"])
        assert asked["ordering"] == ["tasks:id"]
        for item in asked["filters"]["items"]:
            assert item["operator"] == "greater"
            field, value = item["filter"].rpartition(":")[2], item["value"]
            if field == "updated_at":
                datetime.strptime(value, _FORMAT)  # a real one answers 500 to any other form
            found = [task for task in found if task[field] > value]
        if query.get("page", "1") != "1":
            return _recorded("tasks past the end")
        if not found:
            return _recorded("no tasks")
        page = [
            {name: value for name, value in task.items() if name != "sent"}
            for task in found[: int(query["page_size"])]
        ]
        return _json(200, RECORDED["tasks"]["body"] | {"total": len(found), "tasks": page})


def _recorded(name: str) -> httpx.Response:
    recorded = RECORDED[name]
    if recorded["body"] is None:
        return httpx.Response(recorded["status"])
    return _json(recorded["status"], recorded["body"])


def _json(status: int, body: Any) -> httpx.Response:
    return httpx.Response(status, json=copy.deepcopy(body))
