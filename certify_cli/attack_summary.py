"""What ``certify attack`` prints of an attack on a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from attacks import AttackRun


def show(outcomes: AttackRun, *, as_json: bool, hits: list[Any]) -> None:
    """The outcomes as a few lines, or as one JSON object; ``hits`` are contradictions."""
    accuracy = outcomes.robust_accuracy()
    median = outcomes.median_distance()
    summary = {
        "preset": outcomes.preset,
        "norm": outcomes.threat.norm_name,
        "eps": outcomes.threat.eps,
        "inputs": len(outcomes),
        "counts": {str(k): v for k, v in outcomes.counts().items()},
        "survived": {
            "value": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "level": accuracy.level,
        },
        "median_distance": median,
        "plateau": outcomes.flags.get("plateau", 0),
        "contradictions": [o.to_json() for o in hits],
    }
    if as_json:
        common.print_json(summary)
        return
    from reports.numbers import distance_up

    console = common.tables()
    console.print(
        f"preset {summary['preset']}, l{summary['norm']}"
        + ("" if summary["eps"] is None else f" within {summary['eps']:g}")
        + f", {len(outcomes)} inputs: "
        + ", ".join(f"{n} {status}" for status, n in summary["counts"].items())
    )
    console.print(
        f"survived {accuracy.value:.3f} "
        f"({accuracy.level:.0%} interval {accuracy.low:.3f} to {accuracy.high:.3f})"
    )
    if summary["plateau"]:
        console.print(
            f"{summary['plateau']} of the survivors are on a plateau: its scores never changed, so the "
            "search had nothing to follow and surviving is no evidence"
        )
    if median is not None:
        console.print(f"median distance of the broken {distance_up(median, 4)}")
    if hits:
        console.print(
            f"CONTRADICTION: {len(hits)} confirmed attacks lie inside certified balls; the run is invalid"
        )
