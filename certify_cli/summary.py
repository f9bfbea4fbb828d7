"""A certification run in one object, as a table, and as a gate."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from certify import Run

#: Radii at which certified accuracy is reported, in units of sigma.
REPORT_AT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def summarize(run: Run, place: Path | None) -> dict[str, Any]:
    """The run in one JSON object: counts, accuracies with intervals, cost, guarantee."""
    from certify import Status
    from certify.inputs import interval_notes

    tally = {status: sum(r.status is status for r in run) for status in Status}
    labelled = len(run) > 0 and all(r.target is not None for r in run)
    sigma = run.settings["sigma"]
    estimates = run.accuracy([round(sigma * f, 6) for f in REPORT_AT]) if labelled else []
    rows = [
        {
            "radius": e.at,
            "value": e.value,
            "low": e.low,
            "high": e.high,
            "level": e.level,
            "robust_low": e.robust_low,
        }
        for e in estimates
    ]
    return {
        "run": None if place is None else str(place),
        "inputs": len(run),
        "certified": tally[Status.CERTIFIED],
        "abstained": tally[Status.ABSTAINED],
        "failed": tally[Status.FAILED],
        "clean_accuracy": rows[0]["value"] if rows else None,
        "certified_accuracy": rows,
        "interval_notes": interval_notes(run.records, run.settings) if labelled else [],
        "mean_radius": run.mean_radius(),
        "simultaneous": _simultaneous(run) if labelled else None,
        "one_sided": _one_sided(run) if labelled else None,
        "samples_per_input": sum(r.samples for r in run) / len(run) if len(run) else 0.0,
        "settings": run.settings,
        "guarantee": run.guarantee,
    }


def _simultaneous(run: Run) -> dict[str, Any] | None:
    """Certified accuracy where all certificates hold together at the run's alpha (Bonferroni)."""
    if run.settings["mode"] == "decide" or run.settings.get("scores", "votes") != "votes":
        return None
    radii = run.simultaneous()
    right = [r for record, r in zip(run, radii, strict=True) if record.correct]
    at = [round(run.settings["sigma"] * f, 6) for f in REPORT_AT]
    return {
        "level": 1 - run.settings["alpha"],
        "certified_accuracy": [{"radius": a, "value": sum(r >= a for r in right) / len(run)} for a in at],
        "mean_radius": sum(right) / len(run),
    }


def _one_sided(run: Run) -> dict[str, Any] | None:
    """The same run by p_B := 1 - p_A, as published tables have it; None where its radii are those."""
    from certify.runner_up import share_of

    if not share_of(run.settings):
        return None
    pairs = [(record, r) for record, r in zip(run, run.one_sided(), strict=True) if record.correct]
    at = [round(run.settings["sigma"] * f, 6) for f in REPORT_AT]
    shares = [sum(record.p_lower > 0.5 and r >= a for record, r in pairs) / len(run) for a in at]
    return {
        "certified_accuracy": [{"radius": a, "value": share} for a, share in zip(at, shares, strict=True)],
        "mean_radius": sum(r for _, r in pairs) / len(run),
    }


def formulas(run: Run) -> list[dict[str, Any]]:
    from certify.radii import formula_table

    sigma, dim = run.settings["sigma"], run.settings["dim"]
    return [{"index": r.index, "radii": formula_table(r, sigma, dim)} for r in run if r.certified]


