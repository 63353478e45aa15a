"""The tasks of a project as this process knows them, kept up to what the server has."""

from collections.abc import Mapping
from typing import Any

from bbald_jax.labelling.label_studio.client import LabelStudio
from bbald_jax.labelling.label_studio.tasks import Task, read_task

_COUNTS = ("task_number", "total_annotations_number", "skipped_annotations_number")


class Mirror:
    """What `look` has seen, and what was imported since."""

    def __init__(self, client: LabelStudio, project: int, key: str, num_points: int) -> None:
        """Nothing is called yet.

        Args:
          client: the server.
          project: its number there.
          key: of the session, which its tasks bear.
          num_points: N; a task of another point is none of the session's.
        """
        self._client, self._project, self._key, self._num = client, project, key, num_points
        self._tasks: dict[int, Task] = {}
        self._by_point: dict[int, list[Task]] = {}
        # The next list has what has changed since then; None: everything.
        self._since: float | None = None
        self._counts: tuple[int, ...] = ()
        self._counts_known: tuple[int, ...] = ()

    def look(self) -> list[int]:
        """Call the server; the points whose tasks are new, or have changed, lately or ever.

        Raises:
          ServerAwayError: there is no answer; call `forget`, then look again.
          ValueError: it refuses.
        """
        is_all = self._since is None
        listed, self._since = self._client.tasks(self._project, self._since)
        tasks = {each["id"]: read_task(each, self._key, self._num) for each in listed}
        self._tasks = tasks if is_all else {**self._tasks, **tasks}
        self._sort()
        self._compare_counts(is_all)
        points = [task.point for task in tasks.values() if task.point is not None]
        return list(dict.fromkeys(points))

    def forget(self) -> None:
        """Have everything listed at the next look: what became of a call is not known."""
        self._since = None

    def add(self, points: Mapping[int, int]) -> None:
        """Tasks that were imported just now: their numbers, and their points."""
        for number, point in points.items():
            self._tasks[number] = Task(number, point, [], False)
        self._sort()

    def remove_copies(self) -> None:
        """Delete second tasks of a point, which come from an import whose answer was late."""
        for tasks in [*self._by_point.values()]:
            keep = next((task for task in tasks if task.is_touched), tasks[0])
            for task in tasks:
                if task is not keep and not task.is_touched:
                    self._client.delete_task(task.number)
                    del self._tasks[task.number]
        self._sort()

    def has(self, point: int) -> bool:
        """Whether a point has a task."""
        return point in self._by_point

    def annotations(self, point: int) -> list[dict[str, Any]]:
        """What the tasks of a point have, as the server tells it."""
        return [each for task in self._by_point.get(point, []) for each in task.annotations]

    @property
    def num_open(self) -> int:
        """How many points have a task that nobody has answered."""
        return sum(not self.annotations(point) for point in self._by_point)

    def _sort(self) -> None:
        self._by_point = {}
        for _, task in sorted(self._tasks.items()):
            if task.point is not None:
                self._by_point.setdefault(task.point, []).append(task)

    def _compare_counts(self, is_all: bool) -> None:
        """Have everything listed next, where the project's counts say that something was missed.

        Deleted tasks are in no list of changes. People answer meanwhile, so only counts that are
        the same twice tell anything; and once each.
        """
        project = self._client.project(self._project)
        skips = sum(task.num_skipped for task in self._tasks.values())
        answers = sum(len(task.annotations) for task in self._tasks.values()) - skips
        ours = (len(self._tasks), answers, skips)
        theirs = tuple(project.get(name) or 0 for name in _COUNTS)
        if is_all:
            self._counts_known = theirs
        elif ours != theirs and theirs == self._counts and theirs != self._counts_known:
            self._since = None
        self._counts = theirs
