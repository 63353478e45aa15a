"""What is read and written at once: queries, and events with all that follows from them."""

import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bbald_jax.labelling import state
from bbald_jax.labelling.events import Event, checksum, from_row, is_whole, to_row
from bbald_jax.labelling.state import Summary
from bbald_jax.pool import PENDING, UNLABELLED


class Row(NamedTuple):
    """What an annotator says of a point, as the table `answers` has it; see `state`."""

    status: int
    label: int | None
    event: int
    decides: int


class Transaction:
    """Reading and writing that happens at once, or not at all."""

    def __init__(self, db: sqlite3.Connection, summary: Summary) -> None:
        self._db, self.summary = db, summary

    def query(self, sql: str, *values: Any) -> list[tuple]:
        """The rows that a SELECT gives."""
        return self._db.execute(sql, values).fetchall()

    def status(self, point: int) -> int:
        """What holds of a point, as in `Pool`."""
        rows = self.query("SELECT status FROM points WHERE point = ?", point)
        return rows[0][0] if rows else UNLABELLED

    def answer(self, point: int, annotator: str | None) -> Row | None:
        """What an annotator says of a point, or that they have it in hand."""
        rows = self.query(
            "SELECT status, label, event, decides FROM answers WHERE point = ? AND annotator = ?",
            *(point, annotator or ""),
        )
        return Row(*rows[0]) if rows else None

    def holders(self, point: int) -> list[str | None]:
        """Who has a point in hand."""
        rows = self.query(
            "SELECT annotator FROM answers WHERE point = ? AND status = ?", point, PENDING
        )
        return [annotator or None for (annotator,) in rows]

    def event(self, number: int) -> Event:
        """One event."""
        (row,) = self.query("SELECT * FROM events WHERE id = ?", number)
        if not is_whole(row):
            raise sqlite3.DatabaseError(f"event {number} is not what was written")
        return from_row(row)

    def append(
        self,
        kind: str,
        point: int | None = None,
        label: int | None = None,
        annotator: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Append an event, with all that follows from it; its id is returned."""
        number = self.summary.last_event + 1
        self.put(Event(number, time.time(), kind, point, label, annotator, dict(extra or {})))
        return number

    def put(self, event: Event) -> None:
        """Append an event that has its number and time already; the ids rise."""
        self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", to_row(event))
        self.summary = state.apply(self._db, self.summary, event)

    def name(self, names: Iterable[tuple[int, str | int]]) -> None:
        """Give points their names: pairs of an index and a name."""
        rows = ((point, name, checksum(point, name)) for point, name in names)
        self._db.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
