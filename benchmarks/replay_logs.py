"""Replay a folder of published certification logs through every sequential mode.

    python benchmarks/replay_logs.py --logs FOLDER
    python benchmarks/replay_logs.py --logs FOLDER --every 10 --out FILE.json     a tenth of the inputs

The logs (idx, label, predict, radius, correct, separated by tabs; named ...-SIGMA.tsv) are those of n0 = 100
and n = 100,000 samples per input at alpha = .001. Modes: decide at sigma / 2, sigma and 2 sigma, grid of step
sigma / 2, radius. Of every log each ``--every``-th input is replayed, in ``--replays`` orders of its samples.
Rows that results/replay_logs.json holds already are kept; it is written after each.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, write
from replay import Log, read_radii, replay

from certify.procedures import make_procedure

ALPHA, N = 1e-3, 100_000
#: Of each row of ``replay`` what is kept.
KEPT = (
    "samples_per_input",
    "fixed_samples_per_input",
    "saving",
    "worst_difference_points",
    "mean_radius_ratio",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--logs", type=Path, required=True, help="folder of logs")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth input")
    parser.add_argument("--replays", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "replay_logs.json")
    args = parser.parse_args()
    said = {"every": args.every, "replays": args.replays, "alpha": ALPHA, "n": N}
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    if {k: report.get(k) for k in said} != said:
        report = said | {"rows": [], "seconds": 0.0, "machine": machine()}
    for file in sorted(args.logs.glob("*.tsv")):
        if (named := re.fullmatch(r"(.+)-(\d+\.\d+)", file.stem)) is None:
            continue
        sigma, log = float(named[2]), None
        for mode, options in modes(sigma).items():
            key = {"log": named[1], "sigma": sigma, "mode": mode}
            if any(key.items() <= row.items() for row in report["rows"]):
                continue
            log = log or part(read_radii(str(file), sigma, N, ALPHA), args.every)
            began = time.perf_counter()
            report["rows"].append(key | row(log, sigma, mode, options, args.replays))
            report["seconds"] += time.perf_counter() - began
            write(args.out, report)


def modes(sigma: float) -> dict[str, dict[str, float]]:
    """Name of each row of one log, and the options of its procedure."""
    found = {f"decide {f:g} sigma": {"radius": f * sigma} for f in (0.5, 1, 2)}
    return found | {"grid 0.5 sigma": {"step": sigma / 2}, "radius": {}}


def part(log: Log, every: int) -> Log:
    """Every so manieth input of a log."""
    return Log(log.right[::every], log.counts[::every], log.n[::every])


def row(log: Log, sigma: float, mode: str, options: dict[str, float], replays: int) -> dict[str, Any]:
    """One log under one mode: samples, and certified accuracy beside that of the log."""
    procedure = make_procedure(mode.split()[0], alpha=ALPHA, sigma=sigma, n_max=N, **options)
    found = replay(log, procedure, sigma, alpha=ALPHA, replays=replays, radius=options.get("radius"))
    largest = max(found["certified_accuracy"], key=lambda r: r["radius"] == options.get("radius", sigma))
    kept = {k: found[k] for k in KEPT if k in found} | {"inputs": int(np.size(log.counts))}
    return kept | {"at": largest["radius"], "value": largest["value"], "fixed": largest["fixed"]}


if __name__ == "__main__":
    main()
