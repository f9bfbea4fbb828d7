"""Looking into zip archives from strangers before anything in them is read.

Both ``.pt`` and ``.npz`` files are zip archives. A few kilobytes can claim to hold terabytes; here the
claims are compared with the bytes that exist.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import IO

from certify.files.safe import unreadable, untrusted

#: More entries than any model or array file has, and the size of a table that lists so many.
MAX_ENTRIES = 100_000
MAX_TABLE_BYTES = 2**23
_ZIP_TAIL = 22 + 20 + 56  # end record, and the locator and end record of large archives


def inspect_zip(file: IO[bytes], path: Path, kind: str, *, max_ratio: int = 1) -> zipfile.ZipFile:
    """Open a zip archive whose declared contents fit the file. With max_ratio 1: stored entries only.

    Raises UnreadableFile for a damaged archive; UntrustedFile for too many, encrypted,
    overlapping or repeated entries, for compression where none is expected, and for declared sizes
    beyond ``max_ratio`` times the stored bytes.
    """
    size = os.fstat(file.fileno()).st_size
    archive = open_zip(file, path, kind)
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise untrusted(path, f"its archive has {len(entries)} entries")
    if len({e.filename for e in entries}) != len(entries):
        raise untrusted(path, "its archive holds two entries of one name")
    if min((e.header_offset for e in entries), default=0) > 0:
        # Another zip reader might start elsewhere in such a file and see other entries.
        raise untrusted(path, "there are bytes before its archive")
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
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Others grow without limit, or ask for a dictionary of any size.
            raise untrusted(path, f"its entry {entry.filename!r} is compressed in an unusual way")
        stored = entry.compress_type == zipfile.ZIP_STORED
        allowed = entry.compress_size if stored else max_ratio * entry.compress_size + 4096
        if entry.file_size > allowed:
            raise untrusted(
                path,
                f"its entry {entry.filename!r} has {entry.compress_size} bytes and claims to hold "
                f"{entry.file_size}",
            )
    return archive


def open_zip(file: IO[bytes], path: Path, kind: str) -> zipfile.ZipFile:
    """Open a zip archive whose table of contents is small enough to be read into memory.

    Raises UnreadableFile for a damaged archive, UntrustedFile for a giant table.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _ZIP_TAIL))
    tail = file.read()
    end, locator, end64 = tail[-22:], tail[-42:-22], tail[-98:-42]
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise unreadable(path, kind, "its archive does not end where the file ends (cut off, or added to)")
    table = int.from_bytes(end[12:16], "little")
    if locator[:4] == b"PK\6\7" and end64[:4] == b"PK\6\6":
        table = int.from_bytes(end64[40:48], "little")
    if table > MAX_TABLE_BYTES:
        raise untrusted(path, f"its table of contents claims {table} bytes")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise unreadable(path, kind, f"its archive is damaged ({error})") from error
