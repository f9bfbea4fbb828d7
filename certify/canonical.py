"""One text for one value: the JSON that hashes are taken over.

Keys sorted, no spaces, ASCII only, floats in Python's shortest round-trip form. Two
values that are equal as JSON have the same canonical text on every machine, so a
SHA-256 over it can be recomputed by anyone with a JSON library.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from certify.errors import InvalidInput


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


def sha256_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes, as 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy scalars and arrays, 0-d tensors
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
