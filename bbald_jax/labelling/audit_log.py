"""The audit of a session, in its events: points drawn at random, and what they say of the model.

Everything of an audit is in the session's events, apart from the labels that training sees:
`audit_model` (a model to be audited: what it predicts, and how sure it is; with the first one the
settings and the drawing weights), `audit_draw` (a point, with its probability), `audit_hand` (who
has it in hand, or gave it back), `audit_label` (what they said). What that rests on is explained in
`audit`. The page audits the first stable model, and from then on that of twice as many labels as
the one before it, whatever the audit says (`wants_model`).
"""

import base64
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import numpy as np

from bbald_jax.labelling.audit import AccuracyEstimate, estimate_accuracy
from bbald_jax.labelling.draws import (
    NOBODY_KNOWS,
    Audit,
    AuditSettings,
    Draw,
    draw_for_audit,
    start_audit,
)
from bbald_jax.labelling.events import Event
from bbald_jax.labelling.session import Session

#: The kinds of the events.
MODEL, DRAW, HAND, LABEL = "audit_model", "audit_draw", "audit_hand", "audit_label"
#: The next model is audited when there are so many times as many labels.
_GROWTH = 2
# The draws' keys are `fold_in(fold_in(key(seed), this), number of draws)`.
_STREAM = 2**32 - 2


class AuditedModel(NamedTuple):
    """A model that is audited.

    Attributes:
      num_labels: it was fitted to.
      predicted: `[N]` uint16, the class that it predicts.
      error_probs: `[N]` float16, how likely it is wrong, in its own opinion.
    """

    num_labels: int
    predicted: np.ndarray
    error_probs: np.ndarray


class Answered(NamedTuple):
    """What somebody said of a drawn point.

    Attributes:
      label: a class, or -1: nobody can tell.
      annotator: who said so.
      time: when, seconds since 1970.
    """

    label: int
    annotator: str | None
    time: float


