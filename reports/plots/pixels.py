"""The share of pixels certified against the radius, and what attacks of that size left standing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.numbers import percent_down, percent_up, radius_short
from reports.svg import Axes, Figure, ticks

if TYPE_CHECKING:
    from reports.segmentation import PixelEvidence

#: Radii at which the curve is worked out; between two of them it is drawn at the lower value.
POINTS = 120


def certified_pixels(evidence: PixelEvidence) -> Figure:
    """Certified share (dashed), certified-correct share with its interval over images, attacks as dots.

    A dot is the share of pixels that were right and that no perturbation of this size was confirmed
    to change, on the images that were attacked: no certified curve of these can lie above it.
    """
    dots = [r for r in evidence.attacks.rows if r.certified is not None]
    extent = max(evidence.largest, evidence.sigma / 10, *(r.eps for r in dots)) * 1.04
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
    for r in dots:
        note = f"attack within {r.eps:g}: {percent_up(r.survived)} of {r.images} images' pixels survived"
        fig.mark(*axes.point(r.eps, r.survived), "dot-wrong", note, r=4.2)
    return fig


def _describe(evidence: PixelEvidence) -> str:
    shown = []
    for row in evidence.rows:
        text = f"{percent_down(row.share)} certified"
        if row.correct is not None:
            text += f", {percent_down(row.correct.value)} certified with their true class"
        shown.append(f"at radius {radius_short(row.radius, 4)}: {text}")
    shown += [
        f"attacked within {radius_short(r.eps, 4)}: {percent_up(r.survived)} right and not changed"
        for r in evidence.attacks.rows
        if r.certified is not None
    ]
    return "; ".join(shown) + "."
