"""The certified curve of a run: on axes of one's own, and as a notebook shows it.

Matplotlib is asked for when something is drawn. Reports draw their own figures (``reports``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from certify.errors import InvalidSetting, MissingExtra
from certify.files.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from certify.records import Estimate, Run

#: At most so many corners of a curve are drawn; colour of what is proved.
_MOST, _PROOF = 400, "#1b6e4f"
#: Fractions of the largest radius in a notebook's table.
_SHOWN = (0.0, 0.25, 0.5, 0.75)


def curve(run: Run, ax: Any = None, *, label: str | None = None, level: float = 0.95, **style: Any) -> Axes:
    """See ``Run.plot``."""
    axes = _axes(ax)
    radii = corners([r.radius for r in run if r.certified])
    labelled = bool(run.records) and all(r.target is not None for r in run)
    values = _values(run, radii, level) if labelled else _shares(run, radii)
    style = {"color": _PROOF} | style
    line = axes.step(radii, [v for v, _, _ in values], where="pre", label=label, **style)[0]
    if labelled:
        axes.fill_between(radii, [low for _, low, _ in values], [high for _, _, high in values],
                          step="pre", color=line.get_color(), alpha=0.15, linewidth=0)  # fmt: skip
    norm = run.settings.get("norm", "2")
    axes.set_xlabel(f"radius (l{norm} distance, input units)")
    axes.set_ylabel("certified accuracy" if labelled else "certified share of inputs")
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    if label is not None:
        axes.legend(frameon=False)
    return axes


def corners(radii: Sequence[float]) -> list[float]:
    """Radii at which a curve may step, thinned, from 0 to a little beyond the last.

    Each value is drawn up to its own radius: a certificate of radius R still counts at R, and where radii are
    left out the curve lies too low, never too high.
    """
    inside = thinned(radii, _MOST)
    return [0.0, *inside, inside[-1] * 1.02 if inside else 1.0]


def thinned(radii: Iterable[float], most: int) -> list[float]:
    """The different positive radii in order, at most ``most`` of them, the first and the last among these."""
    inside = sorted({r for r in radii if r > 0})
    if len(inside) > most:
        inside = [inside[round(i * (len(inside) - 1) / (most - 1))] for i in range(most)]
    return inside


def as_html(run: Run) -> str:
    """What a notebook shows of a run: its repr, a small table, the curve, and the guarantee."""
    parts = [f"<p><b>{escape(repr(run))}</b></p>"]
    if run.records and all(r.target is not None for r in run):
        most = max((r.radius for r in run if r.certified), default=0.0)
        rows: list[Estimate] = run.accuracy([round(most * share, 4) for share in _SHOWN])
        cells = "".join(
            f"<tr><td>{row.at:g}</td><td>{int(row.value * 1e4) / 1e4:.4f}</td>"
            f"<td>{row.low:.4f} to {row.high:.4f}</td></tr>"
            for row in rows
        )
        parts.append(
            f"<table><tr><th>radius</th><th>certified accuracy</th><th>95 % interval</th></tr>{cells}</table>"
        )
    with contextlib.suppress(MissingExtra):
        parts.append(_picture(run))
    parts.append(f"<details><summary>Guarantee</summary><p>{escape(printable(run.guarantee))}</p></details>")
    return "\n".join(parts)


def _values(run: Run, radii: Sequence[float], level: float) -> list[tuple[float, float, float]]:
    return [(e.value, e.low, e.high) for e in run.accuracy(radii, level=level)]


def _shares(run: Run, radii: Sequence[float]) -> list[tuple[float, float, float]]:
    n = max(1, len(run))
    shares = (sum(r.certified and r.radius >= at for r in run) / n for at in radii)
    return [(share, share, share) for share in shares]


def _axes(ax: Any) -> Any:
    if ax is not None:
        if not all(hasattr(ax, name) for name in ("step", "fill_between", "set_xlabel")):
            raise InvalidSetting(
                f"ax of type {type(ax).__name__} cannot be drawn on",
                why="a curve is drawn on matplotlib axes",
                remedy="pass ax=plt.gca(), or leave it out for a figure of its own",
            )
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra(
            "plots need matplotlib", why=f"{error.name} is not installed", remedy="pip install matplotlib"
        ) from error
    return pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")[1]


def _picture(run: Run) -> str:
    """The curve as an SVG element, without a window or a global figure."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            "plots need matplotlib", why=f"{error.name} is not installed", remedy="pip install matplotlib"
        ) from error
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    FigureCanvasSVG(figure)
    curve(run, figure.subplots())
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
