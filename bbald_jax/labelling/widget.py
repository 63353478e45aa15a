"""The labeller of `bbald label` in a notebook's cell, on the same kind of session.

The cell shows the page's own markup, style and script; what they would ask the server is sent as
messages of the widget, and answered by the same `actions`, in the kernel.
"""

import atexit
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbald_jax.extras import import_extra
from bbald_jax.labelling.audit import AccuracyEstimate
from bbald_jax.labelling.audit_log import AuditedModel
from bbald_jax.labelling.page.actions import (
    Reply,
    make_actions,
    perform,
    picture_of,
    refusal,
    static_text,
)
from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.items import ImageArray, Items, Texts, check_images
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.opening import default_session, feature_maker, open_session, user_name
from bbald_jax.labelling.session import Session

anywidget = import_extra("anywidget", extra="widget", user="the labeller in a notebook")

# The one that is open on each session: a cell that runs again takes its place.
_OPEN: "weakref.WeakValueDictionary[Path, Labeller]" = weakref.WeakValueDictionary()


class Labeller(anywidget.AnyWidget):
    """A cell in which to label; it learns meanwhile what to ask next, and how good it is.

    ```
    labeller = Labeller(images, classes=["cat", "dog"], session="labels.db")
    labeller  # shows it; label there, with the mouse or the keys
    labeller.predictions()  # [N, C]
    labeller.accuracy  # of labeller.measured, on all N, with an interval
    ```

    Every answer is in the session's file before it counts; the same call goes on where it was, in
    the same kernel or another. While a cell runs, the kernel takes no answers.

    Attributes:
      session: what was asked and answered; a `bb.Session`.
      items: what is labelled.
      desk: takes the answers.
      learning: refits in a thread, until `close`.
    """

    _esm = "\n".join(
        (
            f"const MARKUP = {json.dumps(static_text('labeller.html'))};",
            f"const STYLE = {json.dumps(static_text('page.css'))};",
            static_text("labeller.js"),
            static_text("widget.js"),
        )
    )

    def __init__(
        self,
        data: Any,
        classes: Sequence[str] = (),
        session: str | Path | None = None,
        features: Any = None,
        *,
        annotator: str | None = None,
        column: str | None = None,
        array: str | None = None,
        batch_size: int | None = None,
        overlap: float = 0.0,
        timeout: float = 600.0,
        target_accuracy: float | None = None,
        seed: int = 0,
    ) -> None:
        """Begin a session or go on with it, and begin to learn.

        Args:
          data: images `[N, H, W]` or `[N, H, W, 1 or 3]`; texts, a sequence of N strings; or the
            path of a folder of images, or of a file, as for `bbald label`.
          classes: their names, for a new session; those that a session lacks are added to it.
          session: its file; of a path as `data` by default beside it, as for `bbald label`.
          features: what the model sees, `[N, D]` or a .npy of that, or a name (`image`, `graph`,
            `image+graph`, `text`); made of the items by default.
          annotator: who labels, until they say another name; by default the user of this machine.
          column: of texts, where a table has several.
          array: of images, where a .npz has several.
          batch_size: items planned at a time; by default so many that nobody waits.
          overlap: share of the items that two people label.
          timeout: seconds after which an item that somebody has in hand goes to others.
          target_accuracy: says when to stop.
          seed: of a new session.

        Raises:
          ValueError: data that cannot be labelled, or are not those of the session; no classes for
            a new session; no session for data in memory; features that do not fit.
          OSError: something cannot be read or written.
        """
        if isinstance(data, str | Path):
            given = Path(data)
            path = Path(session) if session is not None else default_session(given)
        elif session is None:
            raise ValueError("session: name a file, such as session='labels.db', that keeps labels")
        else:
            given, path = _in_memory(data), Path(session)
        if (before := _OPEN.get(path.resolve())) is not None:
            before.close()
        opened = open_session(path, given, classes, column=column, array=array, seed=seed)
        make = feature_maker(opened.items, features, seed=opened.session.seed, session=path)
        super().__init__()
        self.session: Session = opened.session
        self.items: Items = opened.items
        self.learning = Learning(self.session, make, batch_size=batch_size, target=target_accuracy)
        self.desk = Desk(self.session, self.learning, overlap=overlap, timeout=timeout)
        self._actions = make_actions(self.desk, self.items, name=annotator or user_name())
        self.on_msg(self._receive)
        self.learning.start()
        _OPEN[path.resolve()] = self

    @property
    def accuracy(self) -> AccuracyEstimate | None:
        """How often `measured` is right on all N items, with an interval that holds at every look.

        None before measuring has begun: when the model is stable, or by *Measure now*.
        """
        return self.learning.estimate

    @property
    def measured(self) -> AuditedModel | None:
        """The model that `accuracy` is about: `predicted`, `[N]` classes, and of how many labels.

        The model that has learnt since then is measured when it has twice as many labels.
        """
        with self.desk.notes.lock:
            self.desk.notes.follow()
            models = self.desk.notes.audit.models
            return models[-1] if models else None

    def predictions(self, *, timeout: float = 120.0) -> np.ndarray:
        """`[N, C]`, the probabilities of the latest model, which has learnt from every answer.

        Args:
          timeout: seconds to wait until it has.

        Raises:
          ValueError: nothing can be learnt.
          TimeoutError: it has not learnt from all answers in that time.
        """
        if not self.learning.wait_until_idle(timeout):
            raise TimeoutError(f"predictions: not learnt in {timeout:g} s; give a longer timeout")
        model = self.learning.model
        if model is None or self.learning.stage == "failed":
            why = self.learning.problem or "there are fewer than two classes"
            raise ValueError(f"predictions: nothing is learnt: {why}")
        return model.probs

    def handle(self, message: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Do what a message from the browser says, and make the reply.

        Args:
          message: `id`, which the reply bears again; `what`, the name of one of the `actions` or
            `picture`; `body`, as the page has it.

        Returns:
          The reply (`id`, `status` as HTTP has them, `content`), and the bytes of a picture.
        """
        message = message if isinstance(message, dict) else {}
        what, body = message.get("what"), message.get("body")
        pictures: list[bytes] = []
        if what == "picture":
            found = picture_of(self.items, body.get("index") if isinstance(body, dict) else None)
            if isinstance(found, Reply):
                reply = found
            else:
                pictures, reply = [found[0]], Reply(200, {"media_type": found[1]})
        else:
            reply = perform(self._actions, f"{what}", body)
        return {"id": message.get("id"), **reply._asdict()}, pictures

    def close(self) -> None:
        """End the view, and learning when its present round has ended; `session` can be read on."""
        # ipywidgets also calls it on what was refused above.
        if (learning := getattr(self, "learning", None)) is not None:
            learning.stop()
        super().close()

    def __repr__(self) -> str:
        """In the place of the labeller, where nothing shows widgets."""
        if not hasattr(self, "session"):
            return "<Labeller>"
        labelled, path = len(self.session.labelled.indices), self.session.path
        where = f"in {path.name}" if path else "in memory"
        return f"<Labeller: {labelled:,} of {len(self.items):,} labelled, {where}>"

    def _receive(self, _: Any, message: Any, __: Any) -> None:
        try:
            reply, pictures = self.handle(message)
        except Exception as error:
            # The cell tries again, and says so; ipywidgets writes the rest to the kernel's log.
            identity = message.get("id") if isinstance(message, dict) else None
            said = refusal(503, f"{type(error).__name__}: {error}")
            self.send({"id": identity, **said._asdict()})
            raise
        self.send(reply, pictures)


@atexit.register
def _stop() -> None:
    """A thread in the midst of XLA would end the kernel with an abort."""
    for labeller in [*_OPEN.values()]:
        labeller.learning.stop()


def _in_memory(data: Any) -> Texts | ImageArray:
    """What a sequence holds."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "UO" and data.ndim == 1:
        data = data.tolist()
    if not hasattr(data, "shape"):
        data = list(data)
        if data and all(isinstance(each, str) for each in data):
            return Texts(data)
    images = np.asarray(data)
    check_images("data", images)
    return ImageArray(images)
