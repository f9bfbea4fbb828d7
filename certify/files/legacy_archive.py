"""Files of torch before 1.6 (.th, .pth.tar): a row of pickles, then the storages one after another.

Layout: a magic number, the version, facts about the machine, the content, the list of the storages' keys,
each a pickle; then for every key eight bytes with the number of elements, and the elements. Nothing of it is
unpickled: the pickles are read as data (``certify.files.pickle_machine``), the numbers where they lie.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from certify.files.pickle_machine import Opaque, RefusedPickle
from certify.files.pickle_plan import DTYPES, STORAGE_DTYPES, StoragePlan, TensorPlan, plan
from certify.files.safe import unreadable, untrusted
from certify.files.stored import KIND, Place, Stored, judge_tensors, tensors_in

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
#: Of all five pickles together; ten thousand tensors take about 2 MB.
MAX_PICKLE_BYTES = 2**23
RESAVE = (
    "in an environment where you trust the file: "
    "torch.save(model.state_dict(), path), or certify.save(model, path, data=...)"
)


def read_legacy(file: IO[bytes], path: Path) -> Stored:
    """The judged content of a file that begins with a pickle.

    Raises UntrustedFile for pickles that are no checkpoint or do more than describe tensors,
    UnreadableFile for damage and other byte orders.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    first = _next(head, path)
    if first != _MAGIC:
        raise untrusted(path, f"it is a bare pickle, {_kind_of(first)}, and unpickling can run code", RESAVE)
    version, machine = _next(head, path), _next(head, path)
    if version != _VERSION or not isinstance(machine, Mapping) or machine.get("little_endian") is not True:
        raise unreadable(path, KIND, "it was written by a machine of another byte order, or another torch")
    content, keys = _next(head, path), _next(head, path)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise unreadable(path, KIND, "it has no list of its storages")
    places = _places(file, path, head.tell(), keys, _storages(content, path), size)
    judge_tensors(content, places, path, size)
    return Stored(path, file, content, places, note="written in the format of torch before 1.6")


def _next(head: io.BytesIO, path: Path) -> Any:
    try:
        return plan(head)
    except RefusedPickle as error:
        raise untrusted(path, f"its pickle does more than describe tensors: {error}", RESAVE) from error


def _storages(content: Any, path: Path) -> dict[str, StoragePlan]:
    found: dict[str, StoragePlan] = {}
    for _, tensor in tensors_in(content):
        storage = found.setdefault(tensor.storage.key, tensor.storage)
        if storage != tensor.storage or storage.kind not in STORAGE_DTYPES:
            raise untrusted(
                path, f"the storage {storage.key[:40]!r} is described in two ways, or without a type"
            )
    return found


def _places(
    file: IO[bytes], path: Path, start: int, keys: list[str], storages: Mapping[str, StoragePlan], size: int
) -> dict[str, Place]:
    """Where each storage lies. One that belongs to what was left unbuilt has no type, and ends the list."""
    places: dict[str, Place] = {}
    for key in keys:
        file.seek(start)
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage = storages.get(key)
        if storage is None:
            if not set(storages) <= set(places):
                raise untrusted(
                    path, "numbers of an object that only code can build are among its own", RESAVE
                )
            return places
        length = DTYPES[STORAGE_DTYPES[storage.kind]] * storage.count
        if count != storage.count or start + 8 + length > size:
            raise unreadable(path, KIND, f"the values of its storage {key[:40]!r} are cut off or do not fit")
        places[key] = Place(start + 8, length)
        start += 8 + length
    if start != size:
        raise untrusted(path, f"{size - start} bytes follow its last tensor")
    return places


def _kind_of(value: Any) -> str:
    if isinstance(value, Opaque):
        return value.what
    if isinstance(value, dict):
        shown = ", ".join(repr(key)[:40] for key in list(value)[:4])
        return f"a dictionary of {shown}" if value else "an empty dictionary"
    return "a tensor" if isinstance(value, TensorPlan) else f"a {type(value).__name__}"
