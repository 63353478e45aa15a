"""Files that are replaced at once."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content at once: a process killed at any moment leaves the old or the new.

    It is written beside the file, to `path` + ".tmp", brought to the disk, and renamed.

    Args:
      path: in a folder that is there; the file itself need not be.
      text: all of its content.

    Raises:
      OSError: it cannot be written; what was there before still is.
    """
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
