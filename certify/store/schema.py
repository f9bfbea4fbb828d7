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


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The shipped schema called ``name``: "record", "run" or "manifest"."""
    return json.loads(
        (resources.files("certify.store") / "schemas" / f"{name}.schema.json").read_text("utf-8")
    )


def violation(value: Any, rule: dict[str, Any], where: str = "$") -> str | None:
    """The first way in which ``value`` breaks ``rule``, or None."""
    if "const" in rule and value != rule["const"]:
        return f"{where} must be {rule['const']!r}, is {value!r}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{where} must be one of {rule['enum']}, is {value!r}"
    types = rule.get("type", ())
    types = [types] if isinstance(types, str) else list(types)
    if types and not any(_is(value, t) for t in types):
        return f"{where} must be {' or '.join(types)}, is {value!r}"
    if isinstance(value, dict):
        return _object(value, rule, where)
    if isinstance(value, list):
        return _array(value, rule, where)
    if isinstance(value, str):
        return _string(value, rule, where)
    return _number(value, rule, where)


def _object(value: dict[str, Any], rule: dict[str, Any], where: str) -> str | None:
    properties = rule.get("properties", {})
    for name in rule.get("required", ()):
        if name not in value:
            return f"{where}.{name} is missing"
    for name, inner in value.items():
        if name in properties:
            if found := violation(inner, properties[name], f"{where}.{name}"):
                return found
        elif rule.get("additionalProperties") is False:
            return f"{where}.{name} is not part of the format"
    return None


def _array(value: list[Any], rule: dict[str, Any], where: str) -> str | None:
    if len(value) < rule.get("minItems", 0):
        return f"{where} has {len(value)} items, needs {rule['minItems']}"
    for i, inner in enumerate(value):
        if found := violation(inner, rule.get("items", {}), f"{where}[{i}]"):
            return found
    return None


def _string(value: str, rule: dict[str, Any], where: str) -> str | None:
    if len(value) < rule.get("minLength", 0):
        return f"{where} is too short"
    if "pattern" in rule and not re.search(rule["pattern"], value):
        return f"{where} does not match {rule['pattern']}"
    return None


def _number(value: Any, rule: dict[str, Any], where: str) -> str | None:
    if isinstance(value, bool) or value is None:
        return None
    if "minimum" in rule and not value >= rule["minimum"]:
        return f"{where} = {value} is below {rule['minimum']}"
    if "maximum" in rule and not value <= rule["maximum"]:
        return f"{where} = {value} is above {rule['maximum']}"
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])
