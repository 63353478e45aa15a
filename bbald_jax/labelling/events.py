"""What happened in a session: one event a row of its file, with a checksum; never changed."""

import json
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

#: What the session itself writes; whoever adds kinds with `record` takes other names.
OWN_KINDS = (
    *("create", "ask", "tell", "skip", "import", "correct", "undo"),
    *("release", "forget", "add_classes", "add_points", "repair"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a session, to one point or to none.

    Attributes:
      id: 1, 2, ... in the order in which they happened.
      time: seconds since 1970, UTC, by the clock of the machine that wrote it.
      kind: "ask", "tell", "skip", "import", "correct", "undo", "release", "forget", "create",
        "add_classes", "add_points", "repair", or what `Session.record` was given.
      index: the point; None where it is about none.
      label: the label told; None where there is none. For "undo": the one that holds again.
      annotator: who did it, or has the point in hand; None for nobody in particular.
      extra: more, as JSON has it. For "ask": `acquisition`, the name of the function, and, unless
        it was `assign`, `ask`, the number of the ask.
    """

    id: int
    time: float
    kind: str
    index: int | None = None
    label: int | None = None
    annotator: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Labels(NamedTuple):
    """Points and their labels.

    Attributes:
      indices: `[L]`, rising.
      labels: `[L]`, 0 to C - 1.
    """

    indices: np.ndarray
    labels: np.ndarray


class Answer(NamedTuple):
    """What one annotator says of one point, or that they have it in hand.

    Attributes:
      point: its index.
      annotator: None for nobody in particular.
      label: 0 to C - 1; None for a point in hand, and for one that was skipped.
      time: when it was given, or handed out; seconds since 1970, UTC.
    """

    point: int
    annotator: str | None
    label: int | None
    time: float


class Opinion(NamedTuple):
    """How one annotator stands to one point.

    Attributes:
      status: as in `Pool`: they have it in hand, labelled or skipped it.
      label: 0 to C - 1; None where they have not labelled it.
      kind: of the event from which that follows, such as "tell" or "import".
    """

    status: int
    label: int | None
    kind: str


class Disagreement(NamedTuple):
    """A point of which annotators say different things.

    Attributes:
      point: its index.
      labels: what each of them says.
    """

    point: int
    labels: dict[str | None, int]


#: The columns of the table `events`.
Row = tuple[int, float, str, int | None, int | None, str, str, int]


def checksum(*values: Any) -> int:
    """CRC-32 of some numbers, strings and None: damage on the disk changes it."""
    return zlib.crc32(json.dumps(values).encode())


def to_row(event: Event) -> Row:
    """An event as a row of the table."""
    extra = json.dumps(event.extra) if event.extra else ""
    content = (event.id, event.time, event.kind, event.index, event.label, event.annotator or "")
    return (*content, extra, checksum(*content, extra))


def is_whole(row: Any) -> bool:
    """Whether a row is as `to_row` made it, and not what damage left of one."""
    try:
        return len(row) == 8 and checksum(*row[:-1]) == row[-1]
    except TypeError:  # bytes, where text was
        return False


def from_row(row: Row) -> Event:
    """The event of a row that is whole."""
    number, time, kind, point, label, annotator, extra, _ = row
    content = json.loads(extra) if extra else {}
    return Event(number, time, kind, point, label, annotator or None, content)
