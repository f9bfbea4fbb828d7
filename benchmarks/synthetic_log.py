"""Write a log of top-class counts with the shape of published randomized-smoothing logs.

    python benchmarks/synthetic_log.py --profile cifar --inputs 500 --seed 0 --out log.csv

Columns: index, label, predict, count, n. ``count`` is how often the input's top class was seen in
``n`` noisy samples; predict = -1 marks an abstention. No network is involved: Phi^-1 of the top
class's probability is drawn from a distribution with given quantiles (many inputs far above every
radius, a broad middle, some that stay ambiguous), and the count is binomial.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
from scipy import special

from certify.bounds import binomial_lower

#: Phi^-1(p_A) at the given cumulative shares; between them linear. "cifar": a residual network at
#: the noise it was trained with (about 8 % ambiguous, 14 % never seen to fail in 100,000).
PROFILES = {
    "cifar": ((0.0, -0.4), (0.08, 0.0), (0.2, 0.47), (0.4, 1.26), (0.6, 2.27), (0.8, 3.56), (0.86, 3.9)),
    "imagenet": ((0.0, -0.8), (0.16, 0.0), (0.3, 0.57), (0.5, 1.75), (0.7, 3.06), (0.8, 3.72), (0.83, 3.9)),
    "noisy": ((0.0, -0.6), (0.22, 0.0), (0.5, 0.7), (0.75, 1.5), (0.92, 2.6), (0.97, 3.9)),
}
#: Beyond the last knot the class never fails in practice.
_CERTAIN = 4.8


def synthetic_log(
    profile: str, inputs: int, *, n: int, seed: int, classes: int = 10, alpha: float = 1e-3
) -> Iterator[dict[str, int]]:
    """Rows (index, label, predict, count, n) of a log with the profile's shape."""
    rng = np.random.default_rng(seed)
    shares, quantiles = np.array(PROFILES[profile]).T
    u = rng.random(inputs)
    z = np.where(u > shares[-1], _CERTAIN, np.interp(u, shares, quantiles))
    counts = rng.binomial(n, special.ndtr(z))
    # A confident class is more often the right one: from an even chance to 98 %.
    right = rng.random(inputs) < 0.5 + 0.48 * np.clip(z / 2.5, 0.0, 1.0)
    labels = rng.integers(classes, size=inputs)
    wrong = (labels + rng.integers(1, classes, size=inputs)) % classes
    for i in range(inputs):
        k = int(counts[i])
        predict = int(labels[i] if right[i] else wrong[i]) if binomial_lower(k, n, alpha) > 0.5 else -1
        yield {"index": i, "label": int(labels[i]), "predict": predict, "count": k, "n": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="cifar")
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="file to write; standard output when left out")
    args = parser.parse_args()
    with open(args.out, "w", newline="") if args.out else nullcontext(sys.stdout) as out:
        writer = csv.DictWriter(out, fieldnames=["index", "label", "predict", "count", "n"])
        writer.writeheader()
        writer.writerows(synthetic_log(args.profile, args.inputs, n=args.n, seed=args.seed))


if __name__ == "__main__":
    main()
