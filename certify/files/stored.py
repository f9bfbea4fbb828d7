"""Tensors in a file: judged by what the file says of them, read only where they are wanted."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from certify.files.pickle_plan import DTYPES, STORAGE_DTYPES, StoragePlan, TensorPlan
from certify.files.safe import unreadable, untrusted

KIND = "PyTorch checkpoint"


class Place(NamedTuple):
    """Where bytes lie in a file, and their CRC-32 where the file keeps one (0: it does not)."""

    start: int
    size: int
    crc: int = 0

    def read(self, file: IO[bytes], path: Path) -> bytearray:
        """The bytes. Raises UnreadableFile where they are cut off or changed."""
        content = bytearray(self.size)
        file.seek(self.start)
        if file.readinto(content) != self.size:  # type: ignore[attr-defined]
            raise unreadable(path, KIND, "it is cut off")
        if self.crc and zlib.crc32(content) != self.crc:
            raise unreadable(path, KIND, "it is damaged: bytes of it have changed since it was written")
        return content


@dataclass
class Stored:
    """What a file holds, with a TensorPlan in place of every tensor, and where its storages lie.

    ``places`` are those of the storages by their keys. ``file`` is open while this is used.
    """

    path: Path
    file: IO[bytes]
    content: Any
    places: Mapping[str, Place]
    note: str | None = None
    _read: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def read(self, plan: Tensor | TensorPlan) -> Tensor:
        """The values of a tensor, on the CPU. Views of one storage share it, as torch.load has it."""
        if isinstance(plan, Tensor):
            return plan
        kind = getattr(torch, dtype_of(plan))
        whole = self._storage(plan.storage.key)
        if not whole.numel():
            return torch.empty(plan.shape, dtype=kind)
        whole = whole[: len(whole) // kind.itemsize * kind.itemsize]
        return whole.view(kind).as_strided(plan.shape, plan.strides, plan.offset)

    def _storage(self, key: str) -> Tensor:
        if key not in self._read:
            content = self.places[key].read(self.file, self.path)
            self._read[key] = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0)
        return self._read[key]


def judge_tensors(content: Any, places: Mapping[str, Place], path: Path, size: int) -> None:
    """Refuse a file whose tensors claim more values than its storages hold.

    Raises UnreadableFile for a storage that is missing, UntrustedFile for sizes that are lies.
    """
    seen, total = set(), 0
    for name, tensor in tensors_in(content):
        place = places.get(tensor.storage.key)
        if place is None:
            raise unreadable(path, KIND, f"the values of {name!r} are missing from its archive")
        stored = place.size
        if storage_bytes(tensor.storage) != stored:
            raise untrusted(
                path, f"{name!r} claims {storage_bytes(tensor.storage)} bytes where {stored} are stored"
            )
        width = DTYPES[dtype_of(tensor)]
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


def storage_bytes(storage: StoragePlan) -> int:
    """The bytes that a storage claims."""
    return storage.count * (1 if storage.kind == "UntypedStorage" else DTYPES[STORAGE_DTYPES[storage.kind]])


def dtype_of(tensor: TensorPlan) -> str:
    """The name of a tensor's element type."""
    return tensor.dtype or STORAGE_DTYPES.get(tensor.storage.kind, "uint8")


def tensors_in(content: Any) -> Iterator[tuple[str, TensorPlan]]:
    """Every tensor in nested containers with the last part of its name, without recursion.

    A file may nest its containers deeper than Python's stack.
    """
    todo, visited = [("", content)], set()
    while todo:
        name, item = todo.pop()
        if isinstance(item, TensorPlan):
            yield name, item
        elif isinstance(item, dict | list | tuple) and id(item) not in visited:
            visited.add(id(item))
            pairs: Iterable[tuple[Any, Any]] = item.items() if isinstance(item, dict) else enumerate(item)
            todo.extend((f"{key}", value) for key, value in pairs)
