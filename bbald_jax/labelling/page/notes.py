"""What the page itself writes into a session, beside the answers, and what follows from it.

Events of five kinds: `unsure`, a person put an item aside for somebody else; `take_back`, they
took that back; `predicted`, what the model said of an item just before its answer came; `fit`, how
the model was after a refit; `measured`, what was known of its accuracy. `Notes` follows them, and
the session's own, wherever they come from.
"""

import threading
from typing import NamedTuple

from bbald_jax.labelling import audit_log
from bbald_jax.labelling.session import Session

#: How the page's events are called.
UNSURE, TAKE_BACK, PREDICTED = "unsure", "take_back", "predicted"
FIT, MEASURED = "fit", "measured"

_ANSWERS = ("tell", "skip", "correct", UNSURE, audit_log.LABEL)
# What the session does not know, and `take_back` takes back.
_OURS = (UNSURE, audit_log.LABEL)


class Act(NamedTuple):
    """Something a person did that they can take back: what, and to which point."""

    kind: str
    point: int


class Foreseen(NamedTuple):
    """What the model said of an item before its answer came.

    Attributes:
      point: its index.
      predicted: the class that it predicted.
      told: the answer.
      probability: that it gave to the answer.
    """

    point: int
    predicted: int
    told: int
    probability: float


class Fit(NamedTuple):
    """The model after a refit.

    Attributes:
      num_labels: it was fitted to.
      confidence: mean over the pool of the largest probability.
      agreement: share of the pool for which it predicts what the model before it did; None for the
        first one, and where classes were added between.
    """

    num_labels: int
    confidence: float
    agreement: float | None


class Measured(NamedTuple):
    """What was known of the accuracy of the model that is measured.

    Attributes:
      num_labels: the model was fitted to.
      num_audited: items that were drawn at random and answered by then.
      lower: the accuracy is at least this,
      upper: and at most this.
    """

    num_labels: int
    num_audited: int
    lower: float
    upper: float


class Notes:
    """Everything of a session's events that the page asks again and again.

    Attributes:
      lock: to be held while what is here is looked through.
      unsure: for each item that was put aside and has no answer since, who did.
      acts: for each person, what they can take back, the last at the end.
      foreseen: in the order of the answers; those that were taken back are not there.
      fits: in order.
      measured: in order.
      audit: what was drawn to measure the accuracy.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._last = session, 0
        self.lock = threading.RLock()
        self.unsure: dict[int, set[str | None]] = {}
        self.acts: dict[str | None, list[Act]] = {}
        self.foreseen: list[tuple[str | None, Foreseen]] = []
        self.fits: list[Fit] = []
        self.measured: list[Measured] = []
        self.audit = audit_log.AuditLog()

    def follow(self) -> None:
        """Take in what has happened since the last time, here or in another process."""
        with self.lock:
            self._follow()

    def _follow(self) -> None:
        for event in self._session.events(after=self._last):
            self._last = event.id
            point, who = event.index, event.annotator
            self.audit.take_in(event)
            if event.kind == FIT:
                self.fits.append(Fit(**event.extra))
            elif event.kind == MEASURED:
                self.measured.append(Measured(**event.extra))
            if event.kind == "forget":
                self.acts.pop(who, None)
                self.foreseen = [item for item in self.foreseen if item[0] != who]
                for people in self.unsure.values():
                    people.discard(who)
                self.unsure = {point: people for point, people in self.unsure.items() if people}
            if point is None:
                continue
            mine = self.acts.setdefault(who, [])
            if event.kind in _ANSWERS:
                mine.append(Act(event.kind, point))
            if event.kind == UNSURE:
                self.unsure.setdefault(point, set()).add(who)
            elif event.kind in ("tell", "import", "skip"):
                self.unsure.pop(point, None)
            elif event.kind == PREDICTED and event.label is not None:
                told = Foreseen(point, event.label, **event.extra)
                self.foreseen.append((who, told))
            elif event.kind in ("undo", TAKE_BACK):
                is_ours = event.kind == TAKE_BACK
                for place in reversed(range(len(mine))):
                    if mine[place].point == point and (mine[place].kind in _OURS) == is_ours:
                        undone = mine.pop(place)
                        break
                else:
                    continue
                if undone.kind == UNSURE:
                    self.unsure.get(point, set()).discard(who)
                    if not self.unsure.get(point):
                        self.unsure.pop(point, None)
                elif undone.kind == audit_log.LABEL:
                    self.audit.take_back(point, who, event.time)
                elif undone.kind == "tell":
                    self._forget_prediction(who, point)

    def _forget_prediction(self, who: str | None, point: int) -> None:
        for place in reversed(range(len(self.foreseen))):
            if self.foreseen[place][0] == who and self.foreseen[place][1].point == point:
                del self.foreseen[place]
                return
