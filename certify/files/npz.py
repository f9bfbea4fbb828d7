"""Reading ``.npz`` files of arrays without unpickling and without believing their sizes."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from certify.errors import CertifyError
from certify.files.kinds import START, what_is
from certify.files.safe import open_regular, unreadable, untrusted
from certify.files.zips import inspect_zip

#: A compressed array may grow by this factor; label maps and black images stay below it.
MAX_RATIO = 200
#: What the format's compression can reach at best.
DEFLATE_RATIO = 1100
#: What numpy and zipfile raise on bytes that are not what they say.
_DAMAGE = (
    ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, SyntaxError,
    tokenize.TokenError, NotImplementedError, RecursionError, MemoryError, OverflowError,
)  # fmt: skip


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file; never unpickles, never allocates what the file cannot fill.

    Raises UnreadableFile for a missing or damaged file, UntrustedFile for object arrays (pickles)
    and for sizes that its bytes do not cover.
    """
    kind = ".npz data file"
    with open_regular(path, kind) as file:
        return _arrays(inspect_zip(file, path, kind, max_ratio=MAX_RATIO), path, kind)


def read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, under the same rules. Raises as ``read_npz``."""
    kind = ".npy data file"
    with open_regular(path, kind) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start[:6] != b"\x93NUMPY":
            found = what_is(start + file.read(START))
            raise unreadable(path, kind, f"it is {found.what}" if found else "it is no numpy array")
        try:
            file.seek(0)
            _judge_header(file, size, path, path.name)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
        except _DAMAGE as error:
            raise unreadable(path, kind, f"it is damaged ({error})") from error


def unpacked(file: IO[bytes], path: Path, kind: str, *, most: int) -> dict[str, np.ndarray]:
    """All arrays of an open ``.npz`` file that unpacks to ``most`` bytes at most.

    Raises as ``read_npz``; ``path`` and ``kind`` name the file in errors.
    """
    archive = inspect_zip(file, path, kind, max_ratio=DEFLATE_RATIO)
    claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > most:
        raise untrusted(path, f"it claims to unpack to {claimed:,} bytes; {most:,} is the most it can need")
    return _arrays(archive, path, kind)


def _arrays(archive: zipfile.ZipFile, path: Path, kind: str) -> dict[str, np.ndarray]:
    arrays = {}
    for entry in archive.infolist():
        if entry.filename.endswith(".npy"):
            try:
                arrays[entry.filename.removesuffix(".npy")] = _read_npy(archive, entry, path)
            except CertifyError:
                raise
            except _DAMAGE as error:
                raise unreadable(path, kind, f"{entry.filename} is damaged ({error})") from error
    return arrays


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(entry) as stream:
        _judge_header(stream, entry.file_size, path, entry.filename)
    with archive.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _judge_header(stream: IO[bytes], size: int, path: Path, name: str) -> None:
    """Refuse an array of objects, and one that claims more than ``size`` bytes hold."""
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
            f"{name} holds Python objects, and reading those can run code",
            "store plain numbers: numpy.savez(path, x=np.asarray(x, dtype='float32'), y=labels)",
        )
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > size:
        raise untrusted(path, f"{name} declares the shape {shape}, more than its bytes hold")
