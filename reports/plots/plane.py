"""Two-dimensional inputs in their plane: certified discs and the attacks just outside them."""

from __future__ import annotations

import numpy as np

from reports.evidence import Evidence
from reports.gallery import attacked_pairs
from reports.numbers import distance_up, radius_down
from reports.svg import Axes, Figure, ticks


def plane(evidence: Evidence) -> Figure | None:
    """Every attacked input with its certified disc and the step to its adversarial example."""
    pairs = attacked_pairs(evidence)
    if not pairs or pairs[0].x.size != 2 or evidence.norm != "2":
        return None
    points = np.array([p.x.ravel() for p in pairs], dtype=np.float64)
    ends = np.array([p.x_adv.ravel() for p in pairs], dtype=np.float64)
    radii = np.array([r.radius if (r := evidence.by_index[p.index]).certified else 0.0 for p in pairs])
    low = np.minimum((points - radii[:, None]).min(axis=0), ends.min(axis=0))
    high = np.maximum((points + radii[:, None]).max(axis=0), ends.max(axis=0))
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    # One unit is equally long on both axes, or the discs would not be round.
    wide = 552.0
    scale = wide / float(high[0] - low[0])
    if (tall := float(high[1] - low[1]) * scale) > 560:
        wide, tall, scale = wide * 560 / tall, 560.0, scale * 560 / tall
    text = f"{len(pairs)} inputs; no attack ends inside the disc of its input."
    if evidence.contradictions:
        text = f"{len(pairs)} inputs; {len(evidence.contradictions)} attacks end inside a certified disc."
    fig = Figure("plane", 620, tall + 90, "Certified discs and attacks in the input plane", text)
    x_range, y_range = ((float(a), float(b)) for a, b in zip(low, high, strict=True))
    axes = Axes(fig, 46, 34, wide, tall, x_range, y_range)
    axes.frame("first coordinate", "second coordinate", x_ticks=ticks(*x_range), y_ticks=ticks(*y_range))
    for point, radius in zip(points, radii, strict=True):
        if radius > 0:
            fig.add("circle", "disc", cx=axes.x(point[0]), cy=axes.y(point[1]), r=float(radius) * scale)
    for pair, point, end, radius in zip(pairs, points, ends, radii, strict=True):
        fig.line(axes.point(*point), axes.point(*end), "step")
        note = f"input {pair.index}: certified {radius_down(float(radius))}"
        note += f", broken at {distance_up(pair.distance)}"
        record = evidence.by_index[pair.index]
        css = "dot-even" if (record.target or 0) % 2 == 0 else "dot-odd"
        fig.mark(*axes.point(*point), css, note, r=2.6)
        fig.mark(*axes.point(*end), "dot-end", note, r=1.8)
    return fig
