"""The share of pixels certified against the radius: all of them, and those with their true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.numbers import percent_down, radius_short
from reports.svg import Axes, Figure, ticks

if TYPE_CHECKING:
    from reports.segmentation import PixelEvidence

#: Radii at which the curve is worked out; between two of them it is drawn at the lower value.
POINTS = 120


def certified_pixels(evidence: PixelEvidence) -> Figure:
    """Certified share (dashed) and certified-correct share with its interval over images."""
    extent = max(evidence.largest, evidence.sigma / 10) * 1.04
    # A tested radius is a corner itself: the curve is flat up to it and nothing beyond.
    corners = (
        tuple(np.linspace(0.0, extent, POINTS)) if evidence.tested is None else (0.0, evidence.tested, extent)
    )
    rows = evidence.at(tuple(float(r) for r in corners))
    fig = Figure("pixels", 620, 430, "Certified pixels against the radius", _describe(evidence))
    axes = Axes(fig, 52, 34, 552, 340, (0.0, extent), (0.0, 1.0))
    right = [(r.radius, r.correct) for r in rows if r.correct is not None]
    if right:
        low = axes.steps([(x, e.low) for x, e in right])
        high = axes.steps([(x, e.high) for x, e in right])
        fig.path([*low, *reversed(high)], "band-proof", close=True)
    axes.frame(
        f"radius ({evidence.norm} distance of the whole image, input units)",
        "share of pixels",
        x_ticks=ticks(0, extent, 7),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
        y_format=lambda v: f"{v * 100:.0f} %",
    )
    fig.path(axes.steps([(r.radius, r.share) for r in rows]), "line-base" if right else "line-proof")
    if right:
        fig.path(axes.steps([(x, e.value) for x, e in right]), "line-proof")
    return fig


def _describe(evidence: PixelEvidence) -> str:
    shown = []
    for row in evidence.rows:
        text = f"{percent_down(row.share)} certified"
        if row.correct is not None:
            text += f", {percent_down(row.correct.value)} certified with their true class"
        shown.append(f"at radius {radius_short(row.radius, 4)}: {text}")
    return "; ".join(shown) + "."
