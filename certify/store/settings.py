"""Which settings make two runs the same run.

Everything that can influence a record is *binding*: it is compared when a run is
resumed and when shards are merged, and its hash is the run's id. What cannot
influence a record is *recorded* with the session that used it, and may differ:

- ``environment`` (batch size, engine, workers, shard, hardware, anything else put there)
- ``command`` (how this session was started)
- ``versions.python``
- ``model.path_name``, ``model.denoiser_path`` (digests are binding, the place on the disk is not)
- ``model.loaded`` (where in a file the weights were: the same weights may be packed in other ways)
- ``model.scores`` (on fixed inputs: compared up to rounding, not bit by bit) and ``model.python``
- ``data.limit``, ``data.skip``, ``data.root`` (which inputs a session visits: a run may
  grow, and shards visit different inputs; every input's own record is the same)
- ``data.ids``, ``data.inputs``, ``data.labels``, ``data.count``, ``data.extended`` (hashes of the data set
  that a session was started on: ``bound`` compares them)

The device, the dtype and the versions of torch, numpy and this package stay binding:
they decide the last bits of a logit, and so which classifier is certified.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from certify.canonical import canonical, sha256_text
from certify.errors import RunConflict
from certify.files.text import command as plain_command

RECORDED = (
    "environment",
    "command",
    "versions.python",
    "model.path_name",
    "model.denoiser_path",
    "model.loaded",
    "model.scores",
    "model.python",
    "data.limit",
    "data.skip",
    "data.root",
    "data.ids",
    "data.inputs",
    "data.labels",
    "data.count",
    "data.extended",
)

#: What the user chose, in the order in which it is named where it differs.
_CHOSEN = (
    "model.digest", "model.function", "model.denoiser", "model.classifier", "denoiser_choice", "data.name",
    "data.split", "data.path", "sigma", "noise", "norm", "grid", "scores",
    "mode", "correction", "tolerate", "randomised", "runner_up", "slack", "step", "radius", "n0", "n",
    "n_max", "alpha", "seed", "dtype", "compiled", "device",
)  # fmt: skip
#: What follows from those, and is named without its values.
_FOLLOWS = ("diffusion_sigma", "noise_settings", "mode_options", "reduced", "model.labels", "bounds", "dim",
            "input_shape", "num_classes", "data.classes", "format_version", "seed_origin")  # fmt: skip

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
    if recorded.get("data") and not binding["data"]:
        del binding["data"]  # arrays without a name: what is left says nothing
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


def refuse_difference(
    where: str, stored: Mapping[str, Any], asked: Mapping[str, Any], *, command: Any = None
) -> None:
    """Raise RunConflict naming every binding setting that differs: what was chosen first, with both values.

    ``command``: how the run that is there was started, where it says so.
    """
    if canonical(stored) == canonical(asked):
        return
    chosen, other, follows = _sorted_out(differences(stored, asked))
    if not chosen and not other:
        other, follows = follows, []
    lines = [f"{key}: {_show(old)} there, {_show(new)} now" for key, old, new in chosen + other]
    if follows:
        lines.append(f"and what follows from it ({', '.join(key for key, _, _ in follows)})")
    raise RunConflict(
        f"{where} holds a run with other settings",
        why="; ".join(lines),
        remedy="give this run another directory with --out, or repeat the settings that are there"
        + (f": {told}" if (told := plain_command(command)) else "")
        + _about_code(chosen + other),
    )


def refuse_other_scores(
    where: str, sessions: Iterable[Mapping[str, Any]], recorded: Mapping[str, Any], unchecked: Iterable[str]
) -> None:
    """Raise RunConflict where a function's scores on fixed inputs are not those of an earlier session.

    Only more than rounding counts: sessions may use another number of threads. ``unchecked`` is what
    could not be read of the function.
    """
    now = (recorded.get("model") or {}).get("scores")
    for session in sessions:
        there = (session.get("model") or {}).get("scores")
        if not now or not there:
            continue
        apart, limit = scores_apart(there, now)
        unread = ", ".join(unchecked) or "nothing"
        if not apart <= limit:
            raise RunConflict(
                f"{where} holds a run of a function with other scores",
                why=f"on the same fixed inputs they differ by {apart:.2g}, rounding explains {limit:.2g}; "
                f"its code is the same, as far as it could be read (unread: {unread})",
                remedy="give this run another directory with --out, or pass the function it was made with",
            )


def scores_apart(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[float, float]:
    """(largest difference between two functions' fixed scores, the most that rounding explains)."""
    limit = max(left["rounding"], right["rounding"])
    if len(left["values"]) != len(right["values"]):
        return math.inf, limit
    pairs = zip(left["values"], right["values"], strict=True)
    return max((abs(a - b) for a, b in pairs), default=0.0), limit


def _sorted_out(found: Iterable[tuple[str, Any, Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """(chosen, other, follows): differences by who made them. A mode's own options follow a new mode."""
    rows = list(found)
    new_mode = any(key == "mode" for key, _, _ in rows)
    chosen, other, follows = [], [], []
    for key, old, new in rows:
        name = key.removeprefix("mode_options.")
        if name in _CHOSEN and not (name == "alpha" and name != key) and not (new_mode and name != key):
            chosen.append((name, old, new))
        elif key.startswith(_FOLLOWS):
            follows.append((key, old, new))
        else:
            other.append((key, old, new))
    return sorted(chosen, key=lambda row: _CHOSEN.index(row[0])), other, follows


def _about_code(rows: Iterable[tuple[str, Any, Any]]) -> str:
    """What to do where a model differs in what it is made of."""
    keys = [key for key, _, _ in rows if key.startswith(("model.code", "model.unchecked"))]
    if not keys:
        return ""
    return (
        ". A model is told apart by its weights, its code and all that the code refers to (of a plain "
        "function, installed libraries by their version, too; bytecode differs between releases of Python): "
        "pass the one the run was made with"
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
