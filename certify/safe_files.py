"""Opening files that others wrote: nothing runs, and nothing larger than the file is believed.

Model files and data files come from strangers. Every reader here looks at what a file declares
before it allocates, and refuses what does not fit the bytes that are really there.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import stat
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from certify.errors import UnreadableFile, UntrustedFile

#: More entries than any model or array file has; a central directory is read into memory whole.
MAX_ENTRIES = 100_000
#: A compressed array may grow by this factor; label maps and black images stay below it.
MAX_RATIO = 200


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
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
            raise unreadable(path, kind, f"it is {what}, not a file")
        if os.fstat(descriptor).st_size == 0:
            raise unreadable(path, kind, "it is empty")
        yield file


def unreadable(path: Path, kind: str, why: str, remedy: str | None = None) -> UnreadableFile:
    """The error for a file that is missing, damaged or of another format."""
    default = f"check the path, and write or fetch the {kind} again if it was cut off"
    return UnreadableFile(f"{path} is not a readable {kind}", why=why, remedy=remedy or default)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that it is either wholly there or not at all, also after a power cut.

    The bytes go to a temporary neighbour, reach the disk, and then take the name. Raises
    UnreadableFile when the folder does not exist or cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be written",
            why=str(error),
            remedy="give a file name in a folder that exists and that you may write to",
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def inspect_zip(file: IO[bytes], path: Path, kind: str, *, max_ratio: int = 1) -> zipfile.ZipFile:
    """Open a zip archive whose declared contents fit the file. With max_ratio 1: stored entries only.

    Raises UnreadableFile for a damaged archive; UntrustedFile for too many, encrypted,
    overlapping or repeated entries, for compression where none is expected, and for declared sizes
    beyond ``max_ratio`` times the stored bytes.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise unreadable(path, kind, f"its archive is damaged or cut off ({error})") from error
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise untrusted(path, f"its archive has {len(entries)} entries")
    if len({e.filename for e in entries}) != len(entries):
        raise untrusted(path, "its archive holds two entries of one name")
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.flag_bits & 1:
            raise untrusted(path, f"its entry {entry.filename!r} is encrypted")
        if entry.header_offset < end or entry.header_offset + entry.compress_size > size:
            raise untrusted(
                path, f"its entry {entry.filename!r} overlaps another one or ends beyond the file"
            )
        end = entry.header_offset + entry.compress_size
        if max_ratio == 1 and entry.compress_type != zipfile.ZIP_STORED:
            raise untrusted(
                path, f"its entry {entry.filename!r} is compressed; genuine ones are stored as is"
            )
        if entry.file_size > max_ratio * entry.compress_size + (0 if max_ratio == 1 else 4096):
            raise untrusted(
                path,
                f"its entry {entry.filename!r} has {entry.compress_size} bytes and claims to hold "
                f"{entry.file_size}",
            )
    return archive


def untrusted(path: Path, why: str, remedy: str | None = None) -> UntrustedFile:
    """The error for a file that could run code or exhaust memory."""
    return UntrustedFile(
        f"{path} was not opened",
        why=why,
        remedy=remedy or "do not use this file; get it again from its author, as safetensors if you can",
    )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file; never unpickles, never allocates what the file cannot fill.

    Raises UnreadableFile for a missing or damaged file, UntrustedFile for object arrays (pickles)
    and for sizes that its bytes do not cover.
    """
    kind = ".npz data file"
    with open_regular(path, kind) as file:
        archive = inspect_zip(file, path, kind, max_ratio=MAX_RATIO)
        arrays = {}
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                try:
                    arrays[entry.filename.removesuffix(".npy")] = _read_npy(archive, entry, path)
                except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
                    if isinstance(error, UnreadableFile):
                        raise
                    raise unreadable(path, kind, f"{entry.filename} is damaged ({error})") from error
        return arrays


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"array format {version} is unknown")
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise untrusted(
                path,
                f"{entry.filename} holds Python objects, and reading those can run code",
                "store plain numbers: numpy.savez(path, x=np.asarray(x, dtype='float32'), y=labels)",
            )
        if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > entry.file_size:
            raise untrusted(path, f"{entry.filename} declares the shape {shape}, more than its bytes hold")
    with archive.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


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
