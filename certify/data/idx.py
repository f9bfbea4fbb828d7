"""The IDX format of MNIST and Fashion-MNIST: big-endian header, then raw bytes; gz or not.

Reference: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (file formats).
"""

from __future__ import annotations

import contextlib
import gzip
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from certify.errors import UnreadableFile, UntrustedFile
from certify.files.safe import open_regular

#: Five times the training images of MNIST: nothing in this format that is read here is larger.
MAX_BYTES = 2**28


def read_idx(path: Path, dims: int, *, limit: int | None = None, skip: int = 0) -> np.ndarray:
    """Rows ``skip`` to ``skip + limit`` of an IDX file of unsigned bytes with ``dims`` axes.

    Only those rows are kept in memory: a file that declares or decompresses to more than its
    header says never allocates it. Raises UnreadableFile when the file is missing, truncated,
    of another type or of another length than its header declares, UntrustedFile above 256 MiB.
    """
    try:
        with open_regular(path, "IDX file") as raw, _unpacked(raw, path) as file:
            shape = _read_header(file.read(4 + 4 * dims), dims, path)
            size = int(np.prod(shape[1:], dtype=object))
            start = min(skip, shape[0])
            stop = shape[0] if limit is None else min(shape[0], start + limit)
            _discard(file, start * size, path)
            rows = _read_exactly(file, (stop - start) * size, path)
            _discard(file, (shape[0] - stop) * size, path)
            if file.read(1):
                raise _wrong(path, "it is longer than its header declares")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _wrong(path, f"its gzip stream is damaged or cut off ({error})") from error
    return np.frombuffer(rows, dtype=np.uint8).reshape(stop - start, *shape[1:])


def _unpacked(raw: IO[bytes], path: Path) -> contextlib.AbstractContextManager[Any]:
    return gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else contextlib.nullcontext(raw)


def _read_header(header: bytes, dims: int, path: Path) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dims:
        raise _wrong(path, "it ends inside its header")
    if header[:4] != bytes((0, 0, 8, dims)):
        raise _wrong(path, f"it starts with {header[:4].hex()}, not with 000008{dims:02x}")
    shape = struct.unpack(f">{dims}I", header[4:])
    if 0 in shape:
        raise _wrong(path, f"its header declares the shape {shape}")
    if int(np.prod(shape, dtype=object)) > MAX_BYTES:
        raise UntrustedFile(
            f"{path} declares {shape} bytes",
            why="that is more than any data set in this format holds; reading it could exhaust memory",
            remedy="fetch the file again from its source",
        )
    return shape


def _read_exactly(file, count: int, path: Path) -> bytes:
    # In blocks, so that a lying header costs no more memory than the file has bytes.
    blocks = bytearray()
    while len(blocks) < count:
        block = file.read(min(2**20, count - len(blocks)))
        if not block:
            raise _wrong(path, f"it ends {count - len(blocks)} bytes before its header says")
        blocks += block
    return bytes(blocks)


def _discard(file, count: int, path: Path) -> None:
    while count > 0:
        block = file.read(min(2**20, count))
        if not block:
            raise _wrong(path, f"it ends {count} bytes before its header says")
        count -= len(block)


def _wrong(path: Path, why: str) -> UnreadableFile:
    return UnreadableFile(
        f"{path} is not a readable IDX file",
        why=why,
        remedy="fetch it again, e.g. with --download, or point --data-root at a complete copy",
    )
