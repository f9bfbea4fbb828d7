"""The shipped JSON Schemas, and a checker for exactly the keywords they use.

The files in ``certify/store/schemas`` are ordinary JSON Schema (draft 2020-12): any validator
reads them. This one needs nothing installed and names the first place that is wrong.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
#: What a value that breaks a rule is quoted with.
_QUOTED = 60


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The shipped schema called ``name``: "record", "run", "manifest", "settings", "attack", ..."""
    return json.loads(
        (resources.files("certify.store") / "schemas" / f"{name}.schema.json").read_text("utf-8")
    )


def violation(value: Any, rule: dict[str, Any], where: str = "$") -> str | None:
    """The first way in which ``value`` breaks ``rule``, or None."""
    if "const" in rule and value != rule["const"]:
        return f"{where} must be {rule['const']!r}, is {_quoted(value)}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{where} must be one of {rule['enum']}, is {_quoted(value)}"
    types = rule.get("type", ())
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, t) for t in types):
        return f"{where} must be {' or '.join(types)}, is {_quoted(value)}"
    if isinstance(value, dict):
        return _object(value, rule, where)
    if isinstance(value, list):
        return _array(value, rule, where)
    if isinstance(value, str):
        return _string(value, rule, where)
    return _number(value, rule, where)


def _object(value: dict[str, Any], rule: dict[str, Any], where: str) -> str | None:
    properties, others = rule.get("properties", {}), rule.get("additionalProperties", True)
    for name in rule.get("required", ()):
        if name not in value:
            return f"{where}.{name} is missing"
    for name, inner in value.items():
        if name not in properties and others is False:
            return f"{where}.{_quoted(name)} is not part of the format"
        inside = properties.get(name, others)
        if isinstance(inside, dict) and (found := violation(inner, inside, f"{where}.{name[:_QUOTED]}")):
            return found
    return None


def _array(value: list[Any], rule: dict[str, Any], where: str) -> str | None:
    if len(value) < rule.get("minItems", 0):
        return f"{where} has {len(value)} items, needs {rule['minItems']}"
    if len(value) > rule.get("maxItems", len(value)):
        return f"{where} has {len(value)} items, may have {rule['maxItems']}"
    if items := rule.get("items"):
        for i, inner in enumerate(value):
            if found := violation(inner, items, f"{where}[{i}]"):
                return found
    return None


def _string(value: str, rule: dict[str, Any], where: str) -> str | None:
    if len(value) < rule.get("minLength", 0):
        return f"{where} is too short"
    if len(value) > rule.get("maxLength", len(value)):
        return f"{where} has {len(value)} characters, may have {rule['maxLength']}"
    if "pattern" in rule and not re.search(rule["pattern"], value):
        return f"{where} does not match {rule['pattern']}, is {_quoted(value)}"
    return None


def _number(value: Any, rule: dict[str, Any], where: str) -> str | None:
    if isinstance(value, bool) or value is None:
        return None
    if "minimum" in rule and not value >= rule["minimum"]:
        return f"{where} = {_quoted(value)} is below {rule['minimum']}"
    if "exclusiveMinimum" in rule and not value > rule["exclusiveMinimum"]:
        return f"{where} = {_quoted(value)} is not above {rule['exclusiveMinimum']}"
    if "maximum" in rule and not value <= rule["maximum"]:
        return f"{where} = {_quoted(value)} is above {rule['maximum']}"
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _quoted(value: Any) -> str:
    """``value`` in a message, cut to a length that a reader can take in."""
    if isinstance(value, dict | list):
        return f"{type(value).__name__} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
