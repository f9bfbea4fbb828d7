"""Which settings make two runs the same run.

Everything that can influence a record is *binding*: it is compared when a run is
resumed and when shards are merged, and its hash is the run's id. What cannot
influence a record is *recorded* with the session that used it, and may differ:

- ``environment`` (batch size, engine, workers, shard, hardware, anything else put there)
- ``command`` (how this session was started)
- ``versions.python``
- ``model.path_name`` (the weights' digest is binding, their place on the disk is not)
- ``data.limit``, ``data.skip``, ``data.root`` (which inputs a session visits: a run may
  grow, and shards visit different inputs; every input's own record is the same)

The device, the dtype and the versions of torch, numpy and this package stay binding:
they decide the last bits of a logit, and so which classifier is certified.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from certify.canonical import canonical, sha256_text
from certify.errors import RunConflict

RECORDED = (
    "environment",
    "command",
    "versions.python",
    "model.path_name",
    "data.limit",
    "data.skip",
    "data.root",
)

_ABSENT = object()


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(binding, recorded) halves of ``settings`` in plain JSON types; ``join`` puts them together."""
    binding = json.loads(canonical(settings))
    recorded: dict[str, Any] = {}
    for path in RECORDED:
        *parents, leaf = path.split(".")
        node, copy = binding, recorded
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict) and leaf in node:
            for name in parents:
                copy = copy.setdefault(name, {})
            copy[leaf] = node.pop(leaf)
    return binding, recorded


def join(binding: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as one dictionary again."""
    out = dict(binding)
    for key, value in recorded.items():
        inner = out.get(key)
        out[key] = join(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return out


def run_id(binding: Mapping[str, Any]) -> str:
    """SHA-256 of the binding settings: the same for every session and shard of one run."""
    return sha256_text(canonical(binding))


def refuse_difference(where: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise RunConflict naming every binding setting that differs, with both values."""
    if canonical(stored) == canonical(asked):
        return
    lines = [f"{key}: {_show(old)} there, {_show(new)} now" for key, old, new in differences(stored, asked)]
    raise RunConflict(
        f"{where} holds a run with other settings",
        why="; ".join(lines),
        remedy="give this run another directory with --out, or repeat the settings that are there",
    )


def differences(
    left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, left value, right value) wherever two settings differ."""
    for key in sorted({*left, *right}):
        a, b = left.get(key, _ABSENT), right.get(key, _ABSENT)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{prefix}{key}.")
        elif a is _ABSENT or b is _ABSENT or canonical(a) != canonical(b):
            yield f"{prefix}{key}", a, b


def _show(value: Any) -> str:
    text = "nothing" if value is _ABSENT else canonical(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
