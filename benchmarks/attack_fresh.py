"""Networks and data that `standard` was never tuned on: other architectures, seeds, class counts, ranges.

The networks and sizes were fixed before `standard` first ran on them. The sizes are rounded quantiles of
the distances that `minimal` finds, so that robust accuracy lies between a fifth and four fifths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import certify

try:
    from attack_fixtures import Fixture, fit, small_cnn
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks.attack_fixtures import Fixture, fit, small_cnn
from pdenets.convection_diffusion import convection_diffusion
from pdenets.quasi_linear import quasi_linear
from pdenets.regularisers import DiffusionResidual
from pdenets.resnet import resnet

DIGITS: dict[str, Any] = {"num_classes": 10, "input_shape": (1, 8, 8)}


#: (fixture, norm, eps): within eps a third to two thirds of the inputs have an adversarial one.
FRESH = (
    ("wide-cnn", "inf", 0.07), ("wide-cnn", "2", 0.45),
    ("deep-mlp", "inf", 0.065), ("deep-mlp", "inf", 0.09), ("deep-mlp", "2", 0.35), ("deep-mlp", "2", 0.48),
    ("deep-mlp", "1", 1.1),
    ("cnn-pgd-b", "inf", 0.16), ("cnn-pgd-b", "inf", 0.2), ("cnn-pgd-b", "2", 0.55), ("cnn-pgd-b", "2", 0.7),
    ("deep-mlp-pgd", "inf", 0.14), ("deep-mlp-pgd", "inf", 0.18), ("deep-mlp-pgd", "2", 0.45),
    ("deep-mlp-pgd", "2", 0.64),
    ("resnet-8", "inf", 0.08), ("resnet-8", "inf", 0.11), ("resnet-8", "2", 0.45),
    ("convection", "inf", 0.06), ("convection", "inf", 0.095), ("convection", "2", 0.4),
    ("convection-diffusion", "inf", 0.07), ("convection-diffusion", "inf", 0.12),
    ("convection-diffusion", "2", 0.5),
    ("quasi-linear", "inf", 0.05), ("quasi-linear", "inf", 0.075), ("quasi-linear", "2", 0.33),
    ("moons", "inf", 0.28), ("moons", "inf", 0.35), ("moons", "2", 0.37), ("moons", "2", 0.46),
    ("wine", "inf", 0.44), ("wine", "inf", 0.62), ("wine", "2", 1.3), ("wine", "2", 1.9), ("wine", "1", 2.9),
    ("mnist-cnn-b", "inf", 0.07), ("mnist-cnn-b", "inf", 0.1), ("mnist-cnn-b", "2", 1.0),
    ("mnist-cnn-b", "2", 1.35),
)  # fmt: skip

#: The threats that every tool repeats with several seeds.
REPEATED = (
    ("deep-mlp", "inf", 0.09), ("deep-mlp", "2", 0.48), ("cnn-pgd-b", "inf", 0.16), ("cnn-pgd-b", "inf", 0.2),
    ("cnn-pgd-b", "2", 0.7), ("deep-mlp-pgd", "inf", 0.18), ("deep-mlp-pgd", "2", 0.64),
    ("convection-diffusion", "inf", 0.12), ("quasi-linear", "inf", 0.075), ("wine", "inf", 0.62),
    ("mnist-cnn-b", "inf", 0.1),
)  # fmt: skip

#: Inputs of the networks that take longest.
FEWER = {"wide-cnn": 20, "resnet-8": 30, "mnist-cnn-b": 40}


def fresh(limit: int, names: set[str] | None = None) -> dict[str, Fixture]:
    """The fixtures by name, or those named; MNIST is left out where its files are not there."""
    out = {}
    for name, build in BUILDERS.items():
        if names is None or name in names:
            try:
                out[name] = build(name, min(limit, FEWER.get(name, limit)))
            except certify.errors.DataNotFound as error:
                print(f"{name} left out: {error.what}")
    return out


# -- digits and MNIST ---------------------------------------------------------------------------


def _images(build: Callable[[], nn.Module], *, seed: int, data: str = "digits", train: int | None = None,
            skip: int = 0, **training) -> Callable[[str, int], Fixture]:  # fmt: skip
    """A network on images; the attacked inputs start at ``skip``, behind those of the tuned fixtures."""

    def make(name: str, limit: int) -> Fixture:
        known = certify.data.load(data, split="train", limit=train)
        test = certify.data.load(data, split="test", limit=limit, skip=skip)
        torch.manual_seed(seed)
        return Fixture(name, fit(build(), known.x, known.y, seed=seed, **training), test.x, test.y)

    return make


def wide_cnn() -> nn.Module:
    """Three convolutions of up to 64 channels and average pooling, ELU."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ELU(), nn.Conv2d(32, 64, 3, padding=1), nn.ELU(), nn.AvgPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ELU(), nn.Flatten(), nn.Linear(64 * 16, 10),
    )  # fmt: skip


