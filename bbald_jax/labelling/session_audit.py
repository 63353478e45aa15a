"""How accurate is the model, asked of a session: what is drawn and said is kept in its file."""

from typing import Any

import numpy as np

from bbald_jax.labelling.audit import AccuracyEstimate
from bbald_jax.labelling.audit_log import LABEL, AuditLog
from bbald_jax.labelling.draws import NOBODY_KNOWS, AuditSettings, check_error_probs
from bbald_jax.labelling.session import Session
from bbald_jax.labelling.stopping import StoppingAdvice, advise_stopping
from bbald_jax.labelling.validation import check_integers
from bbald_jax.validation import assert_positive


class SessionAudit:
    """The audit of a session's models: draw points, tell their labels, look at any time.

    ```
    audit = bb.SessionAudit(session)
    audit.add_model(probs)  # [N, C], of the model that was fitted to session.labelled
    points = audit.draw(50)  # to be labelled, and not to be trained on
    audit.tell(points, labels)
    print(audit.advise(0.95).reason)
    ```

    Everything is in the session's events when a method returns, so another process, or the next
    day, goes on with `bb.SessionAudit(bb.Session.open(path))`. Several may tell; one draws.

    `session.ask` does not look at what is drawn here, as it must be (see `estimate_accuracy`): it
    may choose an audited point, and then its label, told to the session, counts for both. Labels
    that are told here are not among `session.labelled`.

    A page (`bbald label`) runs an audit of its own in the same events: do not run both at once.
    """

    def __init__(self, session: Session) -> None:
        """The audit in the events of this session; it has not begun where there are none."""
        self._session, self._log, self._last = session, AuditLog(), 0

    def add_model(
        self, probs: Any, error_probs: Any = None, *, settings: AuditSettings | None = None
    ) -> None:
        """A model is audited from now on; the first one begins the audit.

        Decide which models are audited without a look at the audit's labels (say, every fifth); see
        `estimate_accuracy`.

        Args:
          probs: `[N, C]`, what it predicts, as probabilities or logarithms: the largest counts.
          error_probs: `[N]`, how likely it is wrong, in its own opinion; by default 1 less the
            largest of `probs`, which then are probabilities.
          settings: of the audit, with the first model; they are frozen then.

        Raises:
          ValueError: shapes or values that do not fit; settings after the beginning.
        """
        log = self._follow()
        predictions = np.asarray(probs)
        num_points = self._session.num_points
        if predictions.ndim != 2 or len(predictions) != num_points:
            raise ValueError(f"probs: shape {predictions.shape} is not [{num_points}, C]")
        if not np.isfinite(predictions).all():
            raise ValueError("probs: there is a NaN or infinity; which class is predicted there?")
        if settings is not None and log.models:
            raise ValueError(
                "settings: the audit has begun, and they are frozen; they go with the first model"
            )
        if error_probs is None:
            error_probs = 1 - predictions.max(axis=1)
        errors = check_error_probs(error_probs, num_points)
        num_labels = len(self._session.labelled.indices)
        log.add_model(self._session, num_labels, predictions, errors, settings)

    def draw(self, num_points: int) -> np.ndarray:
        """Draw points at random, with the probabilities of the audit, to be labelled for it.

        Returns:
          Their indices; fewer where fewer are left.

        Raises:
          ValueError: `num_points` below 1, or no model yet.
        """
        assert_positive(num_points=num_points)
        if not self._follow().models:
            raise ValueError("draw: no model is audited yet; call add_model first")
        points = []
        for _ in range(num_points):
            point = self._follow().draw(self._session)
            if point is None:
                break
            points.append(point)
        return np.asarray(points, np.int64)

    @property
    def waiting(self) -> np.ndarray:
        """Drawn points that need an answer, in order: the first of them holds back the others."""
        log = self._follow()
        known = {*self._session.labelled.indices.tolist(), *self._session.skipped.tolist()}
        return np.asarray([p for p in log.open_points if p not in known], np.int64)

    def tell(self, indices: Any, labels: Any, *, annotator: str | None = None) -> None:
        """Labels of drawn points, in any order; -1 where nobody can tell, which counts as wrong.

        Raises:
          ValueError: a point that was not drawn, or is answered already; a label that is no class;
            lengths that differ. Then nothing was taken in.
        """
        points, classes = check_integers("indices", indices), check_integers("labels", labels)
        if len(points) != len(classes):
            raise ValueError(f"labels: {len(classes)} for {len(points)} indices; pass one for each")
        waiting, num_classes = set(self._follow().open_points), self._session.num_classes
        for point, label in zip(points, classes, strict=True):
            if point not in waiting:
                raise ValueError(
                    f"indices: point {point} is not out for the audit; answer drawn points, once"
                )
            waiting.remove(point)
            if not NOBODY_KNOWS <= label < num_classes:
                raise ValueError(
                    f"labels: {label}, of point {point}, is none of the {num_classes} classes; "
                    "-1 says that nobody can tell"
                )
        for point, label in zip(points, classes, strict=True):
            told = None if label == NOBODY_KNOWS else int(label)
            self._session.record(LABEL, int(point), label=told, annotator=annotator)

    def estimate(self) -> AccuracyEstimate:
        """The accuracy of the last model on all points; see `estimate_accuracy`.

        Raises:
          ValueError: no model yet.
        """
        estimate = self._follow().estimate(self._session)
        if estimate is None:
            raise ValueError("estimate: no model is audited yet; call add_model first")
        return estimate

    def advise(self, target_accuracy: float) -> StoppingAdvice:
        """Whether to stop, and what it has cost; see `advise_stopping`."""
        return advise_stopping(self.estimate(), target_accuracy)

    def _follow(self) -> AuditLog:
        for event in self._session.events(after=self._last):
            self._log.take_in(event)
            self._last = event.id
        return self._log
