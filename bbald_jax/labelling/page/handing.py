"""What a person gets next: second opinions, what others were unsure of, the plan, and random items.

Beside these, while the accuracy is measured, items that are drawn for that.
"""

import time
from typing import Any

import numpy as np

from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.labelling import audit_log
from bbald_jax.labelling.draws import NOBODY_KNOWS
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.notes import PREDICTED
from bbald_jax.labelling.session import Session

#: Items that a person has in hand: the one before them, and those that are fetched ahead. While the
#: accuracy is measured, so many that were drawn for that, and one less of the others.
IN_HAND, DRAWN_IN_HAND = 3, 2
# Random points that are tried before the whole pool is looked through for one that is left.
_TRIES = 4


class Handing:
    """The part of a `Desk` that hands out; safe to call from several threads.

    Attributes:
      session: what is asked and answered.
      notes: what follows from its events.
      learning: what plans.
    """

    def __init__(
        self,
        session: Session,
        learning: Learning,
        *,
        overlap: float = 0.0,
        timeout: float = 600.0,
    ) -> None:
        """Nothing is handed out yet.

        Args:
          session: what is asked and answered.
          learning: what plans.
          overlap: share of the items that two people label.
          timeout: seconds after which an item that is in hand goes back.
        """
        self.session, self.learning, self.notes = session, learning, learning.notes
        self.overlap, self.timeout = overlap, timeout
        # Points that training chose while they were out for the audit: it gets their labels, too.
        self._wanted: set[int] = set()
        self._lock = learning.notes.lock
        self._rng = np.random.default_rng(session.seed)

    def in_hand(self, who: str) -> list[int]:
        """What a person is to label now, in order; filled up as far as there is something left."""
        with self._lock:
            self.session.release(older_than=self.timeout)
            self.notes.follow()
            drawn = self._drawn(who)
            held = [
                (answer.time, answer.point)
                for answer in self.session.in_hand
                if answer.annotator == who
            ]
            since = self.notes.audit.holders
            mixed = sorted(held + [(since[point][1], point) for point in drawn])
            held = [point for _, point in mixed]
            if (missing := IN_HAND - bool(drawn) - (len(held) - len(drawn))) <= 0:
                return held
            for find in (self._second_opinions, self._unsure_of_others, self._planned):
                got = find(who, missing)
                held += got
                if (missing := missing - len(got)) <= 0:
                    break
            if missing > 0:
                held += self._random(who, missing)
            return held

    def is_drawn(self, point: int) -> bool:
        """Whether a point was drawn to measure the accuracy, for who has it in hand."""
        return point in self.notes.audit.holders

    def _note_prediction(self, who: str, point: int, label: int) -> None:
        """Write down what the model says of an item, just before its label is told."""
        if (seen := self.learning.prediction(point, label)) is not None:
            extra = {"told": label, "probability": round(seen[1], 6)}
            self.session.record(PREDICTED, point, extra, label=seen[0], annotator=who)

    def _mine(self, who: str) -> list[int]:
        return [answer.point for answer in self.session.in_hand if answer.annotator == who]

    def _drawn(self, who: str | None, number: int = DRAWN_IN_HAND) -> list[int]:
        """What a person has in hand to measure the accuracy; filled up while that is under way."""
        audit, session = self.notes.audit, self.session
        if not audit.models:
            return []
        held = audit.in_hand(who, session, self.timeout, time.time())
        if self.learning.is_reached:
            return held
        waiting = audit.waiting(session, self.timeout, time.time())
        while len(held) < number:
            if waiting:
                point = waiting.pop(0)
            elif (point := audit.draw(session)) is None:
                break
            elif point in session.pending:  # training's answer will serve
                self.notes.follow()
                continue
            session.record(audit_log.HAND, point, annotator=who)
            self.notes.follow()
            held.append(point)
        return held

    def _asked(self, points: list[int]) -> list[int]:
        """Of points that training chose, those that are to be asked.

        One that was drawn for the audit is not asked twice: training gets the label that is there,
        or when it comes.
        """
        audit = self.notes.audit
        drawn, left = set(audit.points), []
        for point in points:
            said = audit.answers.get(point)
            if point not in drawn:
                left.append(point)
            elif said is None:
                self._wanted.add(point)
            elif said.label != NOBODY_KNOWS:
                self.session.import_labels([point], [said.label], annotator=said.annotator)
            elif self.session.assign([point], annotator=said.annotator).size:
                self.session.skip([point], annotator=said.annotator)
        return left

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

    def _planned(self, who: str | None, number: int) -> list[int]:
        """The plan's next points; some may have been taken by another process."""
        got: list[int] = []
        while len(got) < number and (points := self.learning.take(number - len(got))):
            points = [point for point in points if who not in self.notes.unsure.get(point, ())]
            got += self._assign(self._asked(points), who, acquisition=FOR_THE_HEAD)
        if got:
            self.learning.wake()  # the next plan is conditional on these
        return got

    def _random(self, who: str | None, number: int) -> list[int]:
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

    def _assign_some(self, points: list[int], who: str | None, number: int) -> list[int]:
        points = [point for point in points if point not in self.notes.unsure]
        return self._assign(self._asked(points[:number]), who, acquisition="random")

    def _assign(self, points: list[int], who: str | None, **settings: Any) -> list[int]:
        return self.session.assign(points, annotator=who, **settings).tolist() if points else []
