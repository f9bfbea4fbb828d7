"""Figures of theory beside measurement. Every function returns a matplotlib Figure and keeps no state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from certify.radii import RADII, formula_table

if TYPE_CHECKING:
    from analysis.correlation import RankCorrelation
    from analysis.evidence import Evidence
    from analysis.heldout import MeasuredGap
    from analysis.ledger import Ledger
    from analysis.lipschitz_estimates import LipschitzBracket
    from analysis.margins import MarginDistribution
    from analysis.result import BoundResult

#: Okabe and Ito's colours, told apart by colour-blind readers; the last one marks what is refuted.
COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#7F7F7F")
REFUTED = "#D55E00"
_MARKERS = "osD^vP"


def bounds_against_n(
    sizes: Sequence[int], bounds: Mapping[str, Sequence[float]], gaps: Sequence[MeasuredGap]
) -> Figure:
    """Risk bounds against the number of training points, with the measured risk and its interval.

    ``bounds[name][i]`` and ``gaps[i]`` belong to ``sizes[i]``. The line at 1 is where a bound says nothing.
    """
    figure, axes = _blank(8.4, 4.0)
    axes.fill_between(
        sizes, [g.test_low for g in gaps], [g.test_high for g in gaps], color="#BBBBBB", alpha=0.6, lw=0,
        label="measured risk, 95 % interval",
    )  # fmt: skip
    axes.plot(sizes, [g.test_error for g in gaps], color="black", lw=1.2)
    for k, (name, values) in enumerate(bounds.items()):
        colour = COLOURS[k % len(COLOURS)]
        dash = "-" if k < len(COLOURS) else "--"
        axes.plot(sizes, values, dash, color=colour, marker=_MARKERS[k % 6], ms=4, lw=1.3, label=name)
    axes.axhline(1.0, color="black", lw=0.8, ls=":")
    axes.annotate(
        "above: says nothing", (sizes[0], 1.0), xytext=(2, 3), textcoords="offset points", fontsize=8
    )
    axes.set(xscale="log", yscale="log", xlabel="training points N", ylabel="risk or bound")
    _plain_ticks(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def slack_bars(ledger: Ledger) -> Figure:
    """For every decided row of the ledger: theory divided by measurement, on a log scale.

    Each row is a bar from 1 (tight). Radii claim a lower bound on the distance and complexities an upper
    bound, so a bar to the left or right is only slack; refuted rows are drawn in another colour.
    """
    rows = [
        row
        for row in ledger
        if row.status != "undetermined" and row.theory and row.measured and math.isfinite(row.theory)
    ]
    figure, axes = _blank(7.2, 0.6 + 0.26 * max(1, len(rows)))
    for k, row in enumerate(rows):
        assert row.theory is not None
        assert row.measured is not None
        ratio = math.log10(row.theory / row.measured)
        colour = REFUTED if row.status == "violated" else COLOURS[0]
        axes.barh(-k, ratio, color=colour, height=0.7)
    axes.axvline(0.0, color="black", lw=0.8)
    axes.set_yticks([-k for k in range(len(rows))], [_short(f"{r.claim}: {r.quantity}") for r in rows])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("log10(theory / measured)")
    axes.set_title("orange: refuted", fontsize=8, loc="right")
    return figure


def margin_cdfs(margins: Mapping[str, MarginDistribution]) -> Figure:
    """Distribution functions of margins; what lies left of 0 is misclassified."""
    figure, axes = _blank(5.2, 3.6)
    for k, (name, distribution) in enumerate(margins.items()):
        n = len(distribution.values)
        share = np.arange(1, n + 1) / n
        axes.step(
            distribution.values, share, where="post", color=COLOURS[k % len(COLOURS)], lw=1.4, label=name
        )
    axes.axvline(0.0, color="black", lw=0.8, ls=":")
    axes.set(xlabel="margin", ylabel="share of points with at most this margin", ylim=(0, 1))
    axes.legend(fontsize=8, frameon=False)
    return figure


def complexity_against_sigma(
    sigmas: Sequence[float], curves: Mapping[str, Sequence[BoundResult]], *, title: str = ""
) -> Figure:
    """Rademacher complexities of smoothed classes against sigma, with their intervals."""
    figure, axes = _blank(5.2, 3.6)
    for k, (name, results) in enumerate(curves.items()):
        value = np.array([r.value for r in results])
        ends = np.array([[r.value - r.low, r.high - r.value] for r in results]).T.clip(0)
        axes.errorbar(
            sigmas, value, yerr=ends, color=COLOURS[k % len(COLOURS)], marker=_MARKERS[k % 6], ms=4, lw=1.3,
            capsize=2, label=name,
        )  # fmt: skip
    axes.set(xlabel="sigma", ylabel="empirical Rademacher complexity", ylim=(0, None), title=title)
    axes.legend(fontsize=8, frameon=False)
    return figure


def lipschitz_brackets(brackets: Mapping[str, LipschitzBracket]) -> Figure:
    """Lower estimates and certified upper bounds of Lipschitz constants, one line per network."""
    figure, axes = _blank(7.6, 0.9 + 0.4 * len(brackets))
    for k, (_name, b) in enumerate(brackets.items()):
        upper = b.upper if math.isfinite(b.upper) else None
        if upper is not None:
            axes.plot([b.lower, upper], [-k, -k], color=COLOURS[0], lw=3, alpha=0.5, solid_capstyle="butt")
            axes.plot(upper, -k, marker="|", ms=14, mew=2, color=COLOURS[0])
        for value, marker, colour in (
            (b.sampled, "o", COLOURS[5]), (b.gradient, "s", COLOURS[1]), (b.ascent, "D", COLOURS[2]),
        ):  # fmt: skip
            axes.plot(value, -k, marker=marker, ms=5, color=colour, ls="none")
    for marker, colour, label in (
        ("o", COLOURS[5], "pairs of inputs (lower)"), ("s", COLOURS[1], "gradients (lower)"),
        ("D", COLOURS[2], "ascent (lower)"), ("|", COLOURS[0], "certified (upper)"),
    ):  # fmt: skip
        axes.plot([], [], marker=marker, color=colour, ls="none", label=label)
    axes.set_yticks([-k for k in range(len(brackets))], list(brackets))
    axes.set(xscale="log", xlabel="l2 Lipschitz constant", ylim=(-len(brackets) + 0.4, 0.6))
    _plain_ticks(axes.xaxis)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def tau_forest(rows: Sequence[RankCorrelation]) -> Figure:
    """Kendall's tau of each measure with the generalization gap, with bootstrap intervals."""
    figure, axes = _blank(6.0, 0.9 + 0.3 * max(1, len(rows)))
    for k, row in enumerate(rows):
        axes.plot([row.low, row.high], [-k, -k], color=COLOURS[0], lw=1.6)
        axes.plot(row.tau, -k, marker="s", ms=6, color=COLOURS[0])
    axes.axvline(0.0, color="black", lw=0.8, ls=":")
    axes.set_yticks([-k for k in range(len(rows))], [row.measure for row in rows])
    networks = max((row.networks for row in rows), default=0)
    axes.set(xlim=(-1, 1), xlabel=f"Kendall's tau with the measured gap, up to {networks} networks")
    return figure