class AuditLog:
    """An audit as it follows from a session's events.

    Attributes:
      models: those audited so far, the last of which is estimated.
      answers: for each drawn point that somebody answered as such, what they said.
      holders: for each drawn point that is in hand, who has it, and since when.
    """

    def __init__(self) -> None:
        self.models: list[AuditedModel] = []
        self.answers: dict[int, Answered] = {}
        self.holders: dict[int, tuple[str | None, float]] = {}
        self._start: Audit | None = None
        self._draws: list[Draw] = []

    def copy(self) -> "AuditLog":
        """As it is now, for another thread."""
        other = AuditLog()
        other.models, other._draws = [*self.models], [*self._draws]
        other.answers, other.holders = {**self.answers}, {**self.holders}
        other._start = self._start
        return other

    @property
    def points(self) -> list[int]:
        """All that were drawn, in order."""
        return [draw.point for draw in self._draws]

    def take_in(self, event: Event) -> None:
        """Bring it up to date with an event."""
        point, extra = event.index, event.extra
        if event.kind == MODEL:
            predicted = _unpacked(extra["predicted"], "<u2")
            error_probs = _unpacked(extra["error_probs"], "<f2")
            self.models.append(AuditedModel(extra["num_labels"], predicted, error_probs))
            if "settings" in extra:
                values = np.asarray(extra["weights"], np.float64)
                weights = values[_unpacked(extra["ranks"], "u1")]
                self._start = Audit(AuditSettings(**extra["settings"]), weights)
        elif event.kind == "forget":
            self.answers = {
                k: said for k, said in self.answers.items() if said.annotator != event.annotator
            }
            self.holders = {k: v for k, v in self.holders.items() if v[0] != event.annotator}
        elif point is None:
            return
        elif event.kind == DRAW:
            self._draws.append(Draw(point, extra["probability"], extra["model"]))
        elif event.kind == HAND:
            self.holders[point] = (event.annotator, event.time)
            if extra.get("back"):
                del self.holders[point]
        elif event.kind == LABEL:
            label = NOBODY_KNOWS if event.label is None else event.label
            self.answers[point] = Answered(label, event.annotator, event.time)
            self.holders.pop(point, None)

    def take_back(self, point: int, who: str | None, time: float) -> None:
        """An answer was taken back: the point is in hand again."""
        self.answers.pop(point, None)
        self.holders[point] = (who, time)

    def in_hand(self, who: str | None, session: Session, timeout: float, now: float) -> list[int]:
        """Drawn points that a person has in hand, and still need an answer."""
        known = set(session.labelled.indices.tolist()) | set(session.skipped.tolist())
        return [
            point
            for point, (holder, since) in self.holders.items()
            if holder == who and point not in known and now - since <= timeout
        ]

    def waiting(self, session: Session, timeout: float, now: float) -> list[int]:
        """Drawn points that nobody has in hand, for training neither, and nobody has answered."""
        taken = set(session.labelled.indices.tolist()) | set(session.skipped.tolist())
        taken |= {answer.point for answer in session.in_hand} | set(self.answers)
        taken |= {point for point, (_, since) in self.holders.items() if now - since <= timeout}
        return [point for point in self.points if point not in taken]

    def draw(self, session: Session) -> int | None:
        """Draw one more point, and write it down; None where none is left."""
        assert self._start is not None
        audit = self._start._replace(draws=tuple(self._draws))
        stream = jax.random.fold_in(jax.random.key(session.seed), _STREAM)
        key = jax.random.fold_in(stream, len(self._draws))
        model = len(self.models)
        labelled, _ = _known(session)
        audit, points = draw_for_audit(key, audit, 1, labelled=labelled, model=model)
        if not len(points):
            return None
        point = int(points[0])
        extra = {"probability": audit.draws[-1].probability, "model": model}
        session.record(DRAW, point, extra)
        return point

    def estimate(self, session: Session) -> AccuracyEstimate | None:
        """The accuracy of the last model, by all draws; None where no audit has begun.

        A drawn point that training has a label of, too, counts with the label that holds there.
        """
        if self._start is None or not self.models:
            return None
        labelled, labels = _known(session)
        holds = dict(zip(labelled, labels, strict=True))
        draws = []
        for draw in self._draws:
            said = self.answers.get(draw.point)
            label = holds.get(draw.point, None if said is None else said.label)
            draws.append(draw._replace(label=label))
        model = self.models[-1]
        return estimate_accuracy(
            self._start._replace(draws=tuple(draws)),
            model.predicted.astype(np.int64),
            model.error_probs,
            labelled=labelled,
            labels=labels,
            model=len(self.models),
        )

    def wants_model(self, num_labels: int) -> bool:
        """Whether the next model is to be audited, once an audit has begun."""
        return bool(self.models) and num_labels >= _GROWTH * self.models[-1].num_labels

    @property
    def open_points(self) -> list[int]:
        """Drawn points that nobody has answered as such, in order."""
        return [point for point in self.points if point not in self.answers]

    def add_model(
        self,
        session: Session,
        num_labels: int,
        probs: Any,
        error_probs: Any,
        settings: AuditSettings | None = None,
    ) -> None:
        """Write a model down that is to be audited from now on.

        Args:
          session: whose.
          num_labels: it was fitted to.
          probs: `[N, C]`, what it predicts.
          error_probs: `[N]`, how likely it is wrong, in its own opinion.
          settings: of the audit, which begins with the first model.
        """
        errors = np.clip(error_probs, 0, 1).astype("<f2")
        extra: dict[str, Any] = {
            "model": len(self.models) + 1,
            "num_labels": num_labels,
            "predicted": _packed(np.asarray(probs).argmax(axis=1).astype("<u2")),
            "error_probs": _packed(errors),
        }
        if not self.models:
            audit = start_audit(errors, settings)
            values, ranks = np.unique(audit.weights, return_inverse=True)
            extra["settings"] = asdict(audit.settings)
            extra |= {"weights": values.tolist(), "ranks": _packed(ranks.astype("u1"))}
        session.record(MODEL, extra=extra)


def _known(session: Session) -> tuple[list[int], list[int]]:
    """All points that training knows of, and their labels; -1 where nobody can tell."""
    indices, labels = session.labelled
    skipped = session.skipped.tolist()
    return [*indices.tolist(), *skipped], [*labels.tolist(), *([NOBODY_KNOWS] * len(skipped))]


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)
