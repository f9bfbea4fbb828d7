"""Which data a run is about: hashes of every input and label, by the id that keys an input's noise.

A record names its input (and a segmented image its label map) by hash, and holds its label. A session
names the whole data set that it was started on: the ids, the inputs and the labels, each by one hash.
So a run can go on with more inputs, and shards can see different ones, while no two of its records come
from different versions of one data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from certify.canonical import sha256_text
from certify.errors import EvidenceFails

if TYPE_CHECKING:
    from certify.records import Record

#: The keys under ``Record.details``: the hash of an input, and of a segmented image's label map.
INPUT, LABELS = "input", "labels"
#: The keys under ``settings["data"]`` that name a session's data set.
NAMED = ("ids", "inputs", "labels", "count")


def input_digest(x: Any) -> str:
    """SHA-256 of one input's shape, type and values, as 64 hex digits.

    ``x``: a tensor or array (*shape) on any device.
    """
    array = x.detach().cpu().numpy() if hasattr(x, "detach") else x
    hasher = hashlib.sha256(f"{array.dtype.str} {tuple(array.shape)}\n".encode())
    hasher.update(array.tobytes())
    return hasher.hexdigest()


def label_name(y: Any) -> int | str | None:
    """What names a label: the class itself, or the hash of a label map (as int32); None without a label."""
    array = y.detach().cpu().numpy() if hasattr(y, "detach") else y
    if getattr(array, "ndim", 0):
        return input_digest(array.astype("<i4"))
    return None if array is None else int(array)


def naming_input(record: Record, x: Any, y: Any = None) -> Record:
    """``record`` with the hash of its input (and of its label map) among its details."""
    named = label_name(y)
    maps = {LABELS: named} if isinstance(named, str) else {}
    return replace(record, details={**record.details, INPUT: input_digest(x), **maps})


def inputs_digest(records: Iterable[Record]) -> str | None:
    """One hash over the inputs of a run, by id; None if its records do not name theirs."""
    return _digest_of({r.index: r.details.get(INPUT) for r in records})


def labels_digest(records: Iterable[Record]) -> str | None:
    """One hash over the labels of a run, by id; None where an input has none."""
    return _digest_of({r.index: _label_of(r) for r in records})


@dataclass(frozen=True)
class Rows:
    """Inputs and labels by id, as hashes: what is compared instead of the data."""

    inputs: Mapping[int, str]
    labels: Mapping[int, int | str | None]

    @classmethod
    def of(cls, ids: Iterable[Any], x: Any, y: Any = None) -> Rows:
        """``ids`` (n,), inputs ``x`` (n, *shape), labels ``y`` (n,), or maps (n, height, width), or None."""
        names = [int(i) for i in ids]
        labels = [None] * len(names) if y is None else [label_name(label) for label in y]
        return cls(dict(zip(names, map(input_digest, x), strict=True)), dict(zip(names, labels, strict=True)))

    @classmethod
    def recorded(cls, records: Iterable[Record]) -> Rows:
        """What the records of a run say of their inputs and labels."""
        rows = [r for r in records if INPUT in r.details]
        return cls({r.index: r.details[INPUT] for r in rows}, {r.index: _label_of(r) for r in rows})

    def named(self) -> dict[str, Any]:
        """The data set in a few words: one hash each over ids, inputs and labels, and their number."""
        return {
            "ids": sha256_text("".join(f"{i}\n" for i in sorted(self.inputs))),
            "inputs": _digest_of(self.inputs),
            "labels": _digest_of(self.labels),
            "count": len(self.inputs),
        }

    def described(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """A session's ``settings`` with these rows named under "data", unless they name a larger whole."""
        settings = dict(settings or {})
        data = settings.get("data") or {}
        named = not isinstance(data, Mapping) or "ids" in data
        return settings if named else settings | {"data": {**data, **self.named()}}

    def refuse_other(self, records: Iterable[Record], where: object, *, resuming: bool = True) -> None:
        """Raise EvidenceFails if a record is about another input or label than the one that has its id here.

        ``resuming``: records with and without labels must not come together in one run. Otherwise only labels
        that both know are compared.
        """
        for record in records:
            if record.index not in self.inputs:
                continue
            said = record.details.get(INPUT)
            if said is not None and self.inputs[record.index] != said:
                _refuse_input(record.index, where)
            if (
                is_image(record)
                and LABELS not in record.details
                and record.details.get("labelled") is not None
            ):
                continue  # written before label maps were named
            there, here = _label_of(record), self.labels[record.index]
            if there != here and (resuming or (there is not None and here is not None)):
                _refuse_label(record.index, there, here, where)


def refuse_other_inputs(records: Iterable[Record], x: Mapping[int, Any], where: object) -> None:
    """Raise EvidenceFails if an input in ``x`` (by id) is not the one its record was made from."""
    for record in records:
        said = record.details.get(INPUT)
        if said is not None and record.index in x and input_digest(x[record.index]) != said:
            _refuse_input(record.index, where)


def is_image(record: Record) -> bool:
    """Whether the record is that of a segmented image."""
    return "pixels" in record.details


def interval_notes(run: Sequence[Record], settings: Mapping[str, Any]) -> list[str]:
    """What keeps the inputs of a run from being the independent sample that an interval of accuracy assumes.

    One sentence each for inputs that were added after results were there, and for inputs that repeat others.
    """
    notes = []
    data = settings.get("data")
    extended = data.get("extended") if isinstance(data, Mapping) else None
    there = [str(n) for n in extended if type(n) is int] if isinstance(extended, list) else []
    if there:
        notes.append(
            f"Inputs were added when {' and '.join(there)} results were there: the interval of an accuracy "
            "assumes that the number of inputs was fixed beforehand."
        )
    digests = [r.details.get(INPUT) for r in run]
    repeats = len(digests) - len(set(digests))
    if repeats and None not in digests:
        notes.append(
            f"{repeats} of {len(digests)} inputs repeat{'s' * (repeats == 1)} another: the interval of an "
            "accuracy assumes independent inputs, and is too narrow here."
        )
    return notes


def _label_of(record: Record) -> int | str | None:
    return record.details.get(LABELS) if is_image(record) else record.target


def _digest_of(found: Mapping[int, Any]) -> str | None:
    if not found or any(value is None for value in found.values()):
        return None
    return sha256_text("".join(f"{index} {found[index]}\n" for index in sorted(found)))


def _refuse_input(index: int, where: object) -> NoReturn:
    raise EvidenceFails(
        f"input {index} is not the one that {where} certified",
        why="its values differ: the data set on this machine is another, or was prepared differently",
        remedy="use the data the run was made with, or certify this data into another directory",
    )


def _refuse_label(index: int, there: int | str | None, here: int | str | None, where: object) -> NoReturn:
    def shown(label: int | str | None) -> str:
        return "none" if label is None else str(label) if isinstance(label, int) else f"map {label[:12]}..."

    raise EvidenceFails(
        f"the label of input {index} is not the one that {where} recorded",
        why=f"recorded: {shown(there)}, given: {shown(here)}; accuracies would mix two versions of labels",
        remedy="use the labels the run was made with, or certify this data into another directory",
    )
