"""Keep memory that was freed: a network asks for the same large blocks for every batch.

The C library hands large freed blocks back to the system and takes them again page by page, which
can cost a small network as much as its arithmetic. Settings of the process, so for the command only:
a library does not change its host's memory allocator.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3), glibc
_LARGEST_BLOCK = 32 << 20  # the most that glibc accepts: larger blocks still come from the system
_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Do so where the C library has the setting (glibc); elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_TRIM_THRESHOLD, _KEPT)
