"""A small SVG writer: figures that follow the page's theme and are the same bytes every time.

Colours are CSS classes over custom properties, so one drawing serves light, dark and print. A
drawing is used twice: inline in the page (``inline``) and as a file of its own (``document``),
which carries the palette with it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources

from certify.files.text import printable

Pair = tuple[float, float]

#: A figure up to this width stays readable on a phone without scrolling.
NARROW = 420


@dataclass
class Figure:
    """A drawing of ``width`` x ``height`` units; ``text`` is what a screen reader says."""

    name: str
    width: float
    height: float
    title: str
    text: str
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, css: str = "", content: str | None = None, **attributes: object) -> None:
        """One element; numbers are written with two decimals, content is escaped."""
        inner = "" if content is None else _text(content)
        self.parts.append(f"<{tag}{_attributes(css, attributes)}>{inner}</{tag}>")

    def label(self, x: float, y: float, content: str, css: str = "", anchor: str = "start") -> None:
        self.add("text", css, content, x=x, y=y, text_anchor=anchor)

    def line(self, a: Pair, b: Pair, css: str) -> None:
        self.add("line", css, x1=a[0], y1=a[1], x2=b[0], y2=b[1])

    def path(self, points: Iterable[Pair], css: str, *, close: bool = False) -> None:
        d = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points) + ("Z" if close else "")
        self.add("path", css, d=d)

    def box(self, x: float, y: float, width: float, height: float, css: str, note: str) -> None:
        """A bar with a tooltip."""
        head = _attributes(css, {"x": x, "y": y, "width": width, "height": height})
        self.parts.append(f"<rect{head}><title>{_text(note)}</title></rect>")

    def mark(self, x: float, y: float, css: str, note: str, *, r: float = 3.4, shape: str = "circle") -> None:
        """A data point with a tooltip."""
        tip = f"<title>{_text(note)}</title>"
        if shape == "circle":
            head, tag = _attributes(css, {"cx": x, "cy": y, "r": r}), "circle"
        else:
            d = f"M{_number(x)} {_number(y - r)}L{_number(x + r)} {_number(y + r)}H{_number(x - r)}Z"
            head, tag = _attributes(css, {"d": d}), "path"
        self.parts.append(f"<{tag}{head}>{tip}</{tag}>")

    def inline(self) -> str:
        """For the page: themed by its style sheet."""
        return self._wrap(f'role="img" aria-label="{_text(f"{self.title}. {self.text}")}"', "")

    def document(self) -> str:
        """A file of its own: palette, title and description inside."""
        head = (
            f"<title>{_text(self.title)}</title><desc>{_text(self.text)}</desc>"
            f"<style>{style_sheet('palette.css')}{style_sheet('plot.css')}</style>"
            '<rect class="paper" width="100%" height="100%"/>'
        )
        size = f'width="{_number(self.width)}" height="{_number(self.height)}"'
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + self._wrap(size, head) + "\n"

    def _wrap(self, attributes: str, head: str) -> str:
        box = f"0 0 {_number(self.width)} {_number(self.height)}"
        body = "\n".join(self.parts)
        css = "plot narrow" if self.width <= NARROW else "plot"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" viewBox="{box}" {attributes}>'
            f"{head}\n{body}\n</svg>"
        )


@dataclass
class Axes:
    """A plotting area inside a figure, with linear scales; data outside is clamped to its edge."""

    figure: Figure
    left: float
    top: float
    width: float
    height: float
    x_range: Pair
    y_range: Pair

    def x(self, value: float) -> float:
        return self.left + self.width * _share(value, self.x_range)

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - _share(value, self.y_range))

    def point(self, x: float, y: float) -> Pair:
        return self.x(x), self.y(y)

    def frame(
        self,
        x_label: str,
        y_label: str,
        *,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        x_format: Callable[[float], str] = "{:g}".format,
        y_format: Callable[[float], str] = "{:g}".format,
    ) -> None:
        """Horizontal rules, ticks and the two axis titles (the y title lies above the axis)."""
        fig, bottom, right = self.figure, self.top + self.height, self.left + self.width
        for t in y_ticks:
            fig.line((self.left, self.y(t)), (right, self.y(t)), "rule")
            fig.label(self.left - 8, self.y(t) + 4, y_format(t), "tick", "end")
        for t in x_ticks:
            fig.line((self.x(t), bottom), (self.x(t), bottom + 5), "axis")
            fig.label(self.x(t), bottom + 20, x_format(t), "tick", "middle")
        fig.line((self.left, bottom), (right, bottom), "axis")
        fig.label(right, bottom + 40, x_label, "name", "end")
        fig.label(0, self.top - 14, y_label, "name")

    def steps(self, corners: Sequence[Pair]) -> list[Pair]:
        """Screen points of the left-continuous step function through ``corners``."""
        out: list[Pair] = []
        for i, (x, y) in enumerate(corners):
            if i:
                out.append(self.point(corners[i - 1][0], y))
            out.append(self.point(x, y))
        return out


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most ``most`` + 1 of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10, 20) if f * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def style_sheet(name: str) -> str:
    """A style sheet shipped with the templates."""
    return resources.files("reports").joinpath("templates", name).read_text(encoding="utf-8")


def _share(value: float, limits: Pair) -> float:
    low, high = limits
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _text(text: str) -> str:
    """Text for XML, which has no control characters."""
    return html.escape(printable(text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _attributes(css: str, attributes: dict[str, object]) -> str:
    out = f' class="{css}"' if css else ""
    for key, value in attributes.items():
        shown = _number(value) if isinstance(value, int | float) else _text(str(value))
        out += f' {key.replace("_", "-")}="{shown}"'
    return out
