"""One round after the other: what people said there goes to the session, what it asks goes there.

Everything is in the session and on the server: a round that was ended anywhere, or whose call
failed, is made up for by the next one, in this process or another.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from bbald_jax.labelling import audit_log
from bbald_jax.labelling.draws import NOBODY_KNOWS
from bbald_jax.labelling.label_studio.answers import next_step, take
from bbald_jax.labelling.label_studio.client import LabelStudio, ServerAwayError
from bbald_jax.labelling.label_studio.control import Control
from bbald_jax.labelling.label_studio.mirror import Mirror
from bbald_jax.labelling.label_studio.tasks import ANNOTATOR, Label, make_task, read_answers
from bbald_jax.labelling.page.handing import Handing
from bbald_jax.labelling.page.items import Items
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.notes import TAKE_BACK
from bbald_jax.labelling.session import Session
from bbald_jax.pool import PENDING

#: Characters of tasks in one import; a server takes up to 250 MB.
_IMPORTED_AT_ONCE = 20_000_000
# Seconds between attempts while the server is away, at most.
_LONGEST_PAUSE = 60.0
# Seconds to wait for a plan that knows the last answers, while people have something to do.
_PATIENCE = 5.0


class Project(NamedTuple):
    """The project that people label in.

    Attributes:
      number: its id.
      control: its `<Choices>`.
      key: of the session, which its tasks bear.
    """

    number: int
    control: Control
    key: str


class Bridge(Handing):
    """Between a session and a project; what is out there, nobody in particular has in hand."""

    def __init__(
        self,
        session: Session,
        learning: Learning,
        items: Items,
        client: LabelStudio,
        project: Project,
        *,
        queue: int = 16,
        measure: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Nothing is called yet.

        Args:
          session: what is asked and answered.
          learning: what plans.
          items: what is labelled.
          client: the server.
          project: on it.
          queue: tasks without an answer, at most; at half of them more are asked.
          measure: the accuracy, from the first model on: do not wait until it is stable.
          say: is given lines.
        """
        super().__init__(session, learning, timeout=float("inf"))
        self._items, self._client, self._project, self._queue = items, client, project, queue
        self._measure, self._say = measure, say
        self._there = Mirror(client, project.number, project.key, len(items))
        self._complaints: set[str] = set()
        self._is_first, self._is_live = True, False  # whether somebody labels just now

    def run(self, interval: float) -> None:
        """Make rounds until every item is answered.

        Args:
          interval: seconds between them.

        Raises:
          ValueError: the server refuses something.
        """
        last, pause = "", interval
        while True:
            try:
                goes_on = self.round()
                pause = interval
            except ServerAwayError as error:
                self._there.forget()  # what became of the call is seen in the list of all tasks
                self._say(f"{error}; trying again")
                last, goes_on, pause = "", True, min(2 * max(pause, 0.5), _LONGEST_PAUSE)
            else:
                if (line := self.progress()) != last:
                    self._say(line)
                last = line
            if not goes_on:
                return
            time.sleep(pause)

    def round(self) -> bool:
        """Look what there is, tell it, ask; whether anything is left to be answered.

        Raises:
          ServerAwayError: a call failed; what was done before it stays.
          ValueError: the server refuses something.
        """
        there = self._there
        with self._lock:
            changed = there.look()
            there.remove_copies()
            if self._measure and not self.notes.audit.models:
                self.learning.begins_audit = True
            told = [self._tell(point) for point in changed]
            # The first round has what was said before, too.
            self._is_live = self._is_live or (any(told) and not self._is_first)
            self._is_first = False
            self._import(self._waiting())  # what an interrupted round has asked for
        if there.num_open <= self._queue // 2:
            is_planned = self.learning.wait_until_idle(_PATIENCE)  # it needs the lock
            if is_planned or there.num_open <= self._queue // 4:
                with self._lock:
                    self._ask(is_planned)
                    self._import(self._waiting())
        with self._lock:
            return bool(there.num_open or self._num_left())

    def progress(self) -> str:
        """How far everything is, in one line."""
        with self._lock:
            self.notes.follow()
            skipped = set(self.session.skipped.tolist())
            labelled = {*self.session.labelled.indices.tolist(), *self.notes.audit.answers}
            parts = [f"{len(labelled - skipped):,} labels", f"{self._there.num_open} in the queue"]
            if skipped:
                parts.insert(1, f"{len(skipped):,} skipped")
            model = self.learning.model
            if self.learning.stage == "features":
                parts.append("features are being computed")
            elif self.learning.problem:
                parts.append(f"items are random: {self.learning.problem}")
            elif model is not None:
                parts.append(f"learnt from {model.num_labels:,}")
            line = ", ".join(parts)
            return f"{line}. {self.learning.accuracy}" if self.learning.accuracy else line

    def _num_left(self) -> int:
        """Points that nobody has answered."""
        known = {*self.session.labelled.indices.tolist(), *self.session.skipped.tolist()}
        return self.session.num_points - len(known | {*self.notes.audit.answers})

    def _tell(self, point: int) -> bool:
        """Bring the session up to what people say of a point; whether that was anything new."""
        classes = {name: number for number, name in enumerate(self.session.classes or ())}
        labels, unreadable = read_answers(
            self._there.annotations(point), self._project.control.name, classes
        )
        for line in unreadable:
            self._complain(f"item {point}, {line}")
        opinions = self.session.opinions(point)
        self.notes.follow()
        if point in self.notes.audit.points and not opinions:
            return self._tell_audit(point, labels)
        is_new = False
        while (step := next_step(labels, opinions)) is not None:
            if step.kind == "tell" and step.annotator and step.label is not None:
                self._note_prediction(step.annotator, point, step.label)
            take(self.session, point, step)
            opinions, is_new = self.session.opinions(point), True
        for who, opinion in opinions.items():
            if (who or "").startswith(ANNOTATOR) and opinion.label != labels.get(who or ""):
                self._complain(
                    f"item {point}: the answer of {who} has changed in Label Studio, but was "
                    "imported into the session, and stays there"
                )
        if is_new:
            self.learning.wake()
        return is_new

    def _tell_audit(self, point: int, labels: dict[str, Label]) -> bool:
        """One answer to a point that was drawn to measure the accuracy; training sees none."""
        said = self.notes.audit.answers.get(point)
        if said is not None:
            who = said.annotator or ""
            label = None if said.label == NOBODY_KNOWS else said.label
            if not who.startswith(ANNOTATOR) or (who in labels and labels[who] == label):
                return False
            self.session.record(TAKE_BACK, point, annotator=who)
            self.notes.follow()
        for who, label in list(labels.items())[:1]:
            self.session.record(audit_log.LABEL, point, label=label, annotator=who)
            self.notes.follow()
            if point in self._wanted:
                self._asked([point])
        if said is None and not labels:
            return False
        self.learning.wake()
        return True

    def _ask(self, is_planned: bool) -> None:
        """Fill the queue up; an old plan is better than none.

        At random where there is none to come (one class only, or learning has failed), and where it
        comes too late for people who label just now: they would be told that nothing is left.
        """
        drawn = self._drawn(None, self._queue // 2) if self.notes.audit.models else []
        missing = self._queue - self._there.num_open
        missing -= sum(not self._there.has(point) for point in drawn)
        if missing <= 0 or self._planned(None, missing):
            return
        if is_planned:
            self._random(None, missing)
        elif self._is_live and self.learning.model is None:
            self._random(None, missing - self._queue // 2)

    def _waiting(self) -> list[int]:
        """Points that were asked and have no task, in the order in which they were asked."""
        self.notes.follow()
        held = [
            (answer.time, answer.point)
            for answer in self.session.in_hand
            if answer.annotator is None or answer.annotator.startswith(ANNOTATOR)
        ]
        taken = {*self.session.labelled.indices.tolist(), *self.session.skipped.tolist()}
        held += [
            (since, point)
            for point, (who, since) in self.notes.audit.holders.items()
            if point not in taken and (who is None or who.startswith(ANNOTATOR))
        ]
        return [point for _, point in sorted(held) if not self._there.has(point)]

    def _import(self, points: Iterable[int]) -> None:
        """Make tasks of points, in this order."""
        batch: list[tuple[int, dict]] = []
        size = 0
        for point in dict.fromkeys(points):
            try:
                task = make_task(self._items, point, self._project.control.field, self._project.key)
            except (OSError, ValueError) as error:
                self._give_up(point, error)
                continue
            length = len(json.dumps(task))
            if batch and size + length > _IMPORTED_AT_ONCE:
                self._send(batch)
                batch, size = [], 0
            batch.append((point, task))
            size += length
        if batch:
            self._send(batch)

    def _send(self, batch: list[tuple[int, dict]]) -> None:
        numbers = self._client.import_tasks(self._project.number, [task for _, task in batch])
        self._there.add(dict(zip(numbers, (point for point, _ in batch), strict=True)))

    def _give_up(self, point: int, error: Exception) -> None:
        """Skip an item that cannot be shown."""
        why = " ".join(str(error).split())
        self._complain(f"item {point} cannot be shown, and is skipped: {why}")
        opinions = self.session.opinions(point)
        for who, opinion in opinions.items():
            if opinion.status == PENDING:
                self.session.skip([point], annotator=who)
                return
        self.session.record(audit_log.LABEL, point)  # it was drawn: nobody can tell
        self.notes.follow()

    def _complain(self, line: str) -> None:
        """Say something once."""
        if line not in self._complaints:
            self._complaints.add(line)
            self._say(line)
