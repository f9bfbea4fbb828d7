"""Replay a log of top-class counts through the sequential procedures.

    python benchmarks/replay.py --counts log.csv --sigma 0.25 --radius 0.25
    python benchmarks/replay.py --counts log.csv --sigma 0.5 --grid 0.25 --json
    python benchmarks/replay.py --counts log.csv --sigma 0.25 --mode radius
    python benchmarks/replay.py --log mnist-gaussian-0.25.tsv --sigma 0.25 --radius 0.25

``--log`` reads a log of the literature (idx, label, predict, radius, correct, separated by tabs): the count
is the one whose Clopper-Pearson bound at ``--alpha`` and ``--samples`` gives the printed radius.

The log of counts is a CSV file with columns index, label, predict, count, n: the input's top class was seen
``count`` times in ``n`` samples; predict = -1 where its source abstained (such an input is never
counted as correct, and an unknown count there is replayed as n / 2, the dearest case). Every replay
draws the samples of an input in a random order, that is, its counts at the looks are those of
sampling without replacement from count-of-n (drawn with probability count / n where a row has fewer
samples than the largest look). The votes that are not the top class's are not in such a log by
class; they matter at radius 0 only, where a second class near one half costs half of alpha. They
are taken as spread evenly over three other classes, since a source that spent n0 samples on
choosing the class would have missed it about half the time if one rival had them all;
``--others one`` replays that case. Printed: the mean number of samples per input, the
saving against n0 + n with n0 = 100, and the certified accuracy beside that of the fixed-n procedure
on the same counts, averaged over the replays.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.bounds import binomial_lower
from certify.errors import InvalidInput
from certify.procedures import Procedure, make_procedure
from certify.radii import radius_down

N0 = 100
#: How many classes share the votes that are not the top class's.
OTHERS = {"spread": 3, "one": 1}


@dataclass(frozen=True)
class Log:
    """Counts of a log as arrays (inputs,): ``right`` where the source's class was the true one."""

    right: np.ndarray
    counts: np.ndarray
    n: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--counts", help="CSV file: index, label, predict, count, n")
    source.add_argument("--log", help="log of the literature, separated by tabs")
    parser.add_argument("--samples", type=int, default=100_000, help="with --log: samples of each input")
    parser.add_argument("--sigma", type=float, required=True, help="standard deviation of the noise")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--radius", type=float, help="decide mode: is the radius at least this?")
    what.add_argument("--grid", type=float, metavar="STEP", help="grid mode: largest multiple of STEP")
    what.add_argument("--mode", choices=["radius"], help="radius mode: a real-valued radius")
    parser.add_argument("--slack", type=float, help="radius mode: relative slack (0.05)")
    parser.add_argument("--alpha", type=float, default=1e-3)
    parser.add_argument("--n-max", type=int, help="largest number of samples (the log's largest n)")
    parser.add_argument("--others", choices=OTHERS, default="spread", help="whose the other votes are")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    log = read_log(args.counts) if args.counts else read_radii(args.log, args.sigma, args.samples, args.alpha)
    n_max = args.n_max or int(log.n.max())
    mode, options = "radius", {"slack": args.slack}
    if args.radius is not None:
        mode, options = "decide", {"radius": args.radius}
    elif args.grid is not None:
        mode, options = "grid", {"step": args.grid}
    procedure = make_procedure(mode, alpha=args.alpha, sigma=args.sigma, n_max=n_max, **options)
    result = replay(
        log, procedure, args.sigma, alpha=args.alpha, replays=args.replays, seed=args.seed,
        radius=args.radius, others=args.others,
    )  # fmt: skip
    given = {"sigma": args.sigma, "alpha": args.alpha, "others": args.others}
    result = {"mode": mode, "log": args.counts or args.log} | given | result
    print(json.dumps(result) if args.json else _table(result))


def read_log(path: str) -> Log:
    """Read a log; raises InvalidInput where a row is not one of a count of top-class votes."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        values = np.array([_row(r) for r in rows])
        label, predict, counts, n = values.T
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not a log of counts",
            why=f"every row needs whole numbers for label, predict, count and n ({error!r})",
            remedy="write columns index, label, predict, count, n",
        ) from error
    if np.any(counts < 0) or np.any(counts > n) or np.any(n < 1):
        raise InvalidInput(
            f"{path} has impossible counts",
            why="each count must lie between 0 and n, and n must be at least 1",
            remedy="correct the rows",
        )
    return Log((predict == label) & (predict >= 0), counts, n)


def read_radii(path: str, sigma: float, samples: int, alpha: float) -> Log:
    """The counts behind the radii of a log of the literature; raises InvalidInput where it is none."""
    label, predict, radius = read_columns(path)
    distinct, place = np.unique(radius, return_inverse=True)
    counts = np.array([_count_for(r, sigma, samples, alpha) for r in distinct])[place]
    return Log((predict == label) & (predict >= 0), np.where(predict < 0, samples // 2, counts),
               np.full(len(radius), samples))  # fmt: skip


def read_columns(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, prediction and radius of each line of a log of the literature; raises InvalidInput."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        label, predict = (np.array([int(row[name]) for row in rows]) for name in ("label", "predict"))
        radius = np.array([float(row["radius"]) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not a log of radii",
            why=f"every row needs label, predict and a number as radius ({error!r})",
            remedy="give a log with the columns idx, label, predict, radius, correct",
        ) from error
    if not len(rows) or not np.all(radius >= 0):
        raise InvalidInput(
            f"{path} is not a log of radii", why="it is empty, or a radius is negative", remedy="correct it"
        )
    return label, predict, radius


def _count_for(radius: float, sigma: float, n: int, alpha: float) -> int:
    """The count of n whose bound's radius is nearest to ``radius``."""
    low, high = n // 2, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _radius(middle, sigma, n, alpha) <= radius else (low, middle)
    return min((low, high), key=lambda k: abs(_radius(k, sigma, n, alpha) - radius))


