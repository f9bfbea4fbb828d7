"""The tables of attack_strength.json for docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

try:
    from attack_summary import OURS, PEER, summed, threats_of
    from common import table
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks.attack_summary import OURS, PEER, summed, threats_of
    from benchmarks.common import table

Rows = Sequence[dict[str, Any]]


def section(found: dict[str, Any], part: str) -> str:
    """A table, or for "summary:part" the sentence about it; "" where it was not measured."""
    about, _, of = part.rpartition("-")
    rows = found.get(of if about == "summary" else part)
    if not rows:
        return ""
    if about == "summary":
        return summary(rows, wall_too=of == "threats")
    return table({"threats": by_tool, "fresh": by_threat, "repeats": over_seeds}.get(part, list)(rows))


def by_tool(rows: Rows) -> list[dict[str, Any]]:
    """One line per tool and threat, with CPU times relative to pyautoattack's."""
    keep = ("model", "norm", "eps", "inputs", "tool", "survived", "refused by the judge", "we miss",
            "it misses", "time / pyautoattack", "forwards per input", "backwards per input")  # fmt: skip
    base = {(r["model"], r["norm"], r["eps"]): r["cpu seconds"] for r in rows if r["tool"] == PEER}
    return [
        {k: r[k] for k in keep}
        | {"CPU time / pyautoattack": r["cpu seconds"] / base[r["model"], r["norm"], r["eps"]]}
        for r in rows
    ]


def by_threat(rows: Rows) -> list[dict[str, Any]]:
    """One line per threat: what survives each tool, and what they break that survives ours.

    CPU time only: a run of many networks shares its machine with other work.
    """
    tools = dict.fromkeys(r["tool"] for r in rows)
    out = []
    for (model, norm, eps), mine in threats_of(rows).items():
        peers = [r for name, r in mine.items() if name != OURS]
        alike = mine[OURS]["same parts"]
        out.append(
            {"model": model, "norm": norm, "eps": eps, "inputs": mine[OURS]["inputs"]}
            | {f"survived {t}": mine[t]["survived"] if t in mine else "" for t in tools}
            | {
                "we miss": max(r["we miss"] for r in peers),
                "CPU time / pyautoattack": (
                    mine[OURS]["cpu seconds"] / mine[PEER]["cpu seconds"] if alike else ""
                ),
            }
        )
    return out


def summary(rows: Rows, *, wall_too: bool) -> str:
    """What the table comes to, in a sentence; with wall times where nothing else ran."""
    cases = list(threats_of(rows).values())
    lower = sum(c[OURS]["survived"] <= c[PEER]["survived"] for c in cases)
    missed = sum(max(r["we miss"] for name, r in c.items() if name != OURS) for c in cases)
    alike = [c for c in cases if c[OURS].get("same parts", True)]
    wall = [c[OURS]["seconds"] / c[PEER]["seconds"] for c in alike]
    cpu = [c[OURS]["cpu seconds"] / c[PEER]["cpu seconds"] for c in alike]
    per_tool = ", ".join(
        f"{sum(c[t]['it misses'] for c in cases if t in c)} by {t}"
        for t in dict.fromkeys(r["tool"] for r in rows)
        if t != OURS
    )
    wall_time = f"wall time is {statistics.median(wall):.2f} (largest {max(wall):.2f}) and its " * wall_too
    return (
        f"{len(cases)} threats: as many inputs survive `standard` as pyautoattack, or fewer, on {lower}; "
        f"{missed} confirmed break{'s' * (missed != 1)} of the others survive{'s' * (missed == 1)} "
        f"`standard`. "
        f"Of its own breaks are missed: {per_tool}. Its {wall_time}CPU time {'is ' * (not wall_too)}"
        f"{statistics.median(cpu):.2f} of pyautoattack's (median; largest {max(cpu):.2f})."
    )


def over_seeds(rows: Rows) -> list[dict[str, Any]]:
    """Misses per seed with Student intervals, each tool beside ours on the threats it takes."""
    return summed(rows)
