"""The files of a run directory, which may come from a stranger: opened as they are, or not at all.

A name in such a directory can be a link to any file on the machine, a pipe that nobody ever writes
to, a device without end. Every reader and writer of a run directory opens its files here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from certify.errors import RunNotWritable
from certify.files import write_atomically
from certify.files.safe import unreadable

#: Largest text file of a run directory that is read into memory (manifest.json, certificates.csv).
MAX_TEXT = 1 << 28
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def open_member(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open a file of a run directory for reading: a regular file, never through a link, without waiting.

    ``kind`` names it in errors. Raises UnreadableFile for anything else under that name, or nothing.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except (OSError, ValueError) as error:
        raise unreadable(path, kind, _why_not(path, error)) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise unreadable(path, kind, f"it is {_kind_of(found)}, not a file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_member(path: Path, kind: str, *, most: int = MAX_TEXT) -> bytes:
    """All bytes of such a file. Raises UnreadableFile also for one of more than ``most`` bytes."""
    with open_member(path, kind) as file:
        body = file.read(most + 1)
    if len(body) > most:
        raise unreadable(path, kind, f"it has more than {most:,} bytes")
    return body


def sha256_of(file: IO[bytes]) -> str:
    """SHA-256 of an open file's bytes, as 64 hex digits; its place is the beginning afterwards."""
    hasher = hashlib.sha256()
    while block := file.read(1 << 20):
        hasher.update(block)
    file.seek(0)
    return hasher.hexdigest()


def fault_of(path: Path, *, writing: bool = False) -> str | None:
    """Why ``path`` may not be used as a file of a run directory, or None; a name that is not there may.

    ``writing``: a file with a second name (a hard link) is refused, too, since what is written to one of
    them appears in the other.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return str(error)
    if not stat.S_ISREG(found.st_mode):
        return f"{path.name} is {_kind_of(found)}, not a file"
    if writing and found.st_nlink > 1:
        return f"{path.name} has {found.st_nlink} names (hard links): writing to it would change another file"
    return None


def write_inside(folder: Path, name: str, content: str | bytes) -> Path:
    """``write_atomically`` to ``folder/name``; no part of ``name`` is followed as a link out of the folder.

    ``name`` may contain subfolders ("plots/accuracy.svg"), which are made. Raises RunNotWritable where
    one of them is a link or a file, or as ``write_atomically``.
    """
    place = folder
    for part in Path(name).parent.parts:
        place = place / part
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(place)
            if not stat.S_ISDIR(found.st_mode):
                raise RunNotWritable(
                    f"{place} is not a folder",
                    why=f"it is {_kind_of(found)}; what is written there would land elsewhere",
                    remedy="remove it, or write to another folder with --out",
                )
    return write_atomically(folder / name, content)


def _why_not(path: Path, error: Exception) -> str:
    if path.is_symlink():
        return f"it is a link to {os.readlink(path)!r}; files of a run are read as they are"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return getattr(error, "strerror", None) or str(error)


def _kind_of(found: os.stat_result) -> str:
    mode = found.st_mode
    kinds = (
        (stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    return next((name for test, name in kinds if test(mode)), "a device")