def deep_mlp() -> nn.Module:
    """Four hidden layers of 96, GELU."""
    sizes = (64, 96, 96, 96, 96)
    hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(96, 10))


def small_quasi_linear() -> nn.Module:
    """Two stages of 8 and 16 channels, one block each."""
    return quasi_linear(**DIGITS, widths=(8, 16), blocks=(1, 1))


def small_convection_diffusion() -> nn.Module:
    """The residual network with half the default channels."""
    return convection_diffusion(**DIGITS, width=8)


def _diffused(name: str, limit: int) -> Fixture:
    """A convection-diffusion network trained with the diffusion residual."""
    known, test = (certify.data.load("digits", split=s) for s in ("train", "test"))
    torch.manual_seed(23)
    model, loss = small_convection_diffusion(), DiffusionResidual(0.25, share=0.25)
    generator = torch.Generator().manual_seed(23)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(10):
        for rows in torch.randperm(len(known), generator=generator).split(64):
            optimiser.zero_grad()
            parts = loss.loss(model, known.x[rows], known.y[rows], generator=generator)
            torch.stack(list(parts.values())).sum().backward()
            optimiser.step()
    return Fixture(name, model.eval(), test.x[100 : 100 + limit], test.y[100 : 100 + limit])


# -- few coordinates, few classes, other ranges -------------------------------------------------


def _moons(name: str, limit: int) -> Fixture:
    known, test = (certify.data.load("moons", split=s) for s in ("train", "test"))
    torch.manual_seed(29)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    return Fixture(
        name, fit(model, known.x, known.y, seed=29), test.x[:limit], test.y[:limit], test.bounds, 2
    )


def _wine(name: str, limit: int) -> Fixture:
    """scikit-learn's wines, standardised (so partly negative) and kept within four deviations."""
    from sklearn.datasets import load_wine

    x, y = (torch.from_numpy(a) for a in load_wine(return_X_y=True))
    x = ((x - x.mean(0)) / x.std(0)).float().clamp(-4, 4)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(31))
    held, rest = order[:limit], order[limit:]
    torch.manual_seed(31)
    model = nn.Sequential(nn.Linear(13, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3))
    return Fixture(name, fit(model, x[rest], y[rest], seed=31), x[held], y[held], (-4.0, 4.0), 3)


BUILDERS: dict[str, Callable[[str, int], Fixture]] = {
    "wide-cnn": _images(wide_cnn, seed=11, skip=100, epochs=10),
    "deep-mlp": _images(deep_mlp, seed=12, skip=100),
    "cnn-pgd-b": _images(lambda: small_cnn(8), seed=13, skip=100, adversarial=0.15, epochs=30),
    "deep-mlp-pgd": _images(deep_mlp, seed=14, skip=100, adversarial=0.15),
    "resnet-8": _images(lambda: resnet(**DIGITS, depth=8), seed=15, skip=100, epochs=4),
    "convection": _images(small_convection_diffusion, seed=16, skip=100, epochs=15),
    "convection-diffusion": _diffused,
    "quasi-linear": _images(small_quasi_linear, seed=17, skip=100, epochs=10),
    "moons": _moons,
    "wine": _wine,
    "mnist-cnn-b": _images(lambda: small_cnn(28), seed=18, data="mnist", train=20_000, skip=100, epochs=2),
}
