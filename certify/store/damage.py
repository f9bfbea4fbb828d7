"""What is wrong with a run directory, as this package's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from certify.errors import CorruptRun, RunNotWritable, UnreadableFile

_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
         sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # fmt: skip


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into this package's errors."""
    try:
        yield
    except sqlite3.Error as cause:
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DISK:
            raise RunNotWritable(
                f"{path} cannot be written or read",
                why=f"SQLite says: {cause}",
                remedy="free some space, or choose a writable directory on a local disk with --out; "
                "what was stored before is intact and the run resumes",
            ) from cause
        corrupt(path, f"SQLite says: {cause}", cause)
    except (OSError, UnicodeError, RecursionError, MemoryError, OverflowError) as cause:
        if isinstance(cause, OSError) and not isinstance(cause, (RunNotWritable, UnreadableFile)):
            raise RunNotWritable(
                f"{path} cannot be written or read",
                why=str(cause),
                remedy="choose a writable directory on a local disk with --out",
            ) from cause
        if isinstance(cause, OSError):
            raise
        corrupt(path, str(cause) or type(cause).__name__, cause)


def corrupt(path: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    """Raise CorruptRun: what is there is not what was written, or was never a run's."""
    raise CorruptRun(
        f"{path} is damaged",
        why=why,
        remedy="restore the directory from a copy, or run again into another one with --out",
    ) from cause


def absent(path: Path, why: str) -> NoReturn:
    """Raise UnreadableFile: there is no run."""
    raise UnreadableFile(
        f"there is no run in {path}",
        why=why,
        remedy="give the directory that `certify radius --out` wrote",
    )
