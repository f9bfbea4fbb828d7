"""Every bound on every small network: is one contradicted, and which measure ranks the gaps?

    python benchmarks/bounds_sweep.py --out benchmarks/results

Linear networks, MLPs, CNNs and convection-diffusion networks on the digits and the half-moons, at
N = 100, 300, 1000 (the half-moons have 400), trained plainly, under Gaussian noise, and with the
diffusion residual. For each: every bound of ``analysis.all_bounds`` beside the measured risk of its
own predictor. Then Kendall's tau of complexity measures with the measured gap over all networks.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import analysis
from analysis import plots
from analysis.gibbs import squared_distance
from analysis.layers import network_norms
from analysis.lipschitz_estimates import jacobian_norms
from certify.data import load
from certify.errors import InvalidModel
from pdenets.baselines import cnn, linear, mlp
from pdenets.convection_diffusion import convection_diffusion
from pdenets.regularisers import regulariser

SIZES = (100, 300, 1000)
MEASURES = (
    "local gradient",
    "distance from initialisation",
    "norm of the weights",
    "PAC-Bayes bound, initial prior",
    "negative median margin",
    "1 / sqrt(N)",
    "spectral norms / margin",
    "Frobenius norms / margin",
    "path norm / margin",
)
SIGMA = {"digits": 0.25, "moons": 0.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=list(SIGMA), default=list(SIGMA))
    parser.add_argument("--arch", nargs="+", default=["linear", "mlp", "cnn", "convection_diffusion"])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None, help="folder for bounds_sweep.json and .svg")
    settings = parser.parse_args()
    networks = [row for seed in range(settings.seeds) for row in sweep(settings, seed)]
    values = {name: [n["measures"].get(name, math.nan) for n in networks] for name in MEASURES}
    taus = analysis.rank_correlations(values, [n["gap"] for n in networks]) if len(networks) > 3 else []
    print(report(networks, taus))
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        result = {"networks": networks, "kendall_tau": [t.to_json() for t in taus]}
        (settings.out / "bounds_sweep.json").write_text(json.dumps(result, indent=1) + "\n")
        plots.tau_forest(taus).savefig(settings.out / "bounds_sweep.svg")


def sweep(settings: argparse.Namespace, seed: int):
    for name in settings.data:
        sigma, test = SIGMA[name], load(name, split="test")
        for n in SIZES:
            data = load(name, split="train", limit=n)
            for architecture, training in cases(name):
                if architecture.__name__ not in settings.arch:
                    continue
                yield one(settings, seed, data, test, architecture, training, sigma)
                print(f"{name} {n} {architecture.__name__} {training}", file=sys.stderr)


def cases(name: str):
    plain = (linear, mlp) if name == "moons" else (linear, mlp, cnn)
    for architecture in plain:
        yield architecture, "none"
        yield architecture, "gaussian"
    yield convection_diffusion, "diffusion"


def one(settings, seed: int, data, test, architecture, training: str, sigma: float) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = architecture(num_classes=data.num_classes, input_shape=data.input_shape)
    start = {k: v.detach().clone() for k, v in model.named_parameters()}
    loss = regulariser(training, sigma=sigma)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        picks = torch.randperm(len(data.y), generator=generator)[:128]
        sum(loss.loss(model, data.x[picks], data.y[picks], generator=generator).values()).backward()
        optimizer.step()
    model.eval()
    gap = analysis.deterministic_gap(model, data, test)
    bounds = analysis.all_bounds(model, data, test, prior=start, draws=settings.draws, seed=seed)
    table = analysis.ledger(bounds=bounds, points=data.x, draws=settings.draws, seed=seed)
    decided = collections.Counter(row.status for row in table.claim("bound"))
    printed = [row.status for row in table.claim("R1") if "as printed" in row.quantity]
    return {
        "data": data.name, "n": len(data), "architecture": architecture.__name__, "training": training,
        "seed": seed, "train_error": gap.train_error, "test_error": gap.test_error, "gap": gap.value,
        "bounds": {row.name: row.value for row in bounds if row.target == "risk"}, "status": dict(decided),
        "alarms": [row.quantity for row in table.alarms], "printed_refuted": "violated" in printed,
        "measures": measures(model, start, data, bounds, generator),
    }  # fmt: skip


def measures(model: nn.Module, start, data, bounds, generator: torch.Generator) -> dict[str, float]:
    """Complexity measures of one network; the norm-based ones are NaN where no theorem covers it."""
    x = data.x[:200]
    with torch.no_grad():
        margins = analysis.margin_distribution(model(data.x), data.y)
    gradient, _ = jacobian_norms(model, x, torch.randn(x.shape, generator=generator), iterations=8)
    weights = {k: v.detach() for k, v in model.named_parameters()}
    distance = math.sqrt(squared_distance(weights, start))
    best = min(row.value for row in bounds if "kl form, initial" in row.name)
    size = math.sqrt(len(data))
    found = {
        "local gradient": float(gradient.mean()) / size,
        "distance from initialisation": distance / size,
        "norm of the weights": math.sqrt(squared_distance(weights)) / size,
        "PAC-Bayes bound, initial prior": best,
        "negative median margin": -float(margins.values[len(margins.values) // 2]),
        "1 / sqrt(N)": 1 / size,
    }
    try:
        norms = network_norms(model, data.input_shape)
    except InvalidModel:
        return found
    scale = max(float(margins.values[len(margins.values) // 10]), 1e-3) * size
    return found | {
        "spectral norms / margin": norms.spectral_product / scale,
        "Frobenius norms / margin": norms.frobenius_product / scale,
        "path norm / margin": norms.path / scale,
    }


def report(networks: list[dict[str, Any]], taus) -> str:
    counts: collections.Counter[str] = collections.Counter()
    for network in networks:
        counts.update(network["status"])
    refuted = sum(n["printed_refuted"] for n in networks)
    lines = [
        f"{len(networks)} networks; risk bounds: {dict(counts)}; theorems contradicted: "
        f"{sum(len(n['alarms']) for n in networks)}; printed covering bound refuted on {refuted} samples",
    ]
    names = {name for n in networks for name in n["bounds"]}
    for name in sorted(names, key=lambda k: median([n["bounds"].get(k) for n in networks])):
        lines.append(f"  median {median([n['bounds'].get(name) for n in networks]):8.3f}  {name}")
    lines += [
        f"  tau {t.tau:+.2f} [{t.low:+.2f}, {t.high:+.2f}]  {t.measure} ({t.networks} networks)" for t in taus
    ]
    return "\n".join(lines)


def median(values: list[float | None]) -> float:
    found = sorted(v for v in values if v is not None)
    return found[len(found) // 2]


if __name__ == "__main__":
    main()
