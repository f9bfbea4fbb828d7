"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from certify.errors import RunNotWritable


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Replace ``path`` by ``content`` so that no reader, and no crash, ever sees a part of it.

    Writes a temporary file beside it, syncs it to disk, renames it, syncs the directory.
    Raises RunNotWritable (nothing changed) when the disk is full or the place read-only.
    """
    path = Path(path)
    # A file name that is no text, quoted in the content, must not cost the whole file.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that nobody could have laid a link or a second name under beforehand.
        name = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp"))
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        temporary = name
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        sync_directory(path.parent)
    except OSError as cause:
        raise RunNotWritable(
            f"{path} could not be written",
            why=str(cause),
            remedy="free some space or choose a writable place (--out); what was there before is untouched",
        ) from cause
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return path


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make a rename inside ``path`` durable (a rename lives in the directory, not in the file)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
