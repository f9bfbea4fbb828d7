"""What a checkpoint says about itself: enough to rebuild, feed and certify the network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from certify.errors import UnreadableFile

TASKS = ("classification", "segmentation", "denoising")
#: A longer header is no description any more; it is parsed into memory before it is checked.
MAX_HEADER_BYTES = 2**20


@dataclass(frozen=True)
class Header:
    """The self-describing part of a checkpoint.

    ``architecture`` is a registered name or "module:factory", called with ``num_classes``,
    ``input_shape`` and ``arguments``. ``low`` and ``high`` are the range the inputs were declared
    in, ``grid`` the step of their lattice (None: none declared). ``dataset`` names the training data
    ({"name": ...}), ``training`` records how it was trained. Everything is plain JSON.
    """

    architecture: str
    arguments: dict[str, Any]
    num_classes: int
    input_shape: tuple[int, ...]
    low: float
    high: float
    grid: float | None
    dataset: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    task: str = "classification"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the inverse of ``from_json``."""
        return asdict(self) | {"input_shape": list(self.input_shape)}

    @classmethod
    def from_json(cls, row: Any, source: str = "the checkpoint") -> Header:
        """Check every field and build the header. Raises UnreadableFile naming the wrong field."""
        if not isinstance(row, Mapping):
            raise _wrong(source, f"the header is a {type(row).__name__}, not a table of fields")
        missing = [f.name for f in fields(cls) if f.name not in row and f.name not in _OPTIONAL]
        if missing:
            raise _wrong(source, f"the header has no {', '.join(missing)}")
        for name, (valid, expected) in _RULES.items():
            if name in row and not valid(row[name]):
                raise _wrong(source, f"the header's {name} is {str(row[name])[:60]!r}, expected {expected}")
        if not row["low"] < row["high"]:
            raise _wrong(source, f"the header's range [{row['low']}, {row['high']}] is empty")
        values = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        values["input_shape"] = tuple(values["input_shape"])
        return cls(**values)


def encode(header: Header) -> str:
    """The header as JSON text. Raises UnreadableFile when it could not be read back."""
    try:
        text = json.dumps(header.to_json(), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise _wrong("the checkpoint", f"the header is not plain JSON ({error})") from error
    Header.from_json(json.loads(text))
    if len(text) > MAX_HEADER_BYTES:
        raise _wrong("the checkpoint", f"the header has {len(text)} bytes")
    return text


def decode(text: str, source: str) -> Header:
    """Parse and check JSON text. Raises UnreadableFile."""
    if len(text) > MAX_HEADER_BYTES:
        raise _wrong(source, f"its header has {len(text)} bytes, more than {MAX_HEADER_BYTES}")
    try:
        row = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong(source, f"its header is not JSON ({error})") from error
    return Header.from_json(row, source)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 2**31


def _shape(value: Any) -> bool:
    whole = isinstance(value, list | tuple) and 1 <= len(value) <= 8 and all(_count(n, 1) for n in value)
    return whole and math.prod(value) <= 2**31


def _table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) for k in value)


_OPTIONAL = ("dataset", "training", "task")
_RULES = {
    "architecture": (lambda v: isinstance(v, str) and 0 < len(v) <= 500, "a name"),
    "arguments": (_table, "a table of keyword arguments"),
    "num_classes": (lambda v: _count(v, 2), "a whole number of at least 2"),
    "input_shape": (_shape, "a list of positive whole numbers"),
    "low": (_number, "a finite number"),
    "high": (_number, "a finite number"),
    "grid": (lambda v: v is None or (_number(v) and v > 0), "null or a positive step"),
    "dataset": (_table, "a table"),
    "training": (_table, "a table"),
    "task": (lambda v: v in TASKS, " or ".join(TASKS)),
}


def _wrong(source: str, why: str) -> UnreadableFile:
    return UnreadableFile(
        f"{source} does not describe itself correctly",
        why=why,
        remedy="write it with certify.save, or load a bare state dict with --arch module:factory",
    )
