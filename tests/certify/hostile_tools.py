"""Building blocks of hostile files: payloads, hand-written pickles, archives, patched directories."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

MARKER = "ran"
MAKERS: dict[str, Callable[[Path], None]] = {}


def maker(name: str):
    """Register the function that writes the hostile file ``name``."""

    def register(function):
        MAKERS[name] = function
        return function

    return register


class Payload:
    """An object whose unpickling creates the marker file."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch '{folder / MARKER}'"

    def __reduce__(self):
        return os.system, (self.command,)


def state() -> OrderedDict:
    torch.manual_seed(0)
    from tests.certify.toy_networks import Own

    return Own(hidden=64).state_dict()


def archive(path: Path, program: bytes | None = None, *, records=None, compress=zipfile.ZIP_STORED) -> None:
    """A .pt archive around this pickle (default: a good one), with further or other records."""
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", compress) as target:
        parts = {n.partition("/")[2]: source.read(n) for n in source.namelist()}
        if program is not None:
            parts["data.pkl"] = program
        for name, content in {**parts, **(records or {})}.items():
            target.writestr(f"archive/{name}", content)


def tensor_pickle(
    *, count: int, offset: int = 0, shape=(4,), strides=(1,), key="0", kind="FloatStorage"
) -> bytes:
    """The pickle of {"w": tensor} with a tensor of exactly these claims."""
    number = lambda n: b"\x8a\x09" + n.to_bytes(9, "little", signed=True)  # noqa: E731
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()  # noqa: E731
    row = lambda ns: b"(" + b"".join(map(number, ns)) + b"t"  # noqa: E731
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + b"tQ"
    )
    body = storage + number(offset) + row(shape) + row(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tRs."


def patch_directory(path: Path, name: bytes, offset: int, value: bytes) -> None:
    """Overwrite a field of an entry's record in the table of contents."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2", 0, content.rindex(name))
    content[start + offset : start + offset + len(value)] = value
    path.write_bytes(content)


def local_offset(path: Path, name: bytes) -> int:
    content = path.read_bytes()
    return content.rindex(b"PK\3\4", 0, content.index(name))
