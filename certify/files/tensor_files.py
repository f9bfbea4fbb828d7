"""Reading and writing safetensors files, with their header checked before it is believed.

Format: 8 bytes header length (little-endian), a JSON header naming type, shape and byte range of every
tensor, then the bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from certify.files.safe import open_regular, unreadable, untrusted

KIND = "safetensors file"
#: Genuine headers take about 100 bytes per tensor; this one is parsed into memory whole.
MAX_HEADER_BYTES = 2**24
_WIDTH = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "C64": 8,
}  # fmt: skip


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors. Raises UnreadableFile for damage, UntrustedFile for sizes that are lies."""
    from safetensors import SafetensorError, safe_open

    with open_regular(path, KIND) as file:
        _judge(file, path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as content:
            metadata = dict(content.metadata() or {})
            return metadata, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(path, KIND, str(error)) from error


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file; tensors that share memory are stored once each."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(own, metadata=dict(metadata))


def _judge(file: IO[bytes], path: Path) -> None:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise unreadable(path, KIND, f"its header claims {length} bytes in a file of {size}")
    if length > MAX_HEADER_BYTES:
        raise untrusted(path, f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    try:
        header: Any = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, KIND, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise unreadable(path, KIND, "its header is not a table of tensors")
    ranges = [_range(name, entry, path) for name, entry in header.items() if name != "__metadata__"]
    position = 0
    for start, stop in sorted(ranges):
        if start != position:
            raise untrusted(path, "its tensors overlap or leave gaps, which genuine files never do")
        position = stop
    if position != size - 8 - length:
        raise unreadable(
            path, KIND, f"its tensors take {position} bytes, the file has {size - 8 - length} for them"
        )


def _range(name: str, entry: Any, path: Path) -> tuple[int, int]:
    try:
        shape, (start, stop), width = entry["shape"], entry["data_offsets"], _WIDTH[entry["dtype"]]
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path, KIND, f"its entry for {name!r} is malformed ({error!r})") from error
    if not whole or math.prod(shape) * width != stop - start:
        raise untrusted(path, f"{name!r} declares the shape {shape} for {entry['data_offsets']} bytes")
    return start, stop
