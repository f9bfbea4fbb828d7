"""Neural ODE on the half-moons, Burgers' equation by residual, an image from its derivatives."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import over_seeds
from scipy import sparse
from scipy.interpolate import RectBivariateSpline
from scipy.sparse.linalg import spsolve

import certify
from certify.data import load
from pdenets import inr, pinn
from pdenets.burgers import cell_centres, cole_hopf, finite_volume
from pdenets.neural_ode import neural_ode
from pdenets.training import evaluate, train

VISCOSITY, TIME = 0.05, 0.5


def moons(seeds: int) -> dict[str, Any]:
    rows = []
    for adjoint in (False, True):
        accuracies, seconds = [], 0.0
        for seed in range(seeds):
            test = load("moons", split="test", seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "net.pt"
                result = train(
                    load("moons", split="train", seed=seed), test.part(limit=200), arch="neural-ode",
                    arguments={"adjoint": adjoint}, out=path, sigma=0.0, regulariser="none", epochs=120,
                    batch_size=100, lr=1e-2, seed=seed,
                )  # fmt: skip
                accuracies.append(evaluate(certify.load(path), test, sigma=0.0).accuracy)
                seconds = result.seconds
        rows.append({"training": "adjoint" if adjoint else "backpropagation through the solver",
                     "test accuracy": over_seeds(accuracies), "training s": round(seconds, 1)})  # fmt: skip
    gap = adjoint_gap()
    return {
        "rows": rows,
        "seeds": seeds,
        "adjoint against backpropagation, relative": gap,
        "bars": {
            "accuracy >= .99": min(row["test accuracy"]["mean"] for row in rows) >= 0.99,
            f"gradients agree to {gap:.1e} <= 1e-6": gap <= 1e-6,
        },
    }


def adjoint_gap() -> float:
    """Relative difference of the two gradients, double precision, rk4 with 40 steps."""
    torch.manual_seed(0)
    model = neural_ode(num_classes=2, input_shape=(2,), steps=40).double().train()
    x = torch.randn(32, 2, dtype=torch.float64)
    gradients = []
    for model.adjoint in (False, True):
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return float((gradients[0] - gradients[1]).norm() / gradients[0].norm())


def burgers(seeds: int) -> dict[str, Any]:
    x = cell_centres(256)
    exact = cole_hopf(x, TIME, viscosity=VISCOSITY)
    rows = []
    for cells in (64, 128, 256):
        centres = cell_centres(cells)
        started = time.time()
        u = finite_volume(-torch.sin(math.pi * centres), TIME, viscosity=VISCOSITY)
        reference = cole_hopf(centres, TIME, viscosity=VISCOSITY)
        error = over_seeds([relative(u, reference)])
        seconds = round(time.time() - started, 2)
        rows.append(
            {"method": f"finite volumes, {cells} cells", "relative l2 error": error, "seconds": seconds}
        )
    errors, started = [], time.time()
    for seed in range(seeds):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        net = pinn.HardConstrained(lambda z: -torch.sin(math.pi * z)).double()
        points = 2 * torch.rand(1500, 1, generator=generator, dtype=torch.float64) - 1
        times = TIME * torch.rand(1500, generator=generator, dtype=torch.float64)
        pinn.fit(net, pinn.burgers(viscosity=VISCOSITY), points, times)
        with torch.no_grad():
            u = net(x[:, None], torch.full_like(x, TIME))[:, 0]
        errors.append(relative(u, exact))
    rows.append({"method": "physics-informed network", "relative l2 error": over_seeds(errors),
                 "seconds": round((time.time() - started) / seeds, 1)})  # fmt: skip
    return {
        "rows": rows, "seeds": seeds, "viscosity": VISCOSITY, "time": TIME, "errors": errors,
        "bars": {f"network: worst error {max(errors):.1e} <= 1e-2": max(errors) <= 1e-2},
    }  # fmt: skip


def relative(u: torch.Tensor, reference: torch.Tensor) -> float:
    return float((u - reference).norm() / reference.norm())


def image(seeds: int) -> dict[str, Any]:
    """Fit a sine network to a photograph's values, gradient or Laplacian; compare the pictures."""
    side = 64
    photo = photograph(side)
    x = inr.pixel_grid(side, side)
    axis = np.linspace(-1, 1, side)
    spline = RectBivariateSpline(axis, axis, photo, kx=5, ky=5)
    wanted = {
        "values": [spline(axis, axis)],
        "gradient": [spline(axis, axis, dx=1), spline(axis, axis, dy=1)],
        "laplacian": [spline(axis, axis, dx=2) + spline(axis, axis, dy=2)],
    }
    reference = torch.from_numpy(photo).float().reshape(-1, 1)
    rows = []
    for target, parts in wanted.items():
        goal = torch.from_numpy(np.stack([p.ravel() for p in parts], 1)).float()
        values, started = [], time.time()
        for seed in range(seeds):
            torch.manual_seed(seed)
            net = inr.SineNetwork(width=128, depth=3)
            inr.fit(net, x, goal, target=target, steps=600, lr=3e-4)
            with torch.no_grad():
                found = net(x)
            values.append(inr.psnr(align(found, reference, target), reference))
        rows.append({"fitted to": target, "forgets": {"values": "nothing", "gradient": "a constant",
                     "laplacian": "harmonic functions"}[target], "PSNR dB": over_seeds(values),
                     "training s": round((time.time() - started) / seeds, 1)})  # fmt: skip
    gradient = rows[1]["PSNR dB"]["mean"]
    return {"rows": rows, "seeds": seeds, "bars": {f"from the gradient: {gradient} >= 25 dB": gradient >= 25}}


def align(found: torch.Tensor, reference: torch.Tensor, target: str) -> torch.Tensor:
    """Put back exactly what the operator forgets: a constant, or a harmonic function.

    The harmonic part is the solution of the discrete Laplace equation whose border
    values are the difference on the border.
    """
    if target == "values":
        return found
    if target == "gradient":
        return found + (reference - found).mean()
    side = round(math.sqrt(len(found)))
    gap = (reference - found).reshape(side, side).double().numpy()
    inner = np.zeros((side, side), dtype=bool)
    inner[1:-1, 1:-1] = True
    second = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(side, side))
    eye = sparse.eye_array(side)
    laplacian = (sparse.kron(second, eye) + sparse.kron(eye, second)).tocsr()
    inside, border = inner.ravel(), ~inner.ravel()
    harmonic = gap.ravel().copy()
    harmonic[inside] = spsolve(
        laplacian[inside][:, inside].tocsc(), -laplacian[inside][:, border] @ gap.ravel()[border]
    )
    return found + torch.from_numpy(harmonic).to(found.dtype)[:, None]


def photograph(side: int) -> np.ndarray:
    """scikit-learn's picture of a temple, grey, in [0, 1], averaged down to ``side`` pixels."""
    from sklearn.datasets import load_sample_image

    grey = load_sample_image("china.jpg").mean(2)[:384, 128:512] / 255
    block = grey.shape[0] // side
    return grey.reshape(side, block, side, block).mean((1, 3))
