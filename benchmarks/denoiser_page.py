"""The figures of docs/denoisers.md, from results/denoisers.json."""

from __future__ import annotations

import json
import math
from typing import Any

from common import RESULTS, table

#: How the rungs are called on the page.
NAMES = {
    "none": "none", "heat": "heat", "tv": "total variation", "perona-malik": "Perona-Malik",
    "mse": "U-Net, squared error", "stability": "U-Net, then stability",
    "labels only": "U-Net, labels only", "trained under noise": "(no denoiser; trained under noise)",
}  # fmt: skip


def figures(name: str) -> str:
    """The table, bars and attack of one study; "" where it was not measured."""
    path = RESULTS / "denoisers.json"
    found = json.loads(path.read_text()).get(name) if path.exists() else None
    if not found:
        return ""
    parts = [
        table([_row(row) for row in found["rows"]]),
        "\n".join(f"- {'met' if ok else '**not met**'}: {bar}" for bar, ok in found["bars"].items()),
        _attacked(found.get("attack")),
        _curve(found["training"].get("stability", {}).get("history", [])),
        f"*{found['inputs']:,} test inputs, at most {found['n_max']:,} samples each; training CPU shared; "
        f"torch {found['machine']['torch']}.*",
    ]
    return "\n\n".join(part for part in parts if part)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    settings = ", ".join(f"{k} {v:g}" for k, v in row["settings"].items())
    shown = {
        f"certified at {radius}": f"{math.floor(value * 1000) / 1000:.3f} "
        f"[{row['intervals'][radius][0]:.3f}, {row['intervals'][radius][1]:.3f}]"
        for radius, value in row["certified"].items()
    }
    return {
        "denoiser": NAMES[row["rung"]] + (f" ({settings})" if settings else ""), "sigma": row["sigma"],
        "dB": f"{row['psnr']:.1f}", "clean": f"{row['clean']:.3f}", **shown,
        "samples per input": round(row["samples_per_input"]),
        "ms per sample": f"{row['milliseconds_per_sample']:.2f}",
    }  # fmt: skip


def _attacked(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    return (
        f"Attacked inside {found['attacked']} certified balls behind the last denoiser, with gradients "
        f"through it over noisy copies and fresh noise to confirm: {found['contradictions']} contradictions."
    )


def _curve(history: list[dict[str, Any]]) -> str:
    """How the answers that survive the noise grew with the epochs of the second stage."""
    if not history or not history[0].get("agreement"):
        return ""
    rows = []
    for epoch, found in enumerate(history, start=1):
        kept = {f"answers kept at sigma {sigma}": value for sigma, value in found["agreement"].items()}
        rows.append({"epoch of stability": epoch, **kept, "on clean inputs": found["clean_agreement"]})
    return "Held-out training inputs, one noisy copy each:\n\n" + table(rows)
