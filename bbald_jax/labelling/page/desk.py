"""Who gets what, and what they say: one place that all requests go through."""

import threading
from typing import Any

import numpy as np

from bbald_jax.labelling.page.learning import ACQUISITION, Learning
from bbald_jax.labelling.page.notes import PREDICTED, TAKE_BACK, UNSURE, Notes
from bbald_jax.labelling.session import Session

#: Items that a person has in hand: the one before them, and those that are fetched ahead.
IN_HAND = 3
# Random points that are tried before the whole pool is looked through for one that is left.
_TRIES = 4


class ConflictError(ValueError):
    """Somebody else, or the same person elsewhere, was faster."""


class Desk:
    """Hands items out and takes answers; safe to call from several threads.

    Attributes:
      session: what is asked and answered.
      notes: what follows from its events.
      learning: what plans.
    """

    def __init__(
        self, session: Session, learning: Learning, *, overlap: float = 0.0, timeout: float = 600.0
    ) -> None:
        """Nothing is handed out yet.

        Args:
          session: what is asked and answered.
          learning: what plans.
          overlap: share of the items that two people label.
          timeout: seconds after which an item that is in hand goes back.
        """
        self.session, self.learning, self.notes = session, learning, Notes(session)
        self.overlap, self.timeout = overlap, timeout
        self._lock = threading.RLock()
        self._rng = np.random.default_rng(session.seed)

    def in_hand(self, who: str) -> list[int]:
        """What a person is to label now, in order; filled up as far as there is something left."""
        with self._lock:
            self.session.release(older_than=self.timeout)
            self.notes.follow()
            held = [answer.point for answer in self.session.in_hand if answer.annotator == who]
            if (missing := IN_HAND - len(held)) <= 0:
                return held
            for find in (self._second_opinions, self._unsure_of_others, self._planned):
                held += find(who, missing)
                missing = IN_HAND - len(held)
            if missing > 0:
                held += self._random(who, missing)
            return held

    def answer(self, who: str, point: int, label: int) -> None:
        """Take in a label.

        Raises:
          ConflictError: this person has said something else of it already, or somebody gave it up.
          ValueError: no such point or class.
        """
        with self._lock:
            self._check(point, label)
            said = self._said(who, point)
            if said is not None:
                if said == label:
                    return  # told twice: the first reply was lost
                raise ConflictError(f"item {point} has another label by {who} already; correct it")
            self._take(who, point)
            if (seen := self.learning.prediction(point, label)) is not None:
                extra = {"told": label, "probability": round(seen[1], 6)}
                self.session.record(PREDICTED, point, extra, label=seen[0], annotator=who)
            self.session.tell([point], [label], annotator=who)
        self.learning.wake()

    def skip(self, who: str, point: int) -> None:
        """Give up an item that nobody can label."""
        with self._lock:
            self._take(who, point)
            self.session.skip([point], annotator=who)
        self.learning.wake()

    def unsure(self, who: str, point: int) -> None:
        """Put an item aside: somebody else gets it, if anybody else labels."""
        with self._lock:
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
            if acts and acts[-1].kind == UNSURE:
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

    def add_class(self, name: str) -> None:
        """Add a class; the labels told so far stay what they are.

        Raises:
          ValueError: there is one of that name.
        """
        with self._lock:
            self.session.add_classes([name])
        self.learning.wake()

    def progress(self, who: str | None) -> dict[str, Any]:
        """How far everything is, for the line at the top."""
        with self._lock:
            self.notes.follow()
            indices, _ = self.session.labelled
            model = self.learning.model
            return {
                "labelled": len(indices),
                "total": self.session.num_points,
                "skipped": len(self.session.skipped),
                "unsure": len(self.notes.unsure),
                "stage": self.learning.stage,
                "problem": self.learning.problem,
                "fitted": None if model is None else model.num_labels,
                "can_undo": bool(self.notes.acts.get(who)),
                "accuracy": None,
            }

    def _check(self, point: int, label: int) -> None:
        if not 0 <= point < self.session.num_points:
            raise ValueError(f"item {point} is not there")
        if not 0 <= label < self.session.num_classes:
            raise ValueError(f"class {label} is not there")

    def _mine(self, who: str) -> list[int]:
        return [answer.point for answer in self.session.in_hand if answer.annotator == who]

    def _said(self, who: str, point: int) -> int | None:
        """The label that a person gives to a point now."""
        with self.session._store.reading() as transaction:
            row = transaction.answer(point, who)
        return None if row is None else row.label

    def _take(self, who: str, point: int) -> None:
        """Have an item in hand, even after it went back, or while another person has it."""
        if not 0 <= point < self.session.num_points:
            raise ValueError(f"item {point} is not there")
        if point in self._mine(who):
            return
        if not self.session.assign([point], annotator=who, overlap=True).size:
            raise ConflictError(f"item {point} was given up")

    def _second_opinions(self, who: str, number: int) -> list[int]:
        """Items that one other person has labelled, of the share that two are to label."""
        if not self.overlap:
            return []
        said: dict[int, set[str | None]] = {}
        for answer in (*self.session.answers, *self.session.in_hand):
            said.setdefault(answer.point, set()).add(answer.annotator)
        labelled = set(self.session.labelled.indices.tolist())
        wanted = [
            point
            for point, people in said.items()
            if point in labelled and len(people) == 1 and who not in people
            if self._is_for_two(point)
        ]
        return self._assign(wanted[:number], who, overlap=True)

    def _is_for_two(self, point: int) -> bool:
        """Whether an item is of the share that two people label: the same at every start."""
        return np.random.default_rng((self.session.seed, point)).random() < self.overlap

    def _unsure_of_others(self, who: str, number: int) -> list[int]:
        theirs = [point for point, people in self.notes.unsure.items() if who not in people]
        return self._assign(theirs[:number], who)

    def _planned(self, who: str, number: int) -> list[int]:
        """The plan's next points; some may have been taken by another process."""
        got: list[int] = []
        while len(got) < number and (points := self.learning.take(number - len(got))):
            points = [point for point in points if who not in self.notes.unsure.get(point, ())]
            got += self._assign(points, who, acquisition=ACQUISITION)
        if got:
            self.learning.wake()  # the next plan is conditional on these
        return got

    def _random(self, who: str, number: int) -> list[int]:
        """Before there is a plan, and where nothing can be learnt."""
        got: list[int] = []
        num_points = self.session.num_points
        for _ in range(_TRIES):
            if len(got) < number:
                points = self._rng.choice(num_points, min(num_points, 2 * number), replace=False)
                got += self._assign_some(points.tolist(), who, number - len(got))
        if len(got) < number:
            is_left = np.ones(num_points, bool)
            for taken in (self.session.labelled.indices, self.session.pending):
                is_left[taken] = False
            is_left[self.session.skipped] = False
            left = self._rng.permutation(np.flatnonzero(is_left)).tolist()
            got += self._assign_some(left, who, number - len(got))
        return got

    def _assign_some(self, points: list[int], who: str, number: int) -> list[int]:
        points = [point for point in points if point not in self.notes.unsure]
        return self._assign(points[:number], who, acquisition="random")

    def _assign(self, points: list[int], who: str, **settings: Any) -> list[int]:
        return self.session.assign(points, annotator=who, **settings).tolist() if points else []
