"""One text for one value: the JSON that hashes are taken over.

Keys sorted, no spaces, ASCII only, floats in Python's shortest round-trip form. Two
values that are equal as JSON have the same canonical text on every machine, so a
SHA-256 over it can be recomputed by anyone with a JSON library.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from certify.errors import InvalidInput

#: JSON from a stranger: longest text, deepest nesting, longest whole number.
MAX_TEXT, MAX_DEPTH, MAX_DIGITS = 1 << 28, 40, 39
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_LONG = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_HUGE = re.compile(r"[eE]\+?\d{3}")  # 1e999 is written like a number and read as infinity


def canonical(value: Any, *, strict: bool = True) -> str:
    """The canonical JSON text of ``value``.

    ``strict`` refuses NaN and infinity, which JSON has no word for; evidence that is
    hashed must be strict. Tuples become lists, numpy scalars and arrays plain numbers.
    Raises InvalidInput for anything else that JSON cannot hold.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=not strict, default=_plain)
    except (TypeError, ValueError) as cause:
        raise InvalidInput(
            "a value cannot be written to the run store",
            why=f"it is not strict JSON: {cause}",
            remedy="use finite numbers, strings, booleans, lists and string-keyed dictionaries",
        ) from cause


def parse(text: str, *, strict: bool = True) -> Any:
    """The value of a JSON text that anyone may have written.

    ``strict`` refuses NaN and infinity. Raises ValueError for what is no JSON, says a name twice in one
    object, or is longer, nested deeper or holds longer whole numbers than anything that is stored here.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise ValueError("it is no text, or one of an absurd length")
    bare = _STRING.sub('""', text)
    depth = deepest = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ValueError(f"it is nested {deepest} deep")
    if _LONG.search(bare):
        raise ValueError(f"it holds a number of more than {MAX_DIGITS} digits")
    finite = _finite if strict and _HUGE.search(bare) else None
    refuse = _refuse if strict else None
    return json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=_once)


def sha256_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes, as 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _refuse(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it says a name twice")
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy scalars and arrays, 0-d tensors
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
