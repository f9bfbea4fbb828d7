"""Figure 2 of arXiv 2307.12333: the weight lambda and the diffusion sigma_p^2 on the half-moons.

    python benchmarks/halfmoon_sweep.py [--seeds 5] [--out benchmarks/results]

Every network is the same; what changes is the loss: natural training, the diffusion
residual over a grid of lambda and sigma_p^2, and the control the paper lacks, Gaussian
augmentation at the matched noise s = sqrt(2) sigma_p. Robust accuracy is under linf
perturbations, by trying every point of a grid of spacing .02: no attack can miss what
the grid contains. Writes halfmoon_sweep.json and halfmoon_sweep.svg; prints a table.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import RESULTS, machine, over_seeds, text, write
from torch import Tensor, nn

import certify
from certify.data import load
from certify.errors import CertifyError
from pdenets.training import train

EPSILONS = (0.1, 0.2, 0.3)
SPACING = 0.02
STEPS = 700
TEST_POINTS = 1000
#: (regulariser, lambda, sigma_p^2) of every row.
ROWS = (
    ("none", 0.0, 0.0),
    ("residual", 1.0, 0.0),
    *(("residual", weight, s2) for s2 in (0.05, 0.1, 0.2) for weight in (1.0, 10.0)),
    *(("gaussian", 0.0, s2) for s2 in (0.05, 0.1, 0.2)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args()
    started = time.time()
    rows = []
    for name, weight, s2 in ROWS:
        runs = [one_run(name, weight, s2, seed) for seed in range(settings.seeds)]
        rows.append({"regulariser": name, "lambda": weight, "sigma_p^2": s2, "runs": runs} | summary(runs))
        print(f"{len(rows)}/{len(ROWS)} {describe(rows[-1])}", file=sys.stderr)
    report = {
        "benchmark": "halfmoon_sweep", "seeds": settings.seeds, "steps": STEPS, "test_points": TEST_POINTS,
        "grid_spacing": SPACING, "interval": "Student t over seeds, 95 %", "rows": rows,
        "seconds": round(time.time() - started, 1), "machine": machine(),
    }  # fmt: skip
    write(settings.out / "halfmoon_sweep.json", report)
    draw(rows, settings.out / "halfmoon_sweep.svg")
    print("\n".join(describe(row) for row in rows))
    return 0


def one_run(name: str, weight: float, s2: float, seed: int) -> dict[str, float]:
    """Train one network; accuracies of g(., T), the network the paper evaluates, and of g(., T-1)."""
    test = load("moons", split="test", seed=seed, limit=TEST_POINTS)
    # A coefficient of zero leaves u_t = 0; the smallest sigma the settings allow stands for it.
    sigma = math.sqrt(2 * s2) or 1e-6
    options = {"weight": weight, "spread": 0.3} if name == "residual" else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        result = train(
            load("moons", split="train", seed=seed), test.part(limit=100), arch="convection-diffusion",
            out=path, sigma=sigma, regulariser=name, options=options, epochs=STEPS, batch_size=400, lr=2e-3,
            seed=seed,
        )  # fmt: skip
        model = certify.load(path)
    # Only the residual trains g(., T); the other losses leave everything but t = T-1 undefined.
    times = {"T-1": model.horizon - 1} | ({"T": model.horizon} if name == "residual" else {})
    found = {"seconds": round(result.seconds, 2)}
    for label, t in times.items():
        for eps, value in robust_accuracy(model, test.x, test.y, t).items():
            found[f"{label} linf {eps:g}"] = round(value, 4)
    return found


@torch.inference_mode()
def robust_accuracy(model: nn.Module, x: Tensor, y: Tensor, t: float) -> dict[float, float]:
    """Share of points whose whole linf neighbourhood, on the grid, has the true class."""
    reach = round(max(EPSILONS) / SPACING)
    axis = torch.arange(-reach, reach + 1) * SPACING
    moves = torch.cartesian_prod(axis, axis)
    size = moves.abs().amax(1)
    right = torch.stack(
        [(model(point + moves, t).argmax(1) == label) for point, label in zip(x, y, strict=True)]
    )
    # Half a spacing of tolerance: the grid's own points carry rounding errors.
    return {eps: right[:, size <= eps + SPACING / 2].all(1).float().mean().item() for eps in (0.0, *EPSILONS)}


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and 95 % Student interval over seeds of every measured accuracy."""
    return {key: over_seeds([run[key] for run in runs]) for key in runs[0] if "linf" in key}


def describe(row: dict) -> str:
    label = {"none": "natural", "residual": "diffusion residual", "gaussian": "gaussian augmentation"}
    time_label = "T" if row["regulariser"] == "residual" else "T-1"
    cells = [f"{label[row['regulariser']]:<22} lambda {row['lambda']:<4g} sigma_p^2 {row['sigma_p^2']:<6g}"]
    for eps in (0.0, *EPSILONS):
        cells.append(f"{'clean' if eps == 0 else eps}: {text(row[f'{time_label} linf {eps:g}'])}")
    return "  ".join(cells)


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True)
    series = {
        "diffusion residual, lambda 1": ("residual", 1.0),
        "diffusion residual, lambda 10": ("residual", 10.0),
        "gaussian augmentation (matched)": ("gaussian", 0.0),
    }
    for axis, eps, title in ((axes[0], 0.3, "robust accuracy, linf .3"), (axes[1], 0.0, "clean accuracy")):
        natural = rows[0][f"T-1 linf {eps:g}"]["mean"]
        axis.axhline(natural, color="black", linestyle=":", label="natural training")
        for label, (name, weight) in series.items():
            mine = [r for r in rows if (r["regulariser"], r["lambda"]) == (name, weight)]
            values = [r[f"{'T' if name == 'residual' else 'T-1'} linf {eps:g}"] for r in mine]
            means = [v["mean"] for v in values]
            bars = [[abs(v["mean"] - v.get(end, v["mean"])) for v in values] for end in ("low", "high")]
            axis.errorbar(
                [r["sigma_p^2"] for r in mine], means, yerr=bars, marker="o", capsize=3, label=label
            )
        axis.set(xlabel="diffusion coefficient sigma_p^2", title=title)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except CertifyError as error:
        raise SystemExit(str(error)) from error
