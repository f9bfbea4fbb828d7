"""The networks and inputs that attacks are compared on: digits and MNIST, plain and PGD-trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import certify


@dataclass(frozen=True)
class Fixture:
    """A network and the inputs that it is attacked on, in the box ``bounds``."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    bounds: tuple[float, float] = (0.0, 1.0)
    classes: int = 10


# -- fixtures -----------------------------------------------------------------------------------


def fixtures(limit: int, names: set[str], seed: int = 0) -> dict[str, Fixture]:
    """Digits CNN, MLP and PGD-trained CNN; a CNN on MNIST where its files are there."""
    out = {}
    kinds: dict[str, tuple[str, Callable[[], nn.Module], dict[str, Any]]] = {
        "cnn": ("digits", lambda: small_cnn(8), {}),
        "mlp": ("digits", small_mlp, {}),
        "cnn-pgd": ("digits", lambda: small_cnn(8), {"adversarial": 0.2}),
        "cnn-noise": ("digits", lambda: small_cnn(8), {"noise": 0.25}),
        "mnist-cnn": ("mnist", lambda: small_cnn(28), {"epochs": 2, "train": 20_000}),
    }
    for name, (data, build, options) in kinds.items():
        if name not in names:
            continue
        try:
            train = certify.data.load(data, split="train", limit=options.pop("train", None))
        except certify.errors.DataNotFound as error:
            print(f"{name} left out: {error.what}")
            continue
        test = certify.data.load(data, split="test", limit=limit)
        torch.manual_seed(seed)
        model = fit(build(), train.x, train.y, seed=seed, **options)
        out[name] = Fixture(name, model, test.x, test.y)
    return out


def small_cnn(side: int) -> nn.Module:
    """Two strided convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=1 if side < 16 else 2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * (4 if side < 16 else 7) ** 2, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def small_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def fit(model: nn.Module, x: Tensor, y: Tensor, *, seed: int, epochs: int = 40, adversarial: float = 0.0,
        noise: float = 0.0) -> nn.Module:  # fmt: skip
    """Adam, batches of 64; five linf PGD steps of size ``adversarial``/3 per batch where asked, or noise."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            inputs, labels = x[rows], y[rows]
            if noise:
                inputs = inputs + noise * torch.randn(inputs.shape, generator=generator)
            if adversarial:
                delta = torch.zeros_like(inputs)
                for _ in range(5):
                    delta.requires_grad_()
                    loss = F.cross_entropy(model((inputs + delta).clamp(0, 1)), labels)
                    (gradient,) = torch.autograd.grad(loss, delta)
                    delta = (delta.detach() + adversarial / 3 * gradient.sign()).clamp(
                        -adversarial, adversarial
                    )
                inputs = (inputs + delta).clamp(0, 1)
            optimiser.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
    return model.eval()
