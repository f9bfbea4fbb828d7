"""Write docs/results.md: the prose of results_template.md around the figures in results/*.json.

    python benchmarks/results_page.py

No number of a table is typed by hand. A section that was not measured yet says so.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from common import RESULTS, table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"


def main() -> None:
    template = (HERE / "results_template.md").read_text()
    systems = read("seed_systems.json")

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        section = read("halfmoon_sweep.json") if name == "halfmoon_sweep" else systems.get(name)
        if not section:
            return "*Not measured yet.*"
        rows = [sweep_row(row) for row in section["rows"]] if name == "halfmoon_sweep" else section["rows"]
        bars = "\n".join(
            f"- {'met' if ok else '**not met**'}: {bar}" for bar, ok in section.get("bars", {}).items()
        )
        return "\n\n".join(part for part in (table(rows), bars, footer(section)) if part)

    PAGE.write_text(re.sub(r"\{\{([\w-]+)\}\}", fill, template))


def sweep_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the half-moon sweep; g(., T) is what the residual trains and the paper evaluates."""
    label = {
        "none": "natural",
        "residual": "diffusion residual",
        "gaussian": "Gaussian augmentation (control)",
    }
    at = "T" if row["regulariser"] == "residual" else "T-1"
    return {
        "training": label[row["regulariser"]], "lambda": row["lambda"] or "", "sigma_p^2": row["sigma_p^2"],
        "clean": row[f"{at} linf 0"], **{f"l_inf {e}": row[f"{at} linf {e}"] for e in ("0.1", "0.2", "0.3")},
    }  # fmt: skip


def footer(section: dict[str, Any]) -> str:
    seeds, machine = section.get("seeds"), section["machine"]
    runs = f"{seeds} seed{'s' if seeds > 1 else ''}, " if seeds else ""
    return (
        f"*{runs}{section['seconds']:.0f} s, {machine['threads']} thread(s), torch {machine['torch']}, "
        f"Python {machine['python']}.*"
    )


def read(name: str) -> dict[str, Any]:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
