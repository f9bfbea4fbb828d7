"""Which input a record is about: a hash of its values, beside the id that keys its noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from certify.canonical import sha256_text
from certify.errors import EvidenceFails

if TYPE_CHECKING:
    from certify.records import Record

#: The key under ``Record.details``.
INPUT = "input"


def input_digest(x: Any) -> str:
    """SHA-256 of one input's shape, type and values, as 64 hex digits.

    ``x``: a tensor or array (*shape) on any device.
    """
    array = x.detach().cpu().numpy() if hasattr(x, "detach") else x
    hasher = hashlib.sha256(f"{array.dtype.str} {tuple(array.shape)}\n".encode())
    hasher.update(array.tobytes())
    return hasher.hexdigest()


def naming_input(record: Record, x: Any) -> Record:
    """``record`` with the hash of its input among its details."""
    return replace(record, details={**record.details, INPUT: input_digest(x)})


def inputs_digest(records: Iterable[Record]) -> str | None:
    """One hash over the inputs of a run, by id; None if its records do not name theirs."""
    found = {r.index: r.details.get(INPUT) for r in records}
    if not found or any(digest is None for digest in found.values()):
        return None
    return sha256_text("".join(f"{index} {found[index]}\n" for index in sorted(found)))


def refuse_other_inputs(records: Iterable[Record], x: Mapping[int, Any], where: object) -> None:
    """Raise EvidenceFails if an input in ``x`` (by id) is not the one its record was made from."""
    for record in records:
        said = record.details.get(INPUT)
        if said is not None and record.index in x and input_digest(x[record.index]) != said:
            raise EvidenceFails(
                f"input {record.index} is not the one that {where} certified",
                why="its values differ: the data set on this machine is another, or was prepared differently",
                remedy="use the data the run was made with, or certify this data into another directory",
            )
