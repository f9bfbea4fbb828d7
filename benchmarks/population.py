"""Replay a log of certificates as a statement about its population.

    python benchmarks/population.py --counts log.csv --sigma 0.25 --radius 0.5 --samples 50 --json
    python benchmarks/population.py --log mnist-gaussian-0.25.tsv --sigma 0.25 --radius 0.5 --samples 50
    python benchmarks/population.py --logs FOLDER --out benchmarks/results/population.json

``--counts``: a CSV file with columns index, label, predict, count, n (as benchmarks/replay.py reads them). An
input's p, the probability that a noisy copy gets its true class, is count / n where predict is the
label, and 0 elsewhere: the count of the true class is then not known. ``--log``: a log of the literature
(idx, label, predict, radius, correct, separated by tabs); p is what its radius proves, Phi(radius /
sigma), and 0 where it is not correct. ``--samples`` votes are drawn per input; a tenth of the inputs
(``--pilot``) chooses the rule, the others are counted. Printed: the lower and the upper bound on the share of
inputs that keep their class within ``--radius``, that share by the p themselves, and the accuracy of the
one-copy classifier under attack. ``--replays`` repeats all of it with other votes and pilots.
``--logs`` does so for every log of a folder, at sigma and 2 sigma.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table, write
from replay import read_columns, read_log
from scipy import special

from certify.population import attacked, lower_bound, one_pass_accuracy, upper_bound

#: Samples per input at which the logs of a folder are replayed, by what their name begins with.
SAMPLES = {"mnist": (10, 25, 50), "": (25, 50, 100)}
#: Logs that are replayed more often, where they are in the folder: name, radius, samples, times as often.
OFTEN = (
    ("mnist-lenet-gaussian-0.25", 0.5, 10, 20), ("mnist-lenet-gaussian-0.25", 0.5, 25, 20),
    ("mnist-lenet-gaussian-0.25", 0.5, 50, 200), ("mnist-lenet-gaussian-0.25", 0.5, 100, 20),
    ("mnist-lenet-gaussian-0.25", 0.5, 1000, 4), ("mnist-lenet-gaussian-0.25", 0.25, 1, 20),
    ("cifar10-resnet110-consistency-0.50", 0.5, 25, 20), ("cifar10-resnet110-consistency-0.50", 0.5, 50, 20),
    ("cifar10-resnet110-consistency-0.50", 0.5, 100, 200),
    ("cifar10-resnet110-consistency-0.50", 1.0, 100, 20), ("cifar10-resnet110-consistency-0.50", 0.25, 1, 20),
)  # fmt: skip
#: What a row of the results holds.
SHOWN = ("sigma", "radius", "samples", "lower", "upper", "share", "one_pass", "one_pass_share", "replays",
         "largest_lower", "lower_above_share", "upper_below_share", "one_pass_above")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--counts", help="CSV file: index, label, predict, count, n")
    source.add_argument("--log", help="log of the literature, separated by tabs")
    source.add_argument("--logs", help="folder of such logs, named ...-SIGMA.tsv")
    parser.add_argument("--sigma", type=float, help="standard deviation of the noise")
    parser.add_argument("--radius", type=float)
    parser.add_argument("--samples", type=int, default=25, help="noisy copies of each input")
    parser.add_argument("--confidence", type=float, default=0.999, help="of each bound by itself")
    parser.add_argument("--pilot", type=float, default=0.1, help="share of the inputs that chooses the rule")
    parser.add_argument("--about", choices=["population", "set"], default="population")
    parser.add_argument("--replays", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--out", help="with --logs: file to write")
    args = parser.parse_args()
    how = {"confidence": args.confidence, "pilot": args.pilot, "about": args.about, "replays": args.replays}
    if args.logs:
        report = folder(Path(args.logs), Path(args.out) if args.out else None, seed=args.seed, **how)
        print(json.dumps(report) if args.json else table(report["often"] + report["rows"]))
        return
    if args.sigma is None or args.radius is None:
        parser.error("--sigma and --radius are needed")
    p = read_counts(args.counts) if args.counts else read_radii(args.log, args.sigma)
    found = replay(p, args.sigma, args.radius, args.samples, seed=args.seed, **how)
    found = {"log": args.counts or args.log} | found
    print(json.dumps(found) if args.json else table([{k: v for k, v in found.items() if k != "log"}]))


def read_counts(path: str) -> np.ndarray:
    """The probability of the true class of each input, by a log of counts."""
    log = read_log(path)
    return np.where(log.right, log.counts / log.n, 0.0)


def read_radii(path: str, sigma: float) -> np.ndarray:
    """The probability of the true class that each input's radius proves."""
    label, predict, radius = read_columns(path)
    return np.where(label == predict, special.ndtr(radius / sigma), 0.0)


