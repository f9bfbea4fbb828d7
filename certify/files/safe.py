"""Opening files that others wrote: nothing runs, and nothing larger than the file is believed.

Model files and data files come from strangers. Every reader here looks at what a file declares
before it allocates, and refuses what does not fit the bytes that are really there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from certify.errors import UnreadableFile, UntrustedFile


def refuse_unsafe_environment() -> None:
    """Raise UntrustedFile when the environment would make torch.load run code from files."""
    value = os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "")
    if value.strip().lower() not in ("", "0", "n", "no", "false"):
        raise UntrustedFile(
            f"the variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set to {value!r}",
            why="it makes every torch.load in this process execute code that a model file contains",
            remedy="unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
        )


@contextlib.contextmanager
def open_regular(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open an ordinary file for reading (following links); ``kind`` names it in errors.

    Raises UnreadableFile for a missing path, a dangling link, a folder, a device or pipe (which
    would never end), or missing permission.
    """
    try:
        # O_NONBLOCK: opening a pipe nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise unreadable(path, kind, _open_failure(path, error)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        why = "it is empty" if stat.S_ISREG(status.st_mode) else f"it is {what}, not a file"
        raise unreadable(path, kind, why)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def unreadable(path: Path, kind: str, why: str, remedy: str | None = None) -> UnreadableFile:
    """The error for a file that is missing, damaged or of another format."""
    default = f"check the path, and write or fetch the {kind} again if it was cut off"
    return UnreadableFile(f"{path} is not a readable {kind}", why=why, remedy=remedy or default)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that it is either wholly there or not at all, also after a power cut.

    The bytes go to a temporary neighbour, reach the disk, and then take the name. Raises
    UnreadableFile when the folder does not exist, cannot be written, or the disk is full.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be written",
            why=str(error),
            remedy="give a file name in a folder that exists, that you may write to, with room left",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def untrusted(path: Path, why: str, remedy: str | None = None) -> UntrustedFile:
    """The error for a file that could run code or exhaust memory."""
    return UntrustedFile(
        f"{path} was not opened",
        why=why,
        remedy=remedy or "do not use this file; get it again from its author, as safetensors if you can",
    )


def _open_failure(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"it is a link to {os.readlink(path)}, which does not exist"
        return "there is no such file"
    return getattr(error, "strerror", None) or str(error)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot open folders; the rename still stands
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