def radii_against_distance(evidence: Evidence) -> Figure:
    """Every formula's radius against the nearest confirmed attack: a point above the line is refuted."""
    figure, axes = _blank(6.8, 4.4)
    nearest, sigma, dim = evidence.distances(), evidence.sigma, evidence.dim
    records = [r for r in evidence.records if r.certified and r.index in nearest]
    seen = [float(nearest[r.index]["distance_l2"]) for r in records]
    if sigma is not None and dim is not None:
        for k, name in enumerate(RADII):
            rows = [{row["name"]: row for row in formula_table(r, sigma, dim)}[name] for r in records]
            colour = COLOURS[k % len(COLOURS)] if RADII[name].sound else REFUTED
            label = RADII[name].title + ("" if RADII[name].sound else " (not a certificate)")
            pairs = [(d, row["low"]) for d, row in zip(seen, rows, strict=True) if 0 < row["low"] < math.inf]
            # For two classes Cohen's radius and the margin radius coincide: one is drawn hollow.
            fill = "none" if name == "cohen" else "full"
            axes.plot(
                *_columns(pairs), marker=_MARKERS[k % 6], ls="none", ms=7 if name == "cohen" else 4,
                color=colour, label=label, fillstyle=fill,
            )  # fmt: skip
    span = [min(seen, default=0.1) / 1.5, max(seen, default=1.0) * 1.5]
    axes.plot(span, span, color="black", lw=0.9, label="radius = distance")
    axes.set(xscale="log", yscale="log", xlabel="l2 distance of the nearest attack", ylabel="radius")
    _plain_ticks(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain_ticks(*scales: Axis) -> None:
    """1, 2, 5, 10, ... written as plain numbers on logarithmic axes, however few decades they span."""
    for scale in scales:
        scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())


def _short(text: str, size: int = 76) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [p[0] for p in pairs], [p[1] for p in pairs]
