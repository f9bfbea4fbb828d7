"""How many inputs were certified at which radius, right and wrong ones apart."""

from __future__ import annotations

import math

from certify.records import Status
from reports.evidence import Evidence
from reports.numbers import radius_down
from reports.svg import Axes, Figure, ticks

BINS = 24


def histogram(evidence: Evidence) -> Figure | None:
    """Certified radii in equal bins, with the inputs that got no certificate left of zero."""
    certified = [r for r in evidence.run if r.certified]
    if not certified:
        return None
    top = max(r.radius for r in certified) or evidence.sigma
    right, wrong = [0] * BINS, [0] * BINS
    for r in certified:
        bin_ = min(BINS - 1, int(r.radius / top * BINS))
        (wrong if r.correct is False else right)[bin_] += 1
    without = evidence.number(Status.ABSTAINED) + evidence.number(Status.FAILED)
    highest = max([a + b for a, b in zip(right, wrong, strict=True)] + [without])
    say = evidence.say
    text = (
        f"{len(certified)} {say.certified} radii up to {radius_down(top)}, {sum(wrong)} of them for a wrong "
        f"class; {without} inputs without a {say.certificate}."
    )
    fig = Figure("histogram", 560, 320, f"{say.certified.capitalize()} radii", text)
    axes = Axes(fig, 46, 34, 496, 232, (-3 * top / BINS, top), (0.0, highest * 1.05))
    axes.frame(
        f"{say.certified} radius",
        "inputs",
        x_ticks=ticks(0, top),
        y_ticks=[t for t in ticks(0, highest, 5) if t == math.floor(t)],
    )
    width = 496 / (BINS + 3)
    _bar(
        axes,
        axes.left + 0.4 * width,
        1.6 * width,
        0,
        without,
        "bar-inconclusive",
        f"no {say.certificate}: {without}",
    )
    fig.label(axes.left + 1.2 * width, axes.top + axes.height + 20, "none", "tick", "middle")
    for i in range(BINS):
        span = f"radius {radius_down(i * top / BINS)} to {radius_down((i + 1) * top / BINS)}"
        left = axes.x(i * top / BINS)
        _bar(axes, left, width, 0, right[i], "bar-proof", f"{span}: {right[i]}")
        _bar(axes, left, width, right[i], wrong[i], "bar-counterexample", f"{span}, wrong class: {wrong[i]}")
    return fig


def _bar(axes: Axes, left: float, width: float, base: int, number: int, css: str, note: str) -> None:
    if number:
        low, high = axes.y(base), axes.y(base + number)
        axes.figure.box(left + 0.75, high, width - 1.5, low - high, css, note)
