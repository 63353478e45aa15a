"""What learns while people label: refits the head, and plans whom to ask what, in a thread."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.functions import find
from bbald_jax.acquisition.inputs import Inputs
from bbald_jax.acquisition.recommended import FOR_THE_HEAD
from bbald_jax.labelling.asking import choose
from bbald_jax.labelling.audit import AccuracyEstimate
from bbald_jax.labelling.page.notes import FIT, MEASURED, Measured, Notes
from bbald_jax.labelling.session import Session
from bbald_jax.labelling.stopping import advise_stopping, predictions_agreement
from bbald_jax.learning.head import logistic_head
from bbald_jax.pool import SKIPPED, UNLABELLED, Labelled

#: A plan is never shorter, so that nobody waits; every other length is a compilation.
_LEAST_PLAN, _LONGEST_PLAN = 32, 256
# Labelled rows come in a buffer of this length, or four times that, and so on: each is compiled.
_LEAST_CAPACITY = 64
# Models that are compared to see whether they still change, and labels between them.
_STEPS, _LEAST_STEP = 3, 10
# With fewer audited labels only the interval is shown.
_FEW_DRAWS = 20

_LOGGER = logging.getLogger(__name__)


class Model(NamedTuple):
    """What the head knew when it was last fitted.

    Attributes:
      num_labels: it was fitted to.
      probs: `[N, C]`, what it predicts.
    """

    num_labels: int
    probs: np.ndarray


class Learning:
    """Refits after answers and plans the next items; `start` begins, `take` hands the plan out.

    Attributes:
      stage: "features" while they are made, "learning" then, "failed" where that was impossible:
        items are random before and after.
      problem: why it failed, in one line.
      model: what it knows; None before the first fit.
      notes: what follows from the session's events.
      estimate: what is known of the accuracy of the model that is measured; None before.
      accuracy: the same in one line; empty before.
      is_reached: the accuracy is known to be at least the target.
      begins_audit: set it to begin to measure, without waiting for the model to become stable.
    """

    def __init__(
        self,
        session: Session,
        make_features: Callable[[], np.ndarray],
        *,
        batch_size: int | None = None,
        target: float | None = None,
    ) -> None:
        """Nothing is computed before `start`.

        Args:
          session: what is asked and answered.
          make_features: `[N, D]`; called once, in the thread.
          batch_size: points planned at a time; by default twice as many as were answered while the
            last plan was made, and at least 32.
          target: the accuracy at which to stop.
        """
        self.stage, self.problem = "features", ""
        self.model: Model | None = None
        self.notes = Notes(session)
        self.estimate: AccuracyEstimate | None = None
        self.accuracy, self.is_reached, self.begins_audit = "", False, False
        self._target = target
        self._steps: list[tuple[int, np.ndarray]] = []
        self._session, self._make_features = session, make_features
        self._batch_size, self._length = batch_size, _LEAST_PLAN
        self._lock, self._news = threading.Lock(), threading.Event()
        self._plan: list[int] = []
        self._rounds = 0
        self._idle = threading.Event()
        self._learners: dict[int, Any] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="learning", daemon=True)

    def start(self) -> None:
        """Begin, in a thread that ends with the process, or by `stop`."""
        self._news.set()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, when its present round has ended."""
        self._is_closed = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Something was answered, or handed out."""
        self._idle.clear()
        self._news.set()

    @property
    def is_idle(self) -> bool:
        """Whether all that was answered is learnt, or nothing will be."""
        return self.stage == "failed" or self._idle.is_set()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until all that was answered is learnt; whether that came to be."""
        return self._idle.wait(timeout)

    def take(self, number: int) -> list[int]:
        """The first points of the plan, which are then in it no more; fewer where it is short."""
        with self._lock:
            taken, self._plan = self._plan[:number], self._plan[number:]
        return taken

    def prediction(self, point: int, label: int) -> tuple[int, float] | None:
        """The class that the model predicts for a point, and the probability of another class."""
        model = self.model
        if model is None or point >= len(model.probs) or label >= model.probs.shape[1]:
            return None
        row = model.probs[point]
        return int(row.argmax()), float(row[label])

    def _run(self) -> None:
        try:
            x = jnp.asarray(self._make_features(), jnp.float32)
            self.stage = "learning"
            while True:
                self._news.wait()
                self._news.clear()
                if self._is_closed:
                    return
                self._round(x)
                if not self._news.is_set():
                    self._idle.set()
        except Exception as error:
            # People label on, at random; the page says so, and so does the terminal.
            self.problem = " ".join(str(error).split()) or type(error).__name__
            self.stage = "failed"
            self._idle.set()
            _LOGGER.warning("learning has stopped, items are random now: %s", self.problem)
            _LOGGER.debug("learning", exc_info=error)

    def _round(self, x: jax.Array) -> None:
        """One refit, and a plan that is conditional on all that is out."""
        began = time.monotonic()
        indices, labels = self._session.labelled
        now = self._session.snapshot()
        if now.num_classes < 2:
            return
        if len(x) != now.num_points:
            raise ValueError(f"{len(x)} rows of features for {now.num_points} items; start again")
        learner, first = self._learner(now.num_classes, x)
        capacity = _LEAST_CAPACITY
        while capacity < len(indices):
            capacity *= 4
        rows = np.zeros(capacity, np.int64)
        rows[: len(indices)] = indices
        y = np.zeros(capacity, np.int32)
        y[: len(indices)] = labels
        nothing = Labelled(x[:0], jnp.zeros(0, jnp.int32), jnp.int32(0))
        known = Labelled(x[rows], jnp.asarray(y), jnp.int32(len(indices)))
        state = learner.fit(jax.random.key(0), first, known, nothing)

        with self.notes.lock:
            self.notes.follow()
            aside = [point for point in self.notes.unsure if now.status[point] == UNLABELLED]
        now.status[aside] = SKIPPED
        posterior = learner.gaussian(state, x, x[self._session.targets()])
        length = self._plan_length(now.num_points)
        points, _ = choose(find(FOR_THE_HEAD), Inputs(None, gaussian=posterior), length, now)
        with self._lock:
            self._plan = points
        log_probs = np.asarray(learner.predict(state, x))
        model = Model(len(indices), np.exp(log_probs))
        self._publish(model)
        # The mean of a softmax of Gaussian logits: the MAP alone is too sure of itself.
        variance = np.sum(np.asarray(posterior.factors) ** 2, axis=1, keepdims=True)
        moderated = log_probs / np.sqrt(1 + np.pi / 8 * variance)
        largest = 1 / np.exp(moderated - moderated.max(axis=1, keepdims=True)).sum(axis=1)
        self._measure(model, 1 - largest)
        self._rounds += 1
        _LOGGER.debug("round %d: %.2f s", self._rounds, time.monotonic() - began)

    def _measure(self, model: Model, error_probs: np.ndarray) -> None:
        """Begin to measure when the model is stable, or somebody says so; say what is known."""
        with self.notes.lock:
            audit = self.notes.audit.copy()
        is_first = not audit.models and (self._is_stable(model) or self.begins_audit)
        if (is_first and model.num_labels) or audit.wants_model(model.num_labels):
            audit.add_model(self._session, model.num_labels, model.probs, error_probs)
            with self.notes.lock:
                self.notes.follow()
                audit = self.notes.audit.copy()
        self.begins_audit = False
        if (estimate := audit.estimate(self._session)) is None:
            return
        # Of the model that is measured, whatever training has learnt since.
        self.estimate = estimate._replace(num_trained=audit.models[-1].num_labels)
        self._note(self.estimate)
        words = f"Accuracy of the model of {audit.models[-1].num_labels} labels: "
        # The estimate itself jumps about until there are some.
        if estimate.num_audited >= _FEW_DRAWS:
            words += f"{estimate.estimate:.0%}, "
        words += (
            f"between {estimate.lower:.0%} and {estimate.upper:.0%}, by {estimate.num_audited} "
            "items drawn at random."
        )
        if self._target is not None:
            advice = advise_stopping(estimate, self._target)
            self.is_reached = advice.stop
            if advice.stop:
                words += (
                    f" Stop: the target, {self._target:.0%}, is reached, by {advice.num_trained} "
                    f"labels to learn from and {advice.num_audited} to measure."
                )
            else:
                words += f" The target is {self._target:.0%}."
        self.accuracy = words

    def _note(self, estimate: AccuracyEstimate) -> None:
        """Keep an estimate that is new, for the second view."""
        new = Measured(estimate.num_trained, estimate.num_audited, estimate.lower, estimate.upper)
        with self.notes.lock:
            if self.notes.measured and self.notes.measured[-1][:2] == new[:2]:
                return
        with contextlib.suppress(ValueError, OSError):  # as in `_publish`
            self._session.record(MEASURED, extra=new._asdict())

    def _is_stable(self, model: Model) -> bool:
        """Whether the last models, each of a tenth more labels, predict almost the same."""
        last = self._steps[-1][0] if self._steps else 0
        predicted = model.probs.argmax(axis=1)
        if model.num_labels >= last + max(_LEAST_STEP, last // 10):
            self._steps = [*self._steps[-_STEPS:], (model.num_labels, predicted)]
        if len(self._steps) <= _STEPS:
            return False
        return predictions_agreement(np.stack([each for _, each in self._steps])).is_stable

    def _learner(self, num_classes: int, x: jax.Array) -> tuple[Any, Any]:
        if num_classes not in self._learners:
            learner = logistic_head(num_classes)
            self._learners = {num_classes: (learner, learner.init(jax.random.key(0), x))}
        return self._learners[num_classes]

    def _plan_length(self, num_points: int) -> int:
        """As many as will be answered until the next plan is there, and as many again."""
        if self._batch_size is not None:
            return min(self._batch_size, num_points)
        with self._lock:
            left, length = len(self._plan), self._length
        if self._rounds and left < length // 2:
            length = min(2 * length, _LONGEST_PLAN)
        self._length = length
        return min(length, num_points)

    def _publish(self, model: Model) -> None:
        """Put the model in the place of the last one, and note how it differs."""
        last, self.model = self.model, model
        if last is not None and last.num_labels == model.num_labels:
            return
        agreement = None
        if last is not None and last.num_labels and last.probs.shape == model.probs.shape:
            agreement = float((last.probs.argmax(1) == model.probs.argmax(1)).mean())
        note = {
            "num_labels": model.num_labels,
            "confidence": float(model.probs.max(axis=1).mean()),
            "agreement": agreement,
        }
        with contextlib.suppress(ValueError, OSError):  # a note; the session says more elsewhere
            self._session.record(FIT, extra=note)