def show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from reports.fronts import front_sentences
    from reports.numbers import distance_up, radius_down

    console = common.tables()
    table = Table(title=f"certified accuracy, {summary['inputs']} inputs", title_justify="left")
    for heading in (f"l{summary['settings']['norm']} radius", "accuracy", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in summary["certified_accuracy"]:
        interval = f"{radius_down(row['low'])} to {distance_up(row['high'])}"
        table.add_row(f"{row['radius']:g}", radius_down(row["value"]), interval)
    if table.rows:  # without true labels there is no accuracy
        console.print(table)
    for note in summary["interval_notes"]:
        console.print(note)
    console.print(
        f"certified {summary['certified']}, abstained {summary['abstained']}, failed {summary['failed']}; "
        f"mean radius {radius_down(summary['mean_radius'], 4)}; "
        f"{summary['samples_per_input']:,.0f} samples per input"
    )
    if summary["one_sided"]:
        console.print(
            f"with p_B = 1 - p_A, as in published tables, the mean radius is "
            f"{radius_down(summary['one_sided']['mean_radius'], 4)}"
        )
    console.print(f"\n{summary['guarantee']}\n")
    for sentence in front_sentences(summary["settings"]):
        console.print(f"{sentence}\n")
    show_requirements(summary)
    show_seed(summary["settings"])
    console.print(f"run directory: {summary['run']}", soft_wrap=True)
    arch = (summary["settings"].get("model") or {}).get("architecture")
    common.say_next(f"certify attack {summary['run']}{common.own_network(arch)}")


def show_seed(settings: Mapping[str, Any]) -> None:
    """The run's seed and where it came from; nothing where a run has none."""
    from certify.seeds import recorded

    if (seed := recorded(settings)) is not None:
        how = "drawn for this run" if seed.origin == "drawn" else "as given"
        common.tables().print(f"seed: {seed.value} ({how})", soft_wrap=True)


def parse_gates(texts: list[str]) -> list[tuple[str, float | None, float]]:
    """(quantity, radius, least value) of gates such as "certified@0.5>=0.9" or "mean_radius>=0.4"."""
    from certify.errors import InvalidSetting

    gates = []
    for text in texts:
        found = re.fullmatch(r"\s*(certified@([0-9.]+)|clean|mean_radius)\s*>=\s*([0-9.]+)\s*", text)
        try:
            assert found is not None
            at = float(found[2]) if found[2] else 0.0 if found[1] == "clean" else None
            least = float(found[3])
        except (AssertionError, ValueError):
            raise InvalidSetting(
                f"--require {text!r} is not a requirement",
                why="it names a quantity and its least value",
                remedy='write --require "certified@0.5>=0.9", "clean>=0.95" or "mean_radius>=0.4"',
            ) from None
        if at is not None and least > 1:
            raise InvalidSetting(
                f"--require {text!r} can never be met",
                why="it asks for a share of the inputs, which is at most 1",
                remedy=f'write 95 percent as 0.95: --require "{found[1]}>=0.95"',
            )
        gates.append((found[1], at, least))
    return gates


def judge(
    gates: list[tuple[str, float | None, float]], value: Callable[[float | None], float]
) -> dict[str, list[dict[str, Any]]]:
    """What was required beside what was found; nothing where nothing was required.

    ``value`` gives the certified accuracy at a radius, and for None the mean radius. Accuracy passes on
    its value, not on its interval.
    """
    found = [(name, least, value(at)) for name, at, least in gates]
    rows = [{"quantity": name, "least": least, "value": v, "met": v >= least} for name, least, v in found]
    return {"requirements": rows} if rows else {}


def enforce(result: dict[str, Any]) -> None:
    """Raise EvidenceFails if a requirement is not met."""
    from certify.errors import EvidenceFails
    from reports.numbers import radius_down

    missed = [row for row in result.get("requirements", []) if not row["met"]]
    if missed:
        raise EvidenceFails(
            "the run does not meet what is required of it",
            why="; ".join(
                f"{row['quantity']} is {radius_down(row['value'], 4)}, required: at least {row['least']:g}"
                for row in missed
            ),
            remedy="train for a larger radius, or lower the requirement knowingly",
        )


def show_requirements(result: dict[str, Any]) -> None:
    from reports.numbers import radius_down

    for row in result.get("requirements", []):
        found = f"{row['quantity']}>={row['least']:g}: {radius_down(row['value'], 4)}"
        print(f"required {found}, {'met' if row['met'] else 'NOT met'}")
