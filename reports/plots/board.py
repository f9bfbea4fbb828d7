"""All curves of one data set in one plot, and the envelopes of their families."""

from __future__ import annotations

from collections.abc import Sequence

from reports.board_rows import Board, Entry
from reports.numbers import percent_down
from reports.plots.accuracy import corners, label_of_radius
from reports.plots.overlay import MOST
from reports.svg import Axes, Figure, ticks


def curves(board: Board, data: str) -> Figure | None:
    """Certified accuracy of every labelled row on ``data``; None where there is none.

    The first few rows have a colour and dash of their own, all others are thin.
    """
    rows = [e for e in board.entries if e.data == data and e.evidence.labelled]
    if not rows:
        return None
    extent = max([r.radius for e in rows for r in e.evidence.run if r.certified], default=1.0) * 1.04
    what = "claimed or certified" if any(e.evidence.imported for e in rows) else "certified"
    title = f"{what.capitalize()} accuracy, {data or 'data not named'}"
    fig = Figure(f"board-{data or 'other'}", 620, 430, title, _said(rows))
    axes = Axes(fig, 52, 34, 552, 340, (0.0, extent), (0.0, 1.0))
    axes.frame(
        label_of_radius(rows[0].evidence), f"{what} accuracy", x_ticks=ticks(0, extent, 7),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1], y_format=lambda v: f"{v * 100:.0f} %",
    )  # fmt: skip
    for i, entry in reversed(list(enumerate(rows))):
        at = corners([r.radius for r in entry.evidence.run if r.certified], extent, most=120)
        line = axes.steps([(float(e.at or 0.0), float(e.value)) for e in entry.accuracy(at)])
        fig.path(line, f"line-run run-{i}" if i < MOST else "line-thin")
    return fig


def _said(rows: Sequence[Entry]) -> str:
    return ". ".join(f"{e.name}: {percent_down(e.accuracy([0.0])[0].value)} at 0" for e in rows)
