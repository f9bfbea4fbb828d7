"""What every benchmark needs: facts about the machine, intervals over seeds, one place for results."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats

import certify

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the versions a figure was measured with."""
    return {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "python": platform.python_version(),
        "torch": torch.__version__, "certify": certify.__version__,
    }  # fmt: skip


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> dict[str, float]:
    """Mean and Student interval over seeds; without an interval where there is one seed."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return {"mean": float(f"{mean:.5g}")}
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * deviation / math.sqrt(n)
    return {k: float(f"{v:.5g}") for k, v in (("mean", mean), ("low", mean - half), ("high", mean + half))}


def text(value: Any) -> str:
    """A cell of a table: numbers to four places, intervals in brackets."""
    if isinstance(value, dict):
        interval = f" [{value['low']:.4g}, {value['high']:.4g}]" if "low" in value else ""
        return f"{value['mean']:.4g}{interval}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        # A bar inside a cell would end it.
        cells = [text(row[head]).replace("|", "\\|") for head in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
