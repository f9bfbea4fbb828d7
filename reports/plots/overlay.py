"""The certified-accuracy curves of several runs in one plot."""

from __future__ import annotations

from collections.abc import Sequence

from certify.records import Estimate
from reports.evidence import Evidence
from reports.numbers import percent_down, radius_down
from reports.plots.accuracy import corners, label_of_radius
from reports.svg import Axes, Figure, Pair, ticks
from reports.vocabulary import CLAIMED, PROVED

#: Runs that colour and dash can tell apart.
MOST = 6


def overlay(runs: Sequence[Evidence]) -> Figure:
    """One step curve per run, each with its pointwise 95 % band."""
    extent = max([r.radius for e in runs for r in e.run if r.certified] + [runs[0].sigma / 10]) * 1.04
    text = ". ".join(
        f"{e.name}: "
        + ", ".join(
            f"{percent_down(a.value)} at {radius_down(a.at, 2)}" for a in e.certified_accuracy(e.radii)
        )
        for e in runs
    )
    say = CLAIMED if any(e.imported for e in runs) else PROVED
    fig = Figure("overlay", 620, 430, f"{say.accuracy.capitalize()} of each run", text)
    axes = Axes(fig, 52, 34, 552, 340, (0.0, extent), (0.0, 1.0))
    axes.frame(
        label_of_radius(runs[0]),
        say.accuracy if runs[0].labelled else say.share,
        x_ticks=ticks(0, extent, 7),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
        y_format=lambda v: f"{v * 100:.0f} %",
    )
    curves = [e.certified_accuracy(corners([r.radius for r in e.run if r.certified], extent)) for e in runs]
    for i, curve in enumerate(curves):
        low, high = _line(axes, curve, "low"), _line(axes, curve, "high")
        fig.path([*low, *reversed(high)], f"band-run run-{i}", close=True)
    for i, curve in enumerate(curves):
        fig.path(_line(axes, curve, "value"), f"line-run run-{i}")
    return fig


def _line(axes: Axes, curve: Sequence[Estimate], field: str) -> list[Pair]:
    return axes.steps([(float(e.at or 0.0), float(getattr(e, field))) for e in curve])
