"""What JAX compiled is kept, so that the second call of the same shape compiles nothing.

JAX's own persistent cache, in a folder of the user's: for `bbald` only, since a library must not
write where nobody asked it to.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Set to 0 (or off, false, no), nothing is kept.
VARIABLE = "BBALD_COMPILATION_CACHE"
#: JAX's own limit needs a package more, and looks at every file whenever it writes one.
MOST_BYTES = 2**30

_OFF = ("0", "off", "false", "no")
# A process that was killed, or a full disk, leaves a part of a file, which JAX would never replace.
_DAMAGED = "Error reading persistent compilation cache entry for '"


def cache_folder() -> Path | None:
    """Where compiled programs are kept by default; None where they cannot be.

    `bbald_jax/compiled` in `$XDG_CACHE_HOME` or `~/.cache`, on macOS in `~/Library/Caches`. Whoever
    can write there has us run what they like, so it must be ours.
    """
    try:
        if sys.platform == "darwin":
            caches = Path.home() / "Library" / "Caches"
        else:
            caches = Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache")
        folder = caches / "bbald_jax" / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_ours = folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # no home, or a file in the way
        return None
    return folder if is_ours else None


@contextmanager
def compiled_programs_kept() -> Iterator[None]:
    """Compile with JAX's persistent cache in the user's folder.

    Nothing happens where `VARIABLE` is off, where the folder cannot be written, and where JAX has
    been told another folder (by `JAX_COMPILATION_CACHE_DIR`, for one).
    """
    if os.environ.get(VARIABLE, "").lower() in _OFF:
        yield
        return
    # Read when jaxlib is loaded. With every program that it loads, XLA logs as an error on some
    # processors that a preference of its compiler (prefer-no-gather) is no feature of the machine
    # (jax issue 38445). What matters is raised too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import jax

    is_told = jax.config.values["jax_compilation_cache_dir"] is not None
    if is_told or (folder := cache_folder()) is None:
        yield
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The small programs too: there are a dozen of them around each large one.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    before = folder.stat().st_mtime_ns
    damaged: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        text = str(message)
        if text.startswith(_DAMAGED):
            damaged.append(text.removeprefix(_DAMAGED).partition("'")[0])
        elif "persistent compilation cache" not in text:
            show(message, *args, **kwargs)

    warnings.showwarning = note
    try:
        yield
    finally:
        warnings.showwarning = show
        with suppress(OSError):  # another process may be tidying up
            for program in damaged:  # every entry of that name: the message has no more of it
                _remove(folder.glob(f"{program}-*"))
            if folder.stat().st_mtime_ns != before:
                shorten(folder, MOST_BYTES)


def shorten(folder: Path, most_bytes: int) -> None:
    """Remove the files that were not read for longest, until the rest is no larger than that."""
    files = []
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        # Some disks note no reading.
        files.append((max(status.st_atime_ns, status.st_mtime_ns), status.st_size, entry.path))
    size = 0
    for _, num_bytes, path in sorted(files, reverse=True):
        size += num_bytes
        if size > most_bytes:
            _remove([Path(path)])


def _remove(paths: Iterator[Path] | list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
