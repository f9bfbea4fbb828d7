"""Reports of stored runs: tables, plots, HTML, LaTeX, model cards. Reads records only.

``reports.build(run_directory)`` writes report.html (self-contained), table.tex, card.md, badge.svg and
plots/*.svg; ``reports.compare([run, run])`` writes compare.html. Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.board_page import BoardFiles as BoardFiles
    from reports.board_page import board as board
    from reports.comparison import CompareFiles as CompareFiles
    from reports.comparison import compare as compare
    from reports.equation import maps_document as maps_document
    from reports.report import ReportFiles as ReportFiles
    from reports.report import build as build

_HOME = {
    "BoardFiles": "reports.board_page",
    "board": "reports.board_page",
    "CompareFiles": "reports.comparison",
    "ReportFiles": "reports.report",
    "build": "reports.report",
    "compare": "reports.comparison",
    "maps_document": "reports.equation",
}

__all__ = ["BoardFiles", "CompareFiles", "ReportFiles", "board", "build", "compare", "maps_document"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'reports' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
