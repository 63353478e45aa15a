"""Files that are whole or refused: replaced at once, and recognised when they are read back."""

import errno
import hashlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

#: What `write_atomically` is writing: whoever ends the process at once removes it.
unfinished: set[Path] = set()


def destination(path: Path) -> Path:
    """The file that a path leads to, through links: one that can be replaced, or is not there yet.

    Raises:
      OSError: links in a circle, a folder, or a device.
    """
    # Not `resolve`, which raises RuntimeError or nothing at links in a circle.
    final = Path(os.path.realpath(path))
    if final.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if final.exists() and not final.is_file():
        raise OSError(errno.EINVAL, "Not a regular file, so it cannot be replaced", str(path))
    return final


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content at once: a process killed at any moment leaves the old or the new.

    It is written beside the file, to a name of its own that ends in ".tmp", brought to the disk,
    and renamed. A link is followed.

    Args:
      path: in a folder that is there; the file itself need not be.
      content: all of it; text is written as UTF-8.

    Raises:
      OSError: it cannot be written; what was there before still is.
    """
    path = destination(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    unfinished.add(temporary)
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        unfinished.discard(temporary)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the new name may be lost with the power
    finally:
        os.close(folder)


def finite(value: Any) -> Any:
    """Infinity and NaN as None, in lists and dictionaries too: JSON has no numbers for them."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_document(path: Path, content: Any, *, kind: str, version: int) -> None:
    """Write JSON that says what it is, in which version, and by a checksum that it is whole.

    Args:
      path: see `write_atomically`.
      content: what `json` can write; tuples come back as lists.
      kind: what the content is, in words.
      version: of the content; a reader of an older one refuses it.

    Raises:
      OSError: it cannot be written; what was there before still is.
    """
    document = {"kind": kind, "version": version, "sha256": _digest(content), "content": content}
    write_atomically(path, json.dumps(document) + "\n")


def read_document(path: Path, *, kind: str, version: int) -> Any:
    """The content of a file that `write_document` wrote.

    Raises:
      ValueError: the file is of another kind, of a newer version, or damaged.
      OSError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(
            f"{path}: not a {kind}, or cut short or damaged; pass another file, or restore this one"
        ) from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ValueError(f"{path}: not a {kind}; pass another file")
    there = document.get("version")
    if isinstance(there, int) and there > version:
        raise ValueError(
            f"{path}: written by a newer bbald_jax (version {there} of the format, this one reads "
            f"up to {version}); update bbald_jax"
        )
    content = document.get("content")
    if document.get("sha256") != _digest(content):
        raise ValueError(f"{path}: damaged, its content is not what was saved; restore the file")
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
