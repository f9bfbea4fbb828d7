"""What a bound on mean scores costs in samples: planned stakes against a grid of fixed bets.

    python benchmarks/soft_cost.py            writes results/soft_cost.json

Both bounds read the same scores of the same inputs. The grid of fixed bets reads n of them in bins even in
log-odds, as runs did before; "share" is the least share of n at which planned stakes prove at least as much
on average over the inputs. Inputs whose fixed-bet bound is 1/2 or less are left out: nothing is proved there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine

import certify
from certify.data import load
from certify.sampling.tally import _margins
from certify.scores.distribution import score_thresholds
from certify.scores.means import kelly_grid_histogram
from certify.scores.timed import TimedBets, mean_thresholds
from pdenets.training import train

ALPHA, N0, INPUTS, BINS = 1e-3, 64, 40, 512
SAMPLES = (500, 2_000, 10_000)
SHARES = np.arange(0.30, 1.05, 0.05)


def probit(x: torch.Tensor) -> torch.Tensor:
    """Class 1 with probability Phi((x_1 - 0.4) / 0.3)."""
    z = (x[:, 0].double() - 0.4) / 0.3
    return torch.stack([torch.special.log_ndtr(-z), torch.special.log_ndtr(z)], dim=1)


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = {name: measured(*made()) for name, made in NETWORKS.items()}
    result = {"machine": machine(), "alpha": ALPHA, "seconds": time.perf_counter() - start, "networks": found}
    (RESULTS / "soft_cost.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def half_space() -> tuple[certify.Smoothed, torch.Tensor]:
    x = torch.zeros(INPUTS, 3)
    x[:, 0] = torch.arange(INPUTS) / 128
    return certify.Smoothed(probit, 0.5, num_classes=2, grid=2.0**-7, bounds=(-4.0, 4.0)), x


def digits() -> tuple[certify.Smoothed, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "digits.pt"
        train(load("digits", split="train"), arch="mlp", out=out, sigma=0.25, epochs=20, seed=0)
        model = certify.load(out)
    return certify.Smoothed(model, 0.5), load("digits", split="test").x[:INPUTS]


NETWORKS: dict[str, Callable[[], tuple[certify.Smoothed, torch.Tensor]]] = {
    "soft half-space, sigma .5": half_space,
    "digits, mlp trained at sigma .25, certified at .5": digits,
}


def measured(g: certify.Smoothed, x: torch.Tensor) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    scores = [chosen(g, row, id) for id, row in enumerate(x)]
    for n in SAMPLES:
        pairs = [(select, fresh[:n], fixed_bets(fresh[:n])) for select, fresh in scores]
        pairs = [p for p in pairs if p[2] > 0.5]
        grid = float(np.mean([bound for _, _, bound in pairs]))
        proved = {share: [planned(s, f[: round(share * n)]) for s, f, _ in pairs] for share in SHARES}
        means = {share: float(np.mean(bounds)) for share, bounds in proved.items()}
        enough = [float(share) for share, mean in means.items() if mean >= grid]
        rows[str(n)] = {
            "inputs": len(pairs),
            "grid_of_fixed_bets": grid,
            "planned_stakes": {f"{share:.2f}": mean for share, mean in means.items()},
            "share": round(min(enough), 2) if enough else None,
        }
    return rows


def chosen(g: certify.Smoothed, row: torch.Tensor, id: int) -> tuple[np.ndarray, np.ndarray]:
    """Margin scores of the class that N0 samples choose: (the N0, fresh ones)."""
    with torch.inference_mode():
        noisy = g.noisy(row, N0 + max(SAMPLES), seed=1, id=id)
        margins = torch.cat([_margins(g.classifier.logits(part).double())[0] for part in noisy.split(1000)])
    label = int(margins[:N0].mean(dim=0).argmax())
    values = margins[:, label].cpu().numpy()
    return values[:N0], values[N0:]


def counts(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(thresholds, values, side="right"), minlength=len(thresholds) + 1)


def fixed_bets(values: np.ndarray) -> float:
    edges = score_thresholds(BINS)
    return kelly_grid_histogram(np.append(0.0, edges), counts(values, edges), ALPHA)


def planned(selection: np.ndarray, values: np.ndarray) -> float:
    edges = mean_thresholds(BINS)
    game = TimedBets(
        np.append(0.0, edges), counts(selection, edges), alpha=ALPHA, horizon=len(values), n_max=len(values)
    )
    while game.done < len(values):
        game.take(counts(values[game.done : game.done + game.next_block()], edges))
    return game.lower()


if __name__ == "__main__":
    main()
