"""What can be read of a damaged session, in a new file.

The events are all that is needed, and each has a checksum: whatever row of the file is one is
taken, wherever it is (`pages`). What follows from the events is worked out anew.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

from bbald_jax.labelling import state
from bbald_jax.labelling.events import Event, checksum, from_row, is_whole
from bbald_jax.labelling.pages import read_pages, rows
from bbald_jax.labelling.state import Summary
from bbald_jax.labelling.store import Store
from bbald_jax.labelling.transaction import Transaction
from bbald_jax.pool import LABELLED


class Repaired(NamedTuple):
    """What was recovered.

    Attributes:
      num_events: events in the new file.
      num_lost: events that were there, by the gaps in their ids.
      is_end_known: whether the number of all events was readable; else more may be lost behind the
        last one that was found.
      num_labelled: labelled points in the new file.
      num_names_lost: points whose names were lost; they are called `point 17`.
    """

    num_events: int
    num_lost: int
    is_end_known: bool
    num_labelled: int
    num_names_lost: int


class _Found(NamedTuple):
    """By their ids, and points."""

    events: dict[int, Event]
    names: dict[int, str | int]
    summary: Summary | None


def repair(path: Path, output: Path) -> Repaired:
    """Write what can be read of a session to a new one; the old file stays as it is.

    The new one ends with an event "repair", whose id is above that of all that were lost.

    Args:
      path: nothing may write to it meanwhile.
      output: not there yet.

    Raises:
      ValueError: no event is left in it, or nothing that says how many points there are.
      FileExistsError: there is something at `output`.
      OSError: the one cannot be read, or the other not be written.
    """
    found = _find(read_pages(path))
    if not found.events:
        raise ValueError(f"{path}: no event of a session can be read in it")
    sizes = _sizes(path, found)
    events = _consistent(found.events, sizes)
    names = _all_names(found.names, sizes.num_points) if sizes.has_names else []
    last = max(*found.events, sizes.last_event)
    num_lost = last - len(found.events)

    def fill(transaction: Transaction) -> None:
        for event in events:
            transaction.put(event)
        transaction.name(enumerate(names))
        extra = {"num_lost": num_lost, "num_asks": sizes.num_asks}
        transaction.put(Event(last + 1, time.time(), "repair", extra=extra))

    store = Store.create(output, fill, state.created(events[0]))
    ((num_labelled,),) = store.query("SELECT count(*) FROM points WHERE status = ?", LABELLED)
    store.close()
    return Repaired(
        num_events=len(found.events),
        num_lost=num_lost,
        is_end_known=found.summary is not None,
        num_labelled=num_labelled,
        num_names_lost=sum(point not in found.names for point in range(len(names))),
    )


def _find(pages: dict[int, bytes]) -> _Found:
    events: dict[int, Event] = {}
    names: dict[int, str | int] = {}
    summaries = []
    for rowid, *columns in rows(pages):
        if len(columns) == 8 and isinstance(columns[1], int | float):
            row = (rowid, float(columns[1]), *columns[2:])  # SQLite keeps 1.0 as 1
            if is_whole(row):
                events[rowid] = from_row(row)
        elif len(columns) == 3:
            _, content, its_checksum = columns
            if isinstance(content, str | int) and checksum(rowid, content) == its_checksum:
                names[rowid] = content
            elif summary := state.summary_of(content, its_checksum):
                summaries.append(summary)
    latest = max(summaries, key=lambda summary: summary.last_event, default=None)
    return _Found(events, names, latest)


def _sizes(path: Path, found: _Found) -> Summary:
    """The sizes at the end, as the summary says, or the events; no less than the events need."""
    sizes = found.summary
    if sizes is None:
        if 1 not in found.events:
            raise ValueError(
                f"{path}: what says how many points and classes it has is lost; events that can "
                f"be read: {len(found.events)}"
            )
        sizes = state.created(found.events[1])
    classes = dict(enumerate(sizes.classes or []))
    num_points, num_classes = sizes.num_points, sizes.num_classes
    for event in found.events.values():
        if event.kind == "add_points":
            num_points = max(num_points, event.extra["first"] + event.extra["num_points"])
        elif event.kind == "add_classes":
            num_classes = max(num_classes, event.extra["first"] + event.extra["num_classes"])
            classes |= dict(enumerate(event.extra["classes"] or [], event.extra["first"]))
        num_points = max(num_points, 0 if event.index is None else event.index + 1)
        num_classes = max(num_classes, 0 if event.label is None else event.label + 1)
    return sizes._replace(
        num_points=num_points,
        num_classes=num_classes,
        classes=None if sizes.classes is None else _all_names(classes, num_classes, "class"),
    )


def _consistent(found: dict[int, Event], sizes: Summary) -> list[Event]:
    """The events by their ids; where they do not lead to the sizes, the first one says them all."""
    events = [found[number] for number in sorted(found)]
    if events[0].kind == "create":
        told = state.created(events[0])
        for event in events:
            told = state.resized(told, event)
        if told.as_created() == sizes.as_created():
            return events
    others = [event for event in events if event.kind not in state.RESIZING]
    return [Event(1, events[0].time, "create", extra=sizes.as_created()), *others]


def _all_names(names: dict[int, Any], number: int, what: str = "point") -> list[Any]:
    """All names, those that were lost made up, of the kind of the others and unlike them."""
    taken = set(names.values())
    are_numbers = any(isinstance(name, int) for name in taken)
    made_up: list[Any] = []
    for index in range(number):
        name = names.get(index)
        if name is None:
            name = -1 - index if are_numbers else f"{what} {index}"
            while name in taken:
                name = name - number if isinstance(name, int) else f"{name} (name lost)"
            taken.add(name)
        made_up.append(name)
    return made_up
