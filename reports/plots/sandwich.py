"""Per input: the certified radius against the distance of the nearest confirmed attack."""

from __future__ import annotations

from reports.evidence import Evidence, Point
from reports.numbers import distance_up, radius_down
from reports.svg import Axes, Figure, ticks


def sandwich(evidence: Evidence) -> Figure | None:
    """Every point must lie above the diagonal; None where nothing was both certified and attacked."""
    # Where the class was wrong before any attack, nothing was searched for.
    tried = evidence.attacked(smoothed=True) - evidence.wrong(smoothed=True)
    points = [
        p for p in evidence.points
        if p.record.certified and (p.distance is not None or p.record.index in tried)
    ]  # fmt: skip
    if not points:
        return None
    met = [p for p in points if p.distance is not None]
    wide = max(p.record.radius for p in points) * 1.12 or 1.0
    tall = max([wide] + [(p.distance or 0.0) * 1.06 for p in points])
    below = len(evidence.contradictions)
    text = (
        f"{len(met)} certified inputs with a confirmed attack, {len(points) - len(met)} with none found; "
        f"{below} attacks lie inside a certified ball."
    )
    fig = Figure("sandwich", 560, 500, "Certified radius and attack distance per input", text)
    axes = Axes(fig, 46, 34, 496, 402, (0.0, wide), (0.0, tall))
    fig.path([axes.point(0, 0), axes.point(wide, wide), axes.point(wide, 0)], "zone-void", close=True)
    axes.frame(
        "certified radius (lower bound)",
        "distance of the nearest confirmed attack (upper bound)",
        x_ticks=ticks(0, wide),
        y_ticks=ticks(0, tall),
    )
    fig.line(axes.point(0, 0), axes.point(wide, wide), "diagonal")
    fig.label(axes.x(wide) - 10, axes.y(tall * 0.03), "a point here would refute the run", "note", "end")
    bad = {o["index"] for o in evidence.contradictions}
    for p in met:
        note = f"{_named(p)}, broken at {distance_up(p.distance)}"
        css = "dot-wrong" if p.record.correct is False else "dot-proof"
        css = "dot-bad" if p.record.index in bad else css
        fig.mark(*axes.point(p.record.radius, p.distance or 0.0), css, note)
    for p in points:
        if p.distance is None:
            note = f"{_named(p)}, no attack confirmed"
            fig.mark(axes.x(p.record.radius), axes.top + 5, "dot-open", note, shape="triangle")
    return fig


def _named(point: Point) -> str:
    return f"input {point.record.index}: certified {radius_down(point.record.radius)}"
