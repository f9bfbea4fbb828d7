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
import stat
import weakref
from pathlib import Path

from certify.errors import RunConflict, RunNotWritable
from certify.files.members import fault_of

LOCK_NAME = ".lock"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


class RunLock:
    """Exclusive right to write one run directory, until ``release`` or the end of the process.

    Raises RunConflict, naming the holder's process id, when another process (or
    another store in this one) holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        self._handle: int | None = None
        # What is written into the lock must not land in another file: no link, no second name, no device.
        if fault := fault_of(path, writing=True):
            raise _unlockable(directory, fault)
        try:
            self._handle = os.open(path, _OPEN, 0o666)
        except OSError as cause:
            raise _unlockable(directory, str(cause)) from cause
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            self._close()
            raise _unlockable(directory, f"{LOCK_NAME} is no file of its own")
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


def _unlockable(directory: Path, why: str) -> RunNotWritable:
    return RunNotWritable(
        f"{directory} could not be locked for writing",
        why=why,
        remedy=f"remove {LOCK_NAME} if it is no plain file, or choose a writable directory on a local disk "
        "with --out",
    )


def _drop_in_child() -> None:
    for lock in list(_held):
        lock._close()  # closing a duplicate does not release the parent's lock


os.register_at_fork(after_in_child=_drop_in_child)
