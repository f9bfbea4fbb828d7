"""Reading ``.pt`` files: judged entry by entry first, then loaded with weights only.

``torch.load(weights_only=True)`` keeps code from running, but believes what the file says about
sizes. So the archive's entries and the pickle's tensors are compared with the bytes that exist, and only
then is the file handed to torch. TorchScript and torch.export files contain programs; they are opened
only by ``load_program``, on the user's explicit word.
"""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from certify.checkpoints.pickle_machine import RefusedPickle
from certify.checkpoints.pickle_plan import DTYPES, STORAGE_DTYPES, StoragePlan, TensorPlan, plan
from certify.errors import InvalidModel, UntrustedFile
from certify.files.safe import open_regular, refuse_unsafe_environment, unreadable, untrusted
from certify.files.zips import inspect_zip, open_zip

KIND = "PyTorch checkpoint"
TORCHSCRIPT = "TorchScript program"
EXPORTED = "torch.export program"
#: The pickle only names tensors; ten thousand of them take about 2 MB.
MAX_PICKLE_BYTES = 2**23
_ENTRY = re.compile(
    r"data\.pkl|data/\d{1,9}|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
)
_RESAVE = (
    "in an environment where you trust the file: "
    "torch.save(model.state_dict(), path), or certify.save(model, path, data=...)"
)


def read_archive(path: Path) -> Any:
    """The content of a weights-only ``.pt`` file: dictionaries, lists, numbers, text, tensors (on the CPU).

    Raises UnreadableFile for missing, damaged or older formats; UntrustedFile when the file
    contains programs, pickled objects, compressed entries, or tensors larger than its bytes.
    """
    refuse_unsafe_environment()
    with open_regular(path, KIND) as file:
        _judge(file, path)
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch raises on a file that passed every check above
            raise unreadable(path, KIND, f"torch cannot read it ({_first_line(error)})") from error


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


def _judge(file: IO[bytes], path: Path) -> None:
    magic = file.read(4)
    if magic != b"PK\x03\x04":
        if magic[:1] == b"\x80":
            why = "it is a bare pickle (the format of torch before 1.6), and pickles can run code"
            raise untrusted(path, why, f"write it again in the current format {_RESAVE}")
        raise unreadable(path, KIND, f"it starts with the bytes {magic.hex()}, not with those of an archive")
    archive = inspect_zip(file, path, KIND)
    entries = {info.filename: info for info in archive.infolist()}
    prefix = next(iter(entries), "").partition("/")[0] + "/"
    program = entries.get(f"{prefix}data.pkl")
    if program is None:
        raise unreadable(path, KIND, "its archive holds no tensors (no entry data.pkl)")
    for name in entries:
        if not name.startswith(prefix) or not _ENTRY.fullmatch(name.removeprefix(prefix)):
            raise untrusted(path, f"its archive holds {name[:80]!r}, which torch.save does not write")
    if program.file_size > MAX_PICKLE_BYTES:
        raise untrusted(path, f"its description of tensors takes {program.file_size} bytes")
    try:
        content = plan(archive.read(program))
    except RefusedPickle as error:
        raise untrusted(path, f"its pickle does more than describe tensors: {error}", _RESAVE) from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise unreadable(path, KIND, f"its entry data.pkl is damaged ({error})") from error
    sizes = {name.removeprefix(f"{prefix}data/"): info.file_size for name, info in entries.items()}
    _judge_tensors(list(_tensors(content)), sizes, path, os.fstat(file.fileno()).st_size)


def _judge_tensors(
    tensors: list[tuple[str, TensorPlan]], sizes: dict[str, int], path: Path, size: int
) -> None:
    seen, total = set(), 0
    for name, tensor in tensors:
        stored = sizes.get(tensor.storage.key)
        if stored is None:
            raise unreadable(path, KIND, f"the values of {name!r} are missing from its archive")
        if _storage_bytes(tensor.storage) != stored:
            raise untrusted(
                path, f"{name!r} claims {_storage_bytes(tensor.storage)} bytes where {stored} are stored"
            )
        width = DTYPES[_dtype(tensor)]
        count = math.prod(tensor.shape)
        reach = (
            tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)) + 1
        )
        if count and (count * width > stored or reach * width > stored):
            raise untrusted(
                path,
                f"{name!r} of shape {tensor.shape} and strides {tensor.strides} needs more values than the "
                f"{stored // width} that are stored for it",
                "if the file is your own, save copies: {k: v.clone().contiguous() for k, v in state.items()}",
            )
        if tensor not in seen:  # the same view twice is one tensor shared by two layers
            seen.add(tensor)
            total += count * width
    if total > 2 * size:
        raise untrusted(path, f"its tensors overlap: they would take {total} bytes from a file of {size}")


def _storage_bytes(storage: StoragePlan) -> int:
    return storage.count * (1 if storage.kind == "UntypedStorage" else DTYPES[STORAGE_DTYPES[storage.kind]])


def _dtype(tensor: TensorPlan) -> str:
    return tensor.dtype or STORAGE_DTYPES.get(tensor.storage.kind, "uint8")


def _tensors(content: Any) -> Iterator[tuple[str, TensorPlan]]:
    # Without recursion: a file may nest its containers deeper than Python's stack.
    todo, visited = [("", content)], set()
    while todo:
        name, item = todo.pop()
        if isinstance(item, TensorPlan):
            yield name, item
        elif isinstance(item, dict | list | tuple) and id(item) not in visited:
            visited.add(id(item))
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            todo.extend((f"{key}", value) for key, value in pairs)


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
