"""Rows of a damaged SQLite file: whatever page of it still holds a table's rows is read.

Nothing is needed but the pages with the rows themselves: the header, the schema, and the pages that
lead from one to the next may be gone. The pages that a write-ahead log has are read in place of the
file's.

Source: the format is public, "Database File Format" and "WAL-mode File Format" of SQLite.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: That of a session's file.
PAGE_SIZE = 4096
_LEAF = 0x0D
_WAL_HEADER, _FRAME_HEADER = 32, 24
# Bytes of the integers of serial types 1 to 6.
_INTEGER_BYTES = (1, 2, 3, 4, 6, 8)


def read_pages(path: Path) -> dict[int, bytes]:
    """The pages of a file, from 1, the log's in the place of its own; the last may be short.

    Raises:
      OSError: it cannot be read.
    """
    content = path.read_bytes()
    pages = {
        start // PAGE_SIZE + 1: content[start : start + PAGE_SIZE]
        for start in range(0, len(content), PAGE_SIZE)
    }
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        pages |= _logged_pages(log.read_bytes())
    return pages


def _logged_pages(log: bytes) -> dict[int, bytes]:
    """The pages of all transactions that were committed to a log, in their last state."""
    pages, uncommitted = {}, {}
    salt = log[16:24]
    for start in range(_WAL_HEADER, len(log), _FRAME_HEADER + PAGE_SIZE):
        frame = log[start : start + _FRAME_HEADER + PAGE_SIZE]
        if len(frame) < _FRAME_HEADER + PAGE_SIZE or frame[8:16] != salt:
            break  # what is behind is of an earlier round of the log
        number, size = struct.unpack(">II", frame[:8])
        uncommitted[number] = frame[_FRAME_HEADER:]
        if size:  # the last frame of a transaction
            pages |= uncommitted
            uncommitted = {}
    return pages


def rows(pages: dict[int, bytes]) -> Iterator[tuple[Any, ...]]:
    """What looks like a row of any table on any page: its rowid, then its columns.

    The column that is the rowid itself is None among the columns. Not every row is one: damage, and
    old copies on pages that were given up, are for the caller to tell.
    """
    for number, page in pages.items():
        start = 100 if number == 1 else 0  # behind the header of the file
        if len(page) < start + 8 or page[start] != _LEAF:
            continue
        (num_cells,) = struct.unpack_from(">H", page, start + 3)
        for position in range(start + 8, min(start + 8 + 2 * num_cells, len(page) - 1), 2):
            (cell,) = struct.unpack_from(">H", page, position)
            try:
                yield _row(page, cell, pages)
            except (IndexError, KeyError, ValueError, struct.error):
                continue  # no row, or none that is whole


def _row(page: bytes, cell: int, pages: dict[int, bytes]) -> tuple[Any, ...]:
    length, position = _varint(page, cell)
    rowid, position = _varint(page, position)
    return (rowid, *_columns(_payload(page, position, length, pages)))


def _payload(page: bytes, position: int, length: int, pages: dict[int, bytes]) -> bytes:
    """What a cell holds; what does not fit into its page is in a chain of others."""
    local = length
    if length > PAGE_SIZE - 35:
        least = (PAGE_SIZE - 12) * 32 // 255 - 23
        local = least + (length - least) % (PAGE_SIZE - 4)
        if local > PAGE_SIZE - 35:
            local = least
    parts = [page[position : position + local]]
    missing = length - local
    following = page[position + local : position + local + 4]
    while missing > 0:
        (number,) = struct.unpack(">I", following)
        part = pages[number][4 : 4 + missing]
        if not part:
            raise ValueError("an empty page")
        following = pages[number][:4]
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _columns(payload: bytes) -> list[Any]:
    """The columns of a record: a header with their types, then their values."""
    position: int
    end, position = _varint(payload, 0)
    start, values = end, []
    while position < end:
        kind, position = _varint(payload, position)
        if kind >= 12:
            length = (kind - 12) // 2
            content = payload[start : start + length]
            values.append(content.decode() if kind % 2 else content)
        elif kind == 7:
            length = 8
            values.append(struct.unpack_from(">d", payload, start)[0])
        elif 1 <= kind <= 6:
            length = _INTEGER_BYTES[kind - 1]
            values.append(int.from_bytes(payload[start : start + length], "big", signed=True))
        else:
            length = 0
            values.append({0: None, 8: 0, 9: 1}[kind])
        start += length
    if start != len(payload):
        raise ValueError("no record")
    return values


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, big end first, 7 bits a byte; and where it ends."""
    value = 0
    for i in range(8):
        byte = data[position + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + i + 1
    return value << 8 | data[position + 8], position + 9
