"""The figures of docs/runner-up.md, from results/runner_up.json."""

from __future__ import annotations

import json
import math
from typing import Any

from common import RESULTS, table


def figures(name: str) -> str:
    """One table by name; "" where it was not measured."""
    path = RESULTS / "runner_up.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if not found:
        return ""
    if name == "single":
        return table([_single(row) for row in found["single"]])
    if name == "machine":
        return (
            f"*{found['inputs']} inputs, n = {found['n']:,} (n_max for the others), alpha = "
            f"{found['alpha']:g}, a share of {found['share']:g} for the runner-up; `grid` has radii sigma / "
            f"{found['grid_steps']} apart, `decide` asks for sigma / 2. torch {found['machine']['torch']}, "
            f"Python {found['machine']['python']}.*"
        )
    rows = [
        _mode(row, mode, of) for row in found["studies"].get(name, []) for mode, of in row["modes"].items()
    ]
    return table(rows) if rows else ""


def down(value: float, digits: int = 3) -> str:
    """Rounded down: a radius is never printed larger than it is."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def _single(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "classes": row["classes"], "leader": f"{row['leader']:g}", "runner-up": f"{row['rival']:g}",
        "one-sided": down(row["one_sided"]) if row["one_sided"] else "abstains",
        "both bounds": down(row["both"]),
    }  # fmt: skip


def _mode(row: dict[str, Any], mode: str, found: dict[str, Any]) -> dict[str, Any]:
    alone, fixed = found["one_sided"], row["modes"]["fixed"]["mean_radius"]
    return {
        "sigma": f"{row['sigma']:g}", "mode": mode,
        "one-sided": down(alone["mean_radius"]), "both bounds": down(found["mean_radius"]),
        "kept": down(found["mean_radius"] / fixed) if mode in ("radius", "grid") else "",
        "certified, one-sided": down(alone["certified"], 2), "certified": down(found["certified"], 2),
        "samples, one-sided": round(alone["samples"]), "samples": round(found["samples"]),
    }  # fmt: skip
