"""The file of a session: an SQLite database of events, and of what follows from them.

Write-ahead log, `synchronous=FULL`: when a transaction has returned, it is on the disk. One
connection for all threads of a process, under a lock; each process opens the file for itself.
Everything that decides something reads and writes within one `writing()`, which no other process
and no other thread can be in meanwhile.
"""

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bbald_jax.labelling import state
from bbald_jax.labelling.events import Event, from_row, is_whole
from bbald_jax.labelling.pages import PAGE_SIZE
from bbald_jax.labelling.state import Summary
from bbald_jax.labelling.transaction import Transaction

#: In the header of the file: what it is, and in which version.
APPLICATION_ID, VERSION = 0x62424C44, 2
#: Seconds to wait for another process's transaction.
_PATIENCE = 60
# Rows that are read at a time.
_CHUNK_ROWS = 1_000

_TABLES = """
CREATE TABLE events (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, point INTEGER, label INTEGER,
  annotator TEXT NOT NULL, extra TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE TRIGGER events_never_change BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are appended, never changed'); END;
CREATE TRIGGER events_never_go BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are appended, never changed'); END;
CREATE TABLE names (point INTEGER PRIMARY KEY, name NOT NULL, checksum INTEGER NOT NULL);
CREATE UNIQUE INDEX points_of_names ON names (name);
"""


