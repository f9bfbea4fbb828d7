"""How many copies of the inputs were right, and the ends stated at each radius."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from reports.numbers import percent_down, percent_up, radius_short
from reports.svg import Axes, Figure, ticks

if TYPE_CHECKING:
    from reports.population import PopulationEvidence

#: Bars of the histogram at most; with more copies neighbours share one.
BARS = 60


def ends(evidence: PopulationEvidence) -> Figure:
    """The stated interval of each radius, and the one-copy classifier where it is stated."""
    rows = evidence.statements
    text = "; ".join(
        f"radius {radius_short(s.radius, 4)}: at least {percent_down(s.lower)}, at most {percent_up(s.upper)}"
        + (f", one copy at least {percent_down(s.one_pass)}" if s.one_pass is not None else "")
        for s in rows
    )
    fig = Figure("population", 620, 430, "What is stated at each radius", f"{text}.")
    extent = max(1.25 * max(s.radius for s in rows), 1e-9)
    axes = Axes(fig, 52, 34, 552, 340, (0.0, extent), (0.0, 1.0))
    axes.frame(
        "radius (ℓ₂, input units)", f"share of the {evidence.options['about']}", x_ticks=ticks(0, extent, 7),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1], y_format=lambda v: f"{v * 100:.0f} %",
    )  # fmt: skip
    for s in rows:
        x, low, high = axes.x(s.radius), axes.y(s.lower), axes.y(s.upper)
        note = f"radius {s.radius:g}: {percent_down(s.lower)} to {percent_up(s.upper)}"
        fig.path([(x - 9, low), (x + 9, low), (x + 9, high), (x - 9, high)], "band-proof", close=True)
        fig.path([(x - 12, low), (x + 12, low)], "line-proof")
        fig.mark(x, low, "dot-proof", note, r=4.0)
        if s.one_pass is not None:
            fig.mark(
                *axes.point(s.radius, s.one_pass), "dot-open", f"one copy: {percent_down(s.one_pass)}", r=4.2
            )
    return fig


def right_copies(evidence: PopulationEvidence) -> Figure:
    """Counted inputs by how many of their copies were right."""
    n, counts = evidence.n, evidence.right
    width = max(1, math.ceil((n + 1) / BARS))
    bars = np.bincount(counts // width, minlength=n // width + 1).tolist()
    highest = max(bars)
    text = f"{int((counts == n).sum())} of {len(counts)} counted inputs had all {n} copies right."
    fig = Figure("counts", 620, 320, "Right copies per input", text)
    axes = Axes(fig, 56, 34, 548, 232, (-0.5, n + 0.5), (0.0, highest * 1.05))
    axes.frame(
        f"right copies of {n}", "counted inputs", x_ticks=[t for t in ticks(0, n, 10) if t == math.floor(t)],
        y_ticks=[t for t in ticks(0, highest, 5) if t == math.floor(t)],
    )  # fmt: skip
    for i, number in enumerate(bars):
        if number:
            left, right = axes.x(i * width - 0.5), axes.x(min((i + 1) * width, n + 1) - 0.5)
            top, gap = axes.y(number), min(0.75, (right - left) / 8)
            span = f"{i * width}" if width == 1 else f"{i * width} to {min((i + 1) * width - 1, n)}"
            note = f"{span} right: {number} inputs"
            fig.box(left + gap, top, right - left - 2 * gap, axes.y(0) - top, "bar-proof", note)
    return fig
