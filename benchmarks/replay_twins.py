"""What the sequential modes cost and lose on many synthetic logs of top-class counts.

    python benchmarks/replay_twins.py --logs 12 --out benchmarks/results/replay.json

For each profile of ``synthetic_log.py`` some logs of 500 inputs are drawn and replayed (20 orders of
every input's samples) in decide and grid mode. Printed and written: the saving against n0 + n
samples and the certified accuracy lost against the fixed-n procedure on the same counts, over the
logs, with Student intervals. One input of 500 is 0.2 points, so single logs scatter.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import replay
import synthetic_log
from common import RESULTS, machine, over_seeds, table, write

from certify.procedures import make_procedure

#: Noise level and decided radius of each profile.
SETTINGS = {"cifar": (0.25, 0.25), "imagenet": (0.5, 0.5), "noisy": (1.0, 0.5)}
STEP = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--logs", type=int, default=12, help="logs of each profile")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--others", choices=replay.OTHERS, default="spread")
    parser.add_argument("--out", type=Path, default=RESULTS / "replay.json")
    args = parser.parse_args()
    begun, rows = time.perf_counter(), []
    for profile, (sigma, radius) in SETTINGS.items():
        logs = [drawn(profile, seed) for seed in range(args.logs)]
        for mode, option in (("decide", {"radius": radius}), ("grid", {"step": STEP})):
            procedure = make_procedure(mode, sigma=sigma, **option)
            found = [
                replay.replay(
                    log, procedure, sigma, alpha=1e-3, replays=args.replays,
                    radius=option.get("radius"), others=args.others,
                )
                for log in logs
            ]  # fmt: skip
            rows.append({"profile": profile, "sigma": sigma, "mode": mode} | option | summary(found))
            print(table([shown(rows[-1])]), flush=True)
    write(args.out, {
        "machine": machine(), "seconds": time.perf_counter() - begun, "logs": args.logs,
        "replays": args.replays, "others": args.others, "rows": rows,
    })  # fmt: skip


def drawn(profile: str, seed: int) -> replay.Log:
    rows = list(synthetic_log.synthetic_log(profile, 500, n=100_000, seed=seed))
    right = [r["predict"] == r["label"] and r["predict"] >= 0 for r in rows]
    return replay.Log(np.array(right), np.array([r["count"] for r in rows]), np.array([r["n"] for r in rows]))


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the logs: samples, saving, and the lost points at radius 0 and over all radii."""
    lost = [[row["difference_points"] for row in result["certified_accuracy"]] for result in found]
    at_zero = found[0]["certified_accuracy"][0]["radius"] == 0
    return {
        "samples": over_seeds([r["samples_per_input"] for r in found]),
        "saving": over_seeds([r["saving"] for r in found]),
        "least_saving": min(r["saving"] for r in found),
        "points_all_radii": over_seeds([float(np.mean(row)) for row in lost]),
        "points_radius_0": over_seeds([row[0] for row in lost]) if at_zero else None,
        "worst_points": over_seeds([min(row) for row in lost]),
        "logs_within_0.05": sum(min(row) >= -0.05 for row in lost),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the printed table."""
    return {
        "log": f"{row['profile']}, sigma {row['sigma']:g}", "mode": row["mode"],
        "samples": row["samples"], "saving": row["saving"], "points": row["points_all_radii"],
        "points at radius 0": row["points_radius_0"] or "-", "worst radius": row["worst_points"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
