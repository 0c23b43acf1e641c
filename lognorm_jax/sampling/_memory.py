"""How much memory is free."""

import os
from pathlib import Path


def free() -> int | None:
    """Return the bytes that new arrays can take without swapping; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":") for line in lines)
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # no Linux
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