def replay(
    p: np.ndarray, sigma: float, radius: float, samples: int, *,
    confidence: float = 0.999, pilot: float = 0.1, about: str = "population", replays: int = 1, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Means over ``replays`` draws of votes and pilots, and how often a bound was on the wrong side."""
    rng = np.random.default_rng(seed)
    target = float(special.ndtr(radius / sigma))
    share, began = float((p > target).mean()), time.perf_counter()
    accuracy = attacked(float(p.mean()), radius, sigma)
    ends: list[list[float]] = []
    for number in range(replays):
        counts = rng.binomial(samples, p)
        how = {"pilot": pilot, "about": about, "seed": seed + number}
        right = rng.random(len(p)) < p
        ends.append(
            [
                lower_bound(counts, samples, target, confidence, **how),
                upper_bound(counts, samples, target, confidence, **how),
                one_pass_accuracy(int(right.sum()), len(p), radius, sigma, confidence),
            ]
        )
    lower, upper, one_pass = np.array(ends).T
    return {
        "sigma": sigma, "radius": radius, "confidence": confidence, "about": about, "inputs": len(p),
        "samples": samples, "lower": float(lower.mean()), "upper": float(upper.mean()), "share": share,
        "one_pass": float(one_pass.mean()), "one_pass_share": accuracy, "replays": replays,
        "largest_lower": float(lower.max()), "lower_above_share": int((lower > share).sum()),
        "upper_below_share": int((upper < share).sum()), "one_pass_above": int((one_pass > accuracy).sum()),
        "seconds_per_replay": (time.perf_counter() - began) / replays,
    }  # fmt: skip


def folder(path: Path, out: Path | None, *, seed: int, replays: int, **how: Any) -> dict[str, Any]:
    """Every log of a folder, at sigma and 2 sigma; some of them more often.

    Rows that ``out`` holds already, made with the same settings, are kept; it is written after each row.
    """
    said = {"seed": seed, "replays": replays, **how}
    report = json.loads(out.read_text()) if out is not None and out.exists() else {}
    if {k: report.get(k) for k in said} != said:
        report = said | {"often": [], "rows": [], "machine": machine(), "seconds": 0.0}
    for file in sorted(path.glob("*.tsv")):
        named = re.fullmatch(r"(.+)-(\d+\.\d+)", file.stem)
        if named is None:
            continue
        sigma = float(named[2])
        samples = next(v for k, v in SAMPLES.items() if file.stem.startswith(k))
        asked = [("rows", r, n, 1) for r in (sigma, 2 * sigma) for n in samples]
        asked += [("often", r, n, times) for name, r, n, times in OFTEN if name == file.stem]
        p = read_radii(str(file), sigma)
        for part, radius, n, times in asked:
            key = {
                "log": named[1],
                "sigma": sigma,
                "radius": radius,
                "samples": n,
                "replays": replays * times,
            }
            if any(key.items() <= row.items() for row in report[part]):
                continue
            began = time.perf_counter()
            found = replay(p, sigma, radius, n, seed=seed, replays=replays * times, **how)
            report[part].append({"log": named[1]} | {k: found[k] for k in SHOWN})
            report["seconds"] += time.perf_counter() - began
            if out is not None:
                write(out, report)
    return report


if __name__ == "__main__":
    main()
