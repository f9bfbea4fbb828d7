"""Reading ``.npz`` files of arrays without unpickling and without believing their sizes."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from certify.errors import CertifyError
from certify.files.safe import open_regular, unreadable, untrusted
from certify.files.zips import inspect_zip

#: A compressed array may grow by this factor; label maps and black images stay below it.
MAX_RATIO = 200


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
                except CertifyError:
                    raise
                except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, SyntaxError,
                        NotImplementedError, RecursionError, MemoryError) as error:  # fmt: skip
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
