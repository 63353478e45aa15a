"""What follows from the events: who says what of which point, and what holds.

Three tables beside that of the events. `answers` has a row for each annotator and point: in hand,
labelled or skipped. `points` has a row for each point that is not unlabelled: what holds of it, as
`resolve` says. `summary` is one row with the sizes. `apply` brings them up to date in the
transaction that appends an event, so they never differ from what all events, applied again to empty
tables (`rebuild`), would give. It refuses nothing: what may happen, the session has checked before.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from bbald_jax.labelling.events import Event, checksum
from bbald_jax.pool import LABELLED, PENDING, SKIPPED

TABLES = """
CREATE TABLE answers (
  point INTEGER NOT NULL, annotator TEXT NOT NULL, status INTEGER NOT NULL, label INTEGER,
  event INTEGER NOT NULL, decides INTEGER NOT NULL, PRIMARY KEY (point, annotator)
) WITHOUT ROWID;
CREATE INDEX in_hand ON answers (annotator, point) WHERE status = 1;
CREATE TABLE points (point INTEGER PRIMARY KEY, status INTEGER NOT NULL, label INTEGER);
CREATE TABLE summary (one INTEGER PRIMARY KEY, content TEXT NOT NULL, checksum INTEGER NOT NULL);
"""
#: The events that say how many points and classes there are.
RESIZING = ("create", "add_points", "add_classes")
assert PENDING == 1, "the index in_hand says so"


class Summary(NamedTuple):
    """Sizes of a session, and how far it is.

    Attributes:
      num_points: N.
      num_classes: C.
      classes: their names; None where they have none.
      seed: everything random comes from it.
      has_names: whether the points have names (`ids`).
      num_asks: how many times `ask` chose points.
      last_event: the id of the last event.
    """

    num_points: int
    num_classes: int
    classes: list[str] | None
    seed: int
    has_names: bool
    num_asks: int = 0
    last_event: int = 0

    def as_created(self) -> dict[str, Any]:
        """What the event "create" says of it."""
        return {
            "num_points": self.num_points,
            "num_classes": self.num_classes,
            "classes": self.classes,
            "seed": self.seed,
            "has_names": self.has_names,
        }


def created(event: Event) -> Summary:
    """The sizes that a session began with, from its event "create"."""
    return Summary(**event.extra)


def read_summary(db: sqlite3.Connection) -> Summary | None:
    """The summary; None where it is damaged, or not there."""
    row = db.execute("SELECT content, checksum FROM summary WHERE one = 1").fetchone()
    return None if row is None else summary_of(*row)


def summary_of(content: object, its_checksum: object) -> Summary | None:
    """The summary that a row holds; None where it is not whole."""
    if not isinstance(content, str) or checksum(content) != its_checksum:
        return None
    return Summary(*json.loads(content))


def write_summary(db: sqlite3.Connection, summary: Summary) -> None:
    """Put another summary in the place of the last one."""
    content = json.dumps(summary)
    db.execute("REPLACE INTO summary VALUES (1, ?, ?)", (content, checksum(content)))


def apply(db: sqlite3.Connection, summary: Summary, event: Event) -> Summary:
    """Bring `answers` and `points` up to date with an event; the summary that holds after it."""
    point, annotator, extra = event.index, event.annotator or "", event.extra
    summary = summary._replace(last_event=event.id)

    def put(status: int, label: int | None = None, at: int = event.id, decides: object = 0) -> None:
        values = (point, annotator, status, label, at, int(bool(decides)))
        db.execute("REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", values)

    def drop(whose: str, and_only: str = "") -> None:
        db.execute(
            f"DELETE FROM answers WHERE point = ? AND annotator = ? {and_only}", (point, whose)
        )

    match event.kind:
        case kind if kind in RESIZING:
            return resized(summary, event)
        case "repair":
            return summary._replace(num_asks=max(summary.num_asks, extra["num_asks"]))
        case "forget":
            theirs = db.execute("SELECT point FROM answers WHERE annotator = ?", (annotator,))
            points = theirs.fetchall()
            db.execute("DELETE FROM answers WHERE annotator = ?", (annotator,))
            for (each,) in points:
                resolve(db, each)
            return summary
        case "ask":
            put(PENDING)
            if "ask" in extra:
                summary = summary._replace(num_asks=max(summary.num_asks, extra["ask"] + 1))
        case "tell" | "import" | "skip":
            drop("", f"AND status = {PENDING}")  # what nobody in particular had, they have answered
            put(SKIPPED if event.kind == "skip" else LABELLED, event.label)
        case "correct":
            put(LABELLED, event.label, decides=extra["decides"])
        case "release":
            drop(annotator, f"AND status = {PENDING}")
        case "undo":
            if extra["back_to"] == "in hand":
                put(PENDING)
            elif extra["back_to"] == "nothing":
                drop(annotator)
            else:
                put(LABELLED, event.label, at=extra["back_to"], decides=extra["decides"])
        case _:  # what `record` wrote
            return summary
    assert point is not None
    resolve(db, point)
    return summary


def resized(summary: Summary, event: Event) -> Summary:
    """The sizes after an event that adds to them; after any other, the same."""
    extra = event.extra
    if event.kind == "add_points":
        return summary._replace(num_points=summary.num_points + extra["num_points"])
    if event.kind == "add_classes":
        names = extra["classes"]
        classes = None if names is None else [*(summary.classes or []), *names]
        total = summary.num_classes + extra["num_classes"]
        return summary._replace(num_classes=total, classes=classes)
    return summary


def resolve(db: sqlite3.Connection, point: int) -> None:
    """Write down what holds of a point.

    Labelled, if anyone labelled it: with the latest decision, if there is one, else with the label
    that most annotators give, the latest among equally many. Else pending, if anyone has it in
    hand; else skipped, if anyone skipped it; else nothing holds.
    """
    rows = db.execute(
        "SELECT status, label, decides FROM answers WHERE point = ? ORDER BY event", (point,)
    ).fetchall()
    labels = [label for status, label, _ in rows if status == LABELLED]
    decided = [label for status, label, decides in rows if status == LABELLED and decides]
    statuses = {status for status, _, _ in rows}
    if labels:
        votes = Counter(labels)
        latest_last = sorted(range(len(labels)), key=lambda i: (votes[labels[i]], i))
        label = decided[-1] if decided else labels[latest_last[-1]]
        values = (point, LABELLED, label)
    elif statuses:
        values = (point, PENDING if PENDING in statuses else SKIPPED, None)
    else:
        db.execute("DELETE FROM points WHERE point = ?", (point,))
        return
    db.execute("REPLACE INTO points VALUES (?, ?, ?)", values)


def rebuild(db: sqlite3.Connection, start: Summary, events: Iterable[Event]) -> Summary:
    """Empty the tables and apply all events to them; the summary is written, too."""
    db.execute("DELETE FROM answers")
    db.execute("DELETE FROM points")
    summary = start
    for event in events:
        summary = apply(db, summary, event)
    write_summary(db, summary)
    return summary