def _radius(count: int, sigma: float, n: int, alpha: float) -> float:
    p = binomial_lower(count, n, alpha)
    return radius_down(p, sigma) if p > 0.5 else 0.0


def replay(
    log: Log,
    procedure: Procedure,
    sigma: float,
    *,
    alpha: float,
    replays: int,
    seed: int = 0,
    radius: float | None = None,
    others: str = "spread",
) -> dict[str, Any]:
    """Means over ``replays`` random orders of every input's samples, and the fixed-n figures."""
    rng = np.random.default_rng(seed)
    samples = np.zeros((len(log.counts), replays))
    radii = np.full((len(log.counts), replays), -1.0)
    votes = list(zip(log.counts.tolist(), log.n.tolist(), strict=True))
    for i, (count, n) in enumerate(votes):
        paths = [_Path(rng, count, n) for _ in range(replays)]
        for r, path in enumerate(paths):
            progress = procedure.start()
            while (wanted := progress.wanted()) is not None:
                progress.look(_counts(path.seen(wanted), wanted, OTHERS[others]))
            outcome = progress.outcome()
            samples[i, r] = outcome.samples
            if outcome.label == 0:
                radii[i, r] = outcome.radius(sigma)
    bounds = [binomial_lower(k, n, alpha) for k, n in votes]
    fixed = np.array([radius_down(p, sigma) if p > 0.5 else -1.0 for p in bounds])
    mean, paid = float(samples.mean()), N0 + float(log.n.mean())
    spread = float(samples.mean(axis=0).std(ddof=1)) if replays > 1 else None
    out: dict[str, Any] = {
        "inputs": len(log.counts),
        "replays": replays,
        "samples_per_input": mean,
        "samples_standard_error": None if spread is None else spread / replays**0.5,
        "fixed_samples_per_input": paid,
        "saving": paid / mean,
        "certified_accuracy": [_compare(log, radii, fixed, r) for r in _radii(procedure, radius, sigma)],
    }
    out["worst_difference_points"] = min(row["difference_points"] for row in out["certified_accuracy"])
    proved = np.maximum(fixed, 0.0).sum()
    if procedure.name == "radius" and proved > 0:
        out["mean_radius_ratio"] = float(np.maximum(radii, 0.0).mean(axis=1).sum() / proved)
    return out


def _row(row: dict[str, str]) -> list[int]:
    label, predict, n = (int(float(row[c])) for c in ("label", "predict", "n"))
    unknown = predict < 0 and row["count"].strip() in ("", "-1", "nan")
    return [label, predict, n // 2 if unknown else int(float(row["count"])), n]


class _Path:
    """The number of top-class votes among the first samples, in a random order of the logged ones."""

    def __init__(self, rng: np.random.Generator, count: int, n: int) -> None:
        self.rng, self.count, self.n = rng, count, n
        self.drawn = self.votes = 0

    def seen(self, total: int) -> int:
        fresh = total - self.drawn
        if total <= self.n:
            good, bad = self.count - self.votes, self.n - self.count - (self.drawn - self.votes)
            self.votes += int(self.rng.hypergeometric(good, bad, fresh))
        else:  # more than were logged: as if the observed frequency were the probability
            self.votes += int(self.rng.binomial(fresh, self.count / self.n))
        self.drawn = total
        return self.votes


def _counts(top: int, samples: int, rivals: int) -> np.ndarray:
    """Class counts (1 + rivals,): the logged class, and the others' votes in equal shares."""
    rest = samples - top
    return np.array([top, *((rest + i) // rivals for i in range(rivals))])


def _radii(procedure: Procedure, radius: float | None, sigma: float) -> list[float]:
    """The radii to compare at: the one decided, the grid's, or quarters of sigma."""
    if radius is not None:
        return [radius]
    if procedure.name == "grid":
        reachable = len(procedure.tests.targets)  # type: ignore[attr-defined]
        return procedure.settings()["radii"][:reachable]
    return [sigma * q / 2 for q in range(8)]


def _compare(log: Log, radii: np.ndarray, fixed: np.ndarray, r: float) -> dict[str, float]:
    ours = float(((radii >= r) & log.right[:, None]).mean())
    # A fixed-n radius within rounding of r proves r: both sides are judged on the same terms.
    theirs = float(((fixed >= r * (1 - 1e-9)) & log.right).mean())
    return {"radius": r, "value": ours, "fixed": theirs, "difference_points": 100 * (ours - theirs)}


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['log']}: {result['inputs']} inputs, sigma {result['sigma']:g}, alpha {result['alpha']:g}, "
        f"mode {result['mode']}, {result['replays']} replays, other votes: {result['others']}",
        f"samples per input {result['samples_per_input']:,.0f} of {result['fixed_samples_per_input']:,.0f} "
        f"({result['saving']:.1f}x fewer)",
        "radius   certified accuracy   fixed n   difference (points)",
    ]
    for row in result["certified_accuracy"]:
        lines.append(
            f"{row['radius']:6.3f} {row['value']:20.4f} {row['fixed']:9.4f} {row['difference_points']:+12.3f}"
        )
    if "mean_radius_ratio" in result:
        lines.append(f"mean certified radius: {100 * result['mean_radius_ratio']:.1f} % of fixed n")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
