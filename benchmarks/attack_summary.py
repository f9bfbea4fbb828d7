"""What the rows of attack_strength.json come to: per threat, and per tool over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    import common
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks import common

OURS = "standard (ours)"
PEER = "pyautoattack"
Rows = Sequence[dict[str, Any]]


def threats_of(rows: Rows) -> dict[tuple[str, str, float], dict[str, dict[str, Any]]]:
    """(model, norm, eps) -> tool -> row."""
    out: dict[tuple[str, str, float], dict[str, dict[str, Any]]] = {}
    for row in rows:
        out.setdefault((row["model"], row["norm"], row["eps"]), {})[row["tool"]] = row
    return out


def summed(rows: Rows) -> list[dict[str, Any]]:
    """Misses per seed of each tool over all threats it takes, beside ours on the same threats."""
    out = []
    for tool in dict.fromkeys(r["tool"] for r in rows):
        shared = [c for c in threats_of(rows).values() if tool in c]
        cases = [c[tool] for c in shared]
        out.append(
            {
                "tool": tool, "threats": len(cases), "breakable inputs": sum(r["breakable"] for r in cases),
                "seeds": cases[0]["seeds"], "misses per seed": _per_seed(cases),
                "standard's on the same": _per_seed([c[OURS] for c in shared]),
            }
        )  # fmt: skip
    return out


def _per_seed(rows: Rows) -> dict[str, float]:
    totals = [sum(column) for column in zip(*(r["misses"] for r in rows), strict=True)]
    return common.over_seeds([float(t) for t in totals])
