"""How much memory is free, as far as the system says."""

import os
from pathlib import Path

_SYSTEM = Path("/proc/meminfo")
# What a container may have, and what it has: of Linux's control groups, version 2.
_MOST = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")


def free_memory() -> int:
    """Bytes that this process can take; where the system does not say, half of all there are."""
    try:
        lines = _SYSTEM.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        return min(free, max(int(_MOST.read_text()) - int(_USED.read_text()), 0))
    except (OSError, ValueError):  # no such limit, or "max"
        return free
