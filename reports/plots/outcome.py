"""Proof, inconclusive, not attacked, counterexample: the inputs with each verdict, radius by radius."""

from __future__ import annotations

from reports.evidence import VERDICTS, Evidence
from reports.numbers import radius_down
from reports.svg import Axes, Figure


def outcome(evidence: Evidence) -> Figure:
    """One stacked bar per radius of the summary table."""
    total = max(1, len(evidence.run))
    rows = [(r, evidence.verdict(r)) for r in evidence.radii]
    say = evidence.say
    text = "; ".join(
        f"radius {radius_down(r, 2)}: " + ", ".join(f"{v[k]} {say.verdict(k)}" for k in VERDICTS if v[k])
        for r, v in rows
    )
    pitch = 46
    height = pitch * len(rows) + 34
    fig = Figure("outcome", 420, height, "Verdict per radius", text)
    axes = Axes(fig, 46, 24, 370, float(pitch * len(rows)), (0.0, float(total)), (0.0, 1.0))
    fig.label(0, 12, "radius", "name")
    for i, (radius, tally) in enumerate(rows):
        top, left = axes.top + pitch * i + 4, 0
        fig.label(axes.left - 8, top + 23, f"{radius:g}", "tick", "end")
        for kind in VERDICTS:
            n = tally[kind]
            if not n:
                continue
            a, b = axes.x(left), axes.x(left + n)
            css, width = kind.replace(" ", "-"), max(0.5, b - a - 1)
            fig.add("rect", f"bar-{css}", x=a, y=top, width=width, height=pitch - 10, rx=2)
            if b - a > 26:
                fig.label((a + b) / 2, top + 23, str(n), f"on-{css}", "middle")
            left += n
    return fig