class Store:
    """An open file; `None` as its path is a database in memory."""

    def __init__(self, path: Path | None, db: sqlite3.Connection) -> None:
        self.path, self._db, self._lock = path, db, threading.RLock()
        self.close = weakref.finalize(self, db.close)

    @classmethod
    def create(cls, path: Path | None, fill: Callable[[Transaction], None], start: Summary):
        """A new file.

        Args:
          path: not there yet; None for one in memory.
          fill: writes the first events and the names, in the transaction that makes the tables: a
            process that is killed leaves an empty file, into which one can be created.
          start: the sizes.

        Raises:
          FileExistsError: something is there.
          OSError: it cannot be written.
        """
        if path is not None and path.exists() and path.stat().st_size and not _is_blank(path):
            raise FileExistsError(f"{path}: is there already; open it, or name another file")
        store = cls(path, _connect(path))
        with store._at_the_file():
            store._db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            store._db.execute("PRAGMA journal_mode = WAL")
            store._db.execute("PRAGMA synchronous = FULL")
            store._db.execute("BEGIN IMMEDIATE")
            try:
                if store._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise FileExistsError(f"{path}: is there already; open it")
                for statement in _statements(_TABLES + state.TABLES):
                    store._db.execute(statement)
                store._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                store._db.execute(f"PRAGMA user_version = {VERSION}")
                transaction = Transaction(store._db, start)
                fill(transaction)
                state.write_summary(store._db, transaction.summary)
                store._db.execute("COMMIT")
            except BaseException:
                store.close()  # which takes back what was not committed
                raise
        if path is not None:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # else the new name may be lost with the power
            finally:
                os.close(folder)
        return store

    @classmethod
    def open(cls, path: Path) -> "Store":
        """The file that is there; its structure is checked as a whole.

        Raises:
          ValueError: it is no session, or damaged, or of a newer version.
          OSError: it cannot be read or written.
        """
        with open(path, "rb") as file:  # SQLite would make one that is not there
            beginning = file.read(32)
        if beginning[:16] != b"SQLite format 3\0" and not _has_log(path):
            raise ValueError(_no_session(path, beginning))
        store = cls(path, _connect(path))
        with store._at_the_file():
            store._db.execute("PRAGMA synchronous = FULL")
            (application,) = store._db.execute("PRAGMA application_id").fetchone()
            (version,) = store._db.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                store.close()
                raise ValueError(f"{path}: a database, but no bbald_jax session; pass another file")
            if version > VERSION:
                store.close()
                raise ValueError(
                    f"{path}: written by a newer bbald_jax (version {version} of the format, this "
                    f"one reads up to {VERSION}); update bbald_jax"
                )
            (result,) = store._db.execute("PRAGMA quick_check(1)").fetchone()
            if result != "ok" or state.read_summary(store._db) is None:
                raise sqlite3.DatabaseError(result)
        return store

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Several queries of one state."""
        with self._transaction("BEGIN") as transaction:
            yield transaction

    @contextlib.contextmanager
    def writing(self) -> Iterator[Transaction]:
        """One at a time, in whatever process; it is on the disk at the end, or did not happen."""
        with self._transaction("BEGIN IMMEDIATE") as transaction:
            before = transaction.summary
            yield transaction
            if transaction.summary != before:
                state.write_summary(self._db, transaction.summary)

    def query(self, sql: str, *values: Any) -> list[tuple]:
        """The rows that a SELECT gives."""
        with self.reading() as transaction:
            return transaction.query(sql, *values)

    @property
    def summary(self) -> Summary:
        """As it is now."""
        with self.reading() as transaction:
            return transaction.summary

    def events(self, condition: str = "1", *values: Any) -> Iterator[Event]:
        """The events that fit an SQL condition, by their ids; read in chunks, each of one state.

        Raises:
          ValueError: one of them is damaged.
        """
        last = 0
        while True:
            rows = self.query(
                f"SELECT * FROM events WHERE id > ? AND ({condition}) ORDER BY id LIMIT ?",
                *(last, *values, _CHUNK_ROWS),
            )
            for row in rows:
                if not is_whole(row):
                    raise ValueError(_damaged(self.path, f"event {row[0]} is not what was written"))
                yield from_row(row)
            if len(rows) < _CHUNK_ROWS:
                return
            last = rows[-1][0]

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._at_the_file():
            if self._db.in_transaction:
                raise RuntimeError("a transaction within a transaction")
            self._db.execute(begin)
            try:
                summary = state.read_summary(self._db)
                if summary is None:
                    raise sqlite3.DatabaseError("its summary is not what was written")
                yield Transaction(self._db, summary)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite has ended it where the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _at_the_file(self) -> Iterator[None]:
        """One thread at a time; SQLite's errors in one line that says what to do."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # in what we wrote
                    raise
                if "locked" in str(error):
                    raise TimeoutError(
                        f"{self.path}: another process has kept it locked for {_PATIENCE} s; end "
                        "that process, then try again"
                    ) from error
                raise OSError(f"{self.path}: {error}") from error
            except sqlite3.ProgrammingError as error:
                if "closed" not in str(error):
                    raise
                raise ValueError(f"{self.path}: this session is closed; open it again") from error
            except sqlite3.IntegrityError:
                raise
            except sqlite3.DatabaseError as error:
                raise ValueError(_damaged(self.path, str(error))) from error


def _connect(path: Path | None) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: {error}") from error


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += f"{line}\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _is_blank(path: Path) -> bool:
    """Whether a file is a database without a table: what a killed `create` leaves."""
    try:
        with contextlib.closing(_connect(path)) as db:
            return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except (sqlite3.DatabaseError, OSError):
        return False


def _has_log(path: Path) -> bool:
    return os.path.exists(f"{path}-wal")


def _damaged(path: Path | None, what: str) -> str:
    """In one line."""
    what = " ".join(what.split())
    return (
        f"{path}: damaged ({what}); recover what can be read with: "
        f"bbald session repair {path} --output NEW"
    )


def _no_session(path: Path, beginning: bytes) -> str:
    if beginning.startswith(b'{"kind": "bbald_'):
        return (
            f"{path}: of the first version of the format; import it with "
            f"bb.Session.from_version_1({str(path)!r}, NEW)"
        )
    return (
        f"{path}: not a bbald_jax session; pass another file, or, if it was one, recover what can "
        f"be read with: bbald session repair {path} --output NEW"
    )
