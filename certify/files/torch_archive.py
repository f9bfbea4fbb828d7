"""Reading ``.pt`` files: judged entry by entry, never unpickled.

The pickle inside is read as data and describes tensors; what it says is compared with the bytes that exist,
and then the numbers are read where they lie. TorchScript and torch.export files contain programs; they
are opened only by ``load_program``, on the user's explicit word.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from certify.errors import InvalidModel, UnreadableFile, UntrustedFile
from certify.files.kinds import START, of_zip, what_is
from certify.files.legacy_archive import MAX_PICKLE_BYTES, RESAVE, read_legacy
from certify.files.pickle_machine import RefusedPickle
from certify.files.pickle_plan import plan
from certify.files.safe import open_regular, refuse_unsafe_environment, unreadable, untrusted
from certify.files.stored import KIND, Place, Stored, judge_tensors
from certify.files.zips import inspect_zip, open_zip

TORCHSCRIPT = "TorchScript program"
EXPORTED = "torch.export program"
_ENTRY = re.compile(
    r"data\.pkl|data/\d{1,20}|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Stored]:
    """The content of a ``.pt`` file: dictionaries, lists, numbers, text, and a plan for every tensor.

    Files of torch before 1.6 are read alike. Raises UnreadableFile for missing, damaged and other files,
    naming what they are; UntrustedFile when the file contains programs, calls functions, has
    compressed entries, or tensors larger than its bytes.
    """
    refuse_unsafe_environment()
    with open_regular(path, KIND) as file:
        start = file.read(START)
        if start[:4] == b"PK\x03\x04":
            yield _judged(file, path)
        elif start[:1] == b"\x80":
            yield read_legacy(file, path)
        else:
            raise _other_file(path, start)


def program_kind(path: Path) -> str | None:
    """TORCHSCRIPT or EXPORTED when the file is an archive of that kind, else None."""
    with open_regular(path, KIND) as file:
        if file.read(4) != b"PK\x03\x04":
            return None
        names = {name.partition("/")[2] or name for name in open_zip(file, path, KIND).namelist()}
    if "archive_format" in names or any(
        n.startswith(("models/", "serialized_exported_program")) for n in names
    ):
        return EXPORTED
    if "constants.pkl" in names or any(n.startswith("code/") for n in names):
        return TORCHSCRIPT
    return None


def load_program(path: Path, kind: str, device: torch.device | str) -> torch.nn.Module:
    """Open a TorchScript or torch.export file. This can run any code it contains."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == TORCHSCRIPT:
                return torch.jit.load(str(path), map_location=device).eval()
            module = torch.export.load(str(path)).module().to(device)
    except Exception as error:
        raise unreadable(path, kind, f"torch cannot open it ({_first_line(error)})") from error
    _refuse_training_graph(module, path)
    for part in module.modules():
        part.training = False  # a fixed graph: torch refuses eval(), and the flag switches nothing
    return module


def _refuse_training_graph(module: Any, path: Path) -> None:
    # Where each operator keeps its "training" switch; export froze it at that moment's value.
    switch = {"aten.dropout.default": 2, "aten.feature_dropout.default": 2, "aten.batch_norm.default": 5}
    for node in module.graph.nodes:
        place = switch.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise InvalidModel(
                f"{path} was exported in training mode",
                why=f"its operator {node.name} ({node.target}) is frozen in training mode",
                remedy="call model.eval() before torch.export.export, and export again",
            )


def _judged(file: IO[bytes], path: Path) -> Stored:
    names = open_zip(file, path, KIND).namelist()
    prefix = next(iter(names), "").partition("/")[0] + "/"
    if f"{prefix}data.pkl" not in names:
        what, do = of_zip(names)
        raise unreadable(path, KIND, f"it is {what}", do)
    entries = {info.filename.removeprefix(prefix): info for info in inspect_zip(file, path, KIND).infolist()}
    for name in names:
        if not name.startswith(prefix) or not _ENTRY.fullmatch(name.removeprefix(prefix)):
            raise untrusted(path, f"its archive holds {name[:80]!r}, which torch.save does not write")
    if entries["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise untrusted(path, f"its description of tensors takes {entries['data.pkl'].file_size} bytes")
    places = {name.removeprefix("data/"): _place(file, info, path) for name, info in entries.items()}
    order = places.get("byteorder")
    if order is not None and order.read(file, path) != b"little":
        raise unreadable(path, KIND, "its numbers were written by a machine of another byte order")
    try:
        content = plan(bytes(places["data.pkl"].read(file, path)))
    except RefusedPickle as error:
        raise untrusted(path, f"its pickle does more than describe tensors: {error}", RESAVE) from error
    judge_tensors(content, places, path, os.fstat(file.fileno()).st_size)
    return Stored(path, file, content, places)


def _place(file: IO[bytes], info: zipfile.ZipInfo, path: Path) -> Place:
    """Where a stored entry lies: its local header says how long its own name is."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise unreadable(path, KIND, f"the entry {info.filename[:80]!r} of its archive is damaged")
    name, extra = struct.unpack("<2H", header[26:30])
    return Place(info.header_offset + 30 + name + extra, info.file_size, info.CRC)


def _other_file(path: Path, start: bytes) -> UnreadableFile:
    kind = what_is(start)
    if kind is not None:
        return unreadable(path, KIND, f"it is {kind.what}", kind.do)
    return unreadable(path, KIND, f"it starts with the bytes {start[:4].hex()}, not with those of an archive")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def refuse_program(path: Path, kind: str) -> UntrustedFile:
    """The error for a file that is a program, opened without the user's word."""
    return untrusted(
        path,
        f"it is a {kind}: loading one can run any code it contains",
        "save the weights instead (certify.save), or pass trust_model_file=True "
        "(--trust-model-file) if you trust whoever wrote it",
    )
