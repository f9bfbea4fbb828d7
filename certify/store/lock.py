"""One writer per run directory.

An advisory ``flock`` on ``.lock`` inside the directory. The kernel drops it when the
holder dies, however it dies, so a lock left behind never blocks anyone; the process
id in the file is there for the message only and decides nothing. A forked child gives
its inherited copy back at once, or an orphaned worker would keep the run locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import weakref
from pathlib import Path

from certify.errors import RunConflict, RunNotWritable

LOCK_NAME = ".lock"

_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


class RunLock:
    """Exclusive right to write one run directory, until ``release`` or the end of the process.

    Raises RunConflict, naming the holder's process id, when another process (or
    another store in this one) holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as cause:
            raise RunNotWritable(
                f"{directory} could not be locked for writing",
                why=str(cause),
                remedy="choose a writable directory on a local disk with --out",
            ) from cause
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            holder = os.pread(self._handle, 200, 0).decode("utf-8", "replace").strip()
            self._close()
            raise RunConflict(
                f"{directory} is being written by another process ({holder or 'unknown'})",
                why="a run has one writer; two would race for the same rows",
                remedy="wait for it to end, stop it, or write to another directory with --out",
            ) from cause
        with contextlib.suppress(OSError):  # a full disk must not hide behind the courtesy text
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Let others write. The file stays: removing it would let two holders coexist."""
        _held.discard(self)
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _drop_in_child() -> None:
    for lock in list(_held):
        lock._close()  # closing a duplicate does not release the parent's lock


os.register_at_fork(after_in_child=_drop_in_child)
