"""Certified and attacked accuracy against the radius, with the zone between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from certify.drawing import thinned
from certify.records import Estimate
from reports.attack_groups import norm_name
from reports.evidence import Evidence
from reports.numbers import percent_down, percent_up, radius_down
from reports.svg import Axes, Figure, Pair, ticks


def accuracy(evidence: Evidence) -> Figure:
    """The share proved correct (with its pointwise band) below, the share not yet broken above.

    All curves are about the same inputs: where only some were attacked, about those. So the certified
    curve lies above the attacked one only where a certificate is contradicted.
    """
    evidence = evidence.confronted
    extent = _extent(evidence)
    proved = evidence.certified_accuracy(corners([r.radius for r in evidence.run if r.certified], extent))
    title = f"{evidence.say.certified.capitalize()} and attacked accuracy"
    fig = Figure("accuracy", 620, 430, title, _describe(evidence))
    axes = Axes(fig, 52, 34, 552, 340, (0.0, extent), (0.0, 1.0))

    attacked = _attacked(evidence, extent, smoothed=True)
    if attacked:
        _zone_above(axes, attacked)
    _area(axes, proved)
    axes.frame(
        label_of_radius(evidence),
        "share of inputs",
        x_ticks=ticks(0, extent, 7),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
        y_format=lambda v: f"{v * 100:.0f} %",
    )
    _band(axes, proved, "band-proof")
    _curve(axes, proved, "line-proof")
    if attacked:
        _band(axes, attacked, "band-counter")
        _curve(axes, attacked, "line-counter")
    base = _attacked(evidence, extent, smoothed=False)
    if base and has_base_curve(evidence):
        _curve(axes, base, "line-base")
    return fig


def certified(evidence: Evidence) -> Figure | None:
    """The certified curve of all inputs, where the first figure shows the attacked ones only."""
    if evidence.confronted is evidence:
        return None
    untouched = replace(evidence, attacks=[])
    return replace(
        accuracy(untouched), name="certified", title=f"{evidence.say.accuracy.capitalize()}, all inputs"
    )


def has_base_curve(evidence: Evidence) -> bool:
    """Whether the base model was attacked on every input that the first figure is about."""
    shown = evidence.confronted
    return shown.attacked(smoothed=False) == shown.by_index.keys() != set()


def label_of_radius(evidence: Evidence) -> str:
    """The horizontal axis of every accuracy plot."""
    return f"radius ({norm_name(evidence.norm)} distance, input units)"


def _extent(evidence: Evidence) -> float:
    largest = max([r.radius for r in evidence.run if r.certified], default=0.0)
    found = evidence.distances(smoothed=True)
    # Past twice the largest certificate the certified curve is flat at zero: not worth the room.
    far = min(max(found, default=0.0), 2 * largest) if largest else max(found, default=0.0)
    return max(largest, far, evidence.sigma / 10) * 1.04


def corners(radii: Sequence[float], extent: float, most: int = 400) -> list[float]:
    """Where the curve can step, thinned to ``most`` radii, with both ends."""
    inside = thinned((r for r in radii if r <= extent), most)
    return [0.0, *inside, *([extent] if not inside or inside[-1] < extent else [])]


def _attacked(evidence: Evidence, extent: float, *, smoothed: bool) -> list[Estimate]:
    reach = min(extent, evidence.attack_reach(smoothed=smoothed))
    if reach <= 0:
        return []
    at = corners(evidence.distances(smoothed=smoothed), reach)
    return evidence.attacked_accuracy(at, smoothed=smoothed)


def _curve(axes: Axes, estimates: Sequence[Estimate], css: str) -> None:
    axes.figure.path(_steps(axes, estimates, "value", css), css)


def _band(axes: Axes, estimates: Sequence[Estimate], css: str) -> None:
    low, high = _steps(axes, estimates, "low", css), _steps(axes, estimates, "high", css)
    axes.figure.path([*low, *reversed(high)], css, close=True)


def _area(axes: Axes, proved: Sequence[Estimate]) -> None:
    curve = _steps(axes, proved, "value", "proof")
    floor = axes.y(0)
    axes.figure.path([(curve[0][0], floor), *curve, (curve[-1][0], floor)], "zone-proof", close=True)


def _zone_above(axes: Axes, attacked: Sequence[Estimate]) -> None:
    curve = _steps(axes, attacked, "value", "counter")
    roof = axes.y(1)
    axes.figure.path([(curve[0][0], roof), *curve, (curve[-1][0], roof)], "zone-counter", close=True)


def _steps(axes: Axes, estimates: Sequence[Estimate], field: str, css: str) -> list[Pair]:
    """Screen points of a step curve.

    A certificate of radius R still counts at R, so the certified curve drops just after it; a
    counterexample at distance D counts at D, so the attacked curve drops there.
    """
    corners = [(float(e.at or 0.0), float(getattr(e, field))) for e in estimates]
    if "proof" in css:
        return axes.steps(corners)
    out = [axes.point(*corners[0])]
    for (_, y), (x, after) in itertools.pairwise(corners):
        out += [axes.point(x, y), axes.point(x, after)]
    return out


def _describe(evidence: Evidence) -> str:
    parts = []
    for e in evidence.certified_accuracy(evidence.radii):
        parts.append(f"{percent_down(e.value)} at radius {radius_down(e.at, 2)}")
    text = f"{evidence.say.accuracy.capitalize()}: " + ", ".join(parts) + "."
    reach = evidence.attack_reach(smoothed=True)
    at = [r for r in evidence.radii if r <= reach]
    found = evidence.attacked_accuracy(at, smoothed=True)
    if found:
        shown = ", ".join(f"{percent_up(e.value)} at {radius_down(e.at, 2)}" for e in found)
        text += f" Attacked accuracy of the smoothed classifier: {shown}."
    return text
