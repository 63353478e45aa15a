"""What people say: one place that all requests go through; `handing` is what they get."""

from typing import Any

from bbald_jax.labelling import audit_log
from bbald_jax.labelling.draws import NOBODY_KNOWS
from bbald_jax.labelling.page.handing import Handing
from bbald_jax.labelling.page.notes import TAKE_BACK, UNSURE


class ConflictError(ValueError):
    """Somebody else, or the same person elsewhere, was faster."""


class Desk(Handing):
    """Hands items out (`in_hand`) and takes answers; safe to call from several threads."""

    def answer(self, who: str, point: int, label: int) -> None:
        """Take in a label.

        Raises:
          ConflictError: this person has said something else of it already, or somebody gave it up.
          ValueError: no such point or class.
        """
        with self._lock:
            self._check(point, label)
            if self._is_audited(who, point):
                self._answer_audit(who, point, label)
                return
            said = self.session.label_by(point, annotator=who)
            if said is not None:
                if said == label:
                    return  # told twice: the first reply was lost
                raise ConflictError(f"item {point} has another label by {who} already; correct it")
            self._take(who, point)
            self._note_prediction(who, point, label)
            self.session.tell([point], [label], annotator=who)
        self.learning.wake()

    def skip(self, who: str, point: int) -> None:
        """Give up an item that nobody can label."""
        with self._lock:
            if self._is_audited(who, point):
                self._answer_audit(who, point, NOBODY_KNOWS)
                return
            self._take(who, point)
            self.session.skip([point], annotator=who)
        self.learning.wake()

    def unsure(self, who: str, point: int) -> None:
        """Put an item aside: somebody else gets it, if anybody else labels.

        Raises:
          ConflictError: it was drawn to measure the accuracy, and must have an answer.
        """
        with self._lock:
            if self._is_audited(who, point):
                raise ConflictError(
                    "this item was drawn to measure the accuracy: say what it most likely is, or "
                    "skip it, which counts as an error of the model"
                )
            self._take(who, point)
            self.session.record(UNSURE, point, annotator=who)
            self.session.release([point], annotator=who)
        self.learning.wake()

    def undo(self, who: str) -> int:
        """Take back a person's last answer; the item is in hand with them again.

        Raises:
          ConflictError: there is none.
        """
        with self._lock:
            self.notes.follow()
            acts = self.notes.acts.get(who, [])
            if acts and acts[-1].kind == audit_log.LABEL:
                point = acts[-1].point
                if point in self.session.labelled.indices or point in self.session.skipped:
                    raise ConflictError("the model has learnt from it; correct it under Review")
                self.session.record(TAKE_BACK, point, annotator=who)
            elif acts and acts[-1].kind == UNSURE:
                point = acts[-1].point
                self.session.record(TAKE_BACK, point, annotator=who)
                self.session.assign([point], annotator=who, overlap=True)
            else:
                try:
                    point = self.session.undo(annotator=who)
                except ValueError as error:
                    raise ConflictError("there is nothing to undo") from error
        self.learning.wake()
        return int(point)

    def correct(self, who: str, point: int, label: int) -> None:
        """Say what an item is, whoever has it, and whatever was said of it before.

        Raises:
          ValueError: no such point or class.
        """
        with self._lock:
            self._check(point, label)
            if point in self.session.labelled.indices:
                self.session.correct(point, label, annotator=who)
            elif (
                point in self._mine(who)
                or self.session.assign([point], annotator=who, overlap=True).size
            ):
                self.answer(who, point, label)
            else:  # given up by somebody
                self.session.import_labels([point], [label], annotator=who)
        self.learning.wake()

    def leave(self, who: str) -> None:
        """Give back all that a person has in hand: they go on under another name."""
        with self._lock:
            self.notes.follow()
            self.session.release(annotator=who)
            for point, (holder, _) in [*self.notes.audit.holders.items()]:
                if holder == who:
                    self.session.record(audit_log.HAND, point, {"back": True}, annotator=who)
        self.learning.wake()

    def add_class(self, name: str) -> None:
        """Add a class; the labels told so far stay what they are.

        Raises:
          ValueError: there is one of that name.
        """
        with self._lock:
            self.session.add_classes([name])
        self.learning.wake()

    def measure(self) -> None:
        """Begin to measure the accuracy, without waiting for the model to become stable.

        Raises:
          ConflictError: nothing was learnt yet.
        """
        model = self.learning.model
        if model is None or not model.num_labels:
            raise ConflictError("the model has learnt nothing yet whose accuracy could be measured")
        self.learning.begins_audit = True
        self.learning.wake()

    def progress(self, who: str | None) -> dict[str, Any]:
        """How far everything is, for the line at the top."""
        with self._lock:
            self.notes.follow()
            indices, _ = self.session.labelled
            model, audit = self.learning.model, self.notes.audit
            return {
                "labelled": len({*indices.tolist(), *audit.answers} - {*self.session.skipped}),
                "trained": len(indices),
                "total": self.session.num_points,
                "skipped": len(self.session.skipped),
                "unsure": len(self.notes.unsure),
                "stage": self.learning.stage,
                "problem": self.learning.problem,
                "fitted": None if model is None else model.num_labels,
                "can_undo": bool(self.notes.acts.get(who)),
                "is_settled": self.learning.is_idle,
                "accuracy": self.learning.accuracy,
                "can_measure": not audit.models and model is not None and model.num_labels > 0,
            }

    def _check(self, point: int, label: int) -> None:
        if not 0 <= point < self.session.num_points:
            raise ValueError(f"item {point} is not there")
        if not 0 <= label < self.session.num_classes:
            raise ValueError(f"class {label} is not there")

    def _take(self, who: str, point: int) -> None:
        """Have an item in hand, even after it went back, or while another person has it."""
        if not 0 <= point < self.session.num_points:
            raise ValueError(f"item {point} is not there")
        if point in self._mine(who):
            return
        if not self.session.assign([point], annotator=who, overlap=True).size:
            raise ConflictError(f"item {point} was given up")

    def _is_audited(self, who: str, point: int) -> bool:
        """Whether an answer is one for the audit: training must not learn who was drawn."""
        return point in self.notes.audit.points and point not in self._mine(who)

    def _answer_audit(self, who: str, point: int, label: int) -> None:
        if (said := self.notes.audit.answers.get(point)) is not None:
            if said.label == label:
                return  # told twice: the first reply was lost
            raise ConflictError(f"item {point} was answered by {said.annotator} already")
        told = None if label == NOBODY_KNOWS else label
        self.session.record(audit_log.LABEL, point, label=told, annotator=who)
        self.notes.follow()
        if point in self._wanted:
            self._asked([point])
        self.learning.wake()
