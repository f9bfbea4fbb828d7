"""Coefficients of the model's equation as maps: scalars as colour, velocities as arrows.

``reports.equation`` describes the document they are read from.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.numbers import general
from reports.png import data_uri, diverging
from reports.svg import Figure

#: At most this many maps, and this many arrows along the longer side.
MOST, ARROWS = 8, 16


def maps(evidence: Any) -> list[Figure]:
    """One figure per stored field; empty where the model has none."""
    document = evidence.documents.get("maps") or {}
    fields: Sequence[Mapping[str, Any]] = (document.get("fields") or ())[:MOST]
    drawn = []
    for number, field in enumerate(fields):
        values = np.asarray(field["values"], dtype=np.float64)
        name, note = str(field["name"]), str(field.get("note") or "")
        if values.ndim == 2 and values.size:
            drawn.append(_scalar(f"map-{number}", name, note, values))
        elif values.ndim == 3 and values.shape[0] == 2 and values.size:
            drawn.append(_velocity(f"map-{number}", name, note, values))
    return drawn


def _scalar(key: str, name: str, note: str, values: np.ndarray) -> Figure:
    peak = float(np.abs(values).max())
    text = f"From {general(float(values.min()))} to {general(float(values.max()))}. {note}".strip()
    fig, width, height = _canvas(key, name, text, values.shape)
    uri = data_uri(diverging(values / peak if peak > 0 else values))
    fig.parts.append(
        f'<image href="{html.escape(uri)}" x="0" y="26" width="{width:.2f}" height="{height:.2f}" '
        'preserveAspectRatio="none" style="image-rendering:pixelated"/>'
    )
    fig.label(0, height + 44, f"{general(float(values.min()))} … {general(float(values.max()))}", "note")
    return fig


def _velocity(key: str, name: str, note: str, values: np.ndarray) -> Figure:
    speed = np.sqrt((values**2).sum(axis=0))
    peak = float(speed.max())
    text = (
        f"Fastest {general(peak)} cells per unit of time, mean {general(float(speed.mean()))}. {note}".strip()
    )
    fig, width, height = _canvas(key, name, text, values.shape[1:])
    fig.add("rect", "field", x=0, y=26, width=width, height=height)
    rows, columns = values.shape[1:]
    step = max(1, -(-max(rows, columns) // ARROWS))
    cell = width / columns
    for r in range(step // 2, rows, step):
        for c in range(step // 2, columns, step):
            x, y = (c + 0.5) * cell, 26 + (r + 0.5) * cell
            length = 0.9 * cell * step / peak if peak > 0 else 0.0
            dx, dy = values[0, r, c] * length, values[1, r, c] * length
            fig.line((x - dx / 2, y - dy / 2), (x + dx / 2, y + dy / 2), "arrow")
            fig.add("circle", "arrow-tip", cx=x + dx / 2, cy=y + dy / 2, r=1.4)
    fig.label(0, height + 44, f"fastest {general(peak)}", "note")
    return fig


def _canvas(key: str, name: str, text: str, shape: tuple[int, ...]) -> tuple[Figure, float, float]:
    width = 240.0
    height = min(360.0, width * shape[0] / shape[1])
    fig = Figure(key, width, height + 52, name, text)
    fig.label(0, 15, name, "name")
    return fig, width, height
