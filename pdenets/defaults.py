"""What training uses when nothing is said: one row per data set, measured on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingDefaults:
    """Epochs, learning rate, batch size and augmentation, and the options of each regulariser."""

    epochs: int = 20
    lr: float = 2e-3
    batch_size: int = 128
    augment: str = "none"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def regulariser_options(self, regulariser: str) -> dict[str, Any]:
        return dict(self.options.get(regulariser, {}))


_IMAGES = TrainingDefaults(
    epochs=8,
    batch_size=256,
    options={name: {"weight": 10.0, "share": 0.25} for name in ("diffusion", "residual")},
)
#: The field's augmentation; the rest is the general row, which was not measured on CIFAR.
_CIFAR = TrainingDefaults(augment="crop-flip")
_SHAPES = TrainingDefaults(epochs=100, batch_size=8)

#: Data set name -> defaults. A data set that is not listed gets ``TrainingDefaults()``.
DEFAULTS: Mapping[str, TrainingDefaults] = {
    "mnist": _IMAGES,
    "fashion-mnist": _IMAGES,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "shapes": _SHAPES,
    "shapes-noisy": _SHAPES,
    "digits": TrainingDefaults(epochs=40, batch_size=64),
    "moons": TrainingDefaults(
        epochs=350,
        batch_size=200,
        options={"diffusion": {"spread": 0.3}, "residual": {"weight": 10.0, "spread": 0.3}},
    ),
}


def defaults_for(dataset: str) -> TrainingDefaults:
    """The row of ``dataset``, or the general one."""
    return DEFAULTS.get(dataset, TrainingDefaults())


@dataclass(frozen=True)
class DenoisingDefaults:
    """Epochs (of both stages together), learning rate, batch size and augmentation of a denoiser."""

    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 128
    augment: str = "none"


#: Data set name -> defaults of ``pdenets.denoisers.training``.
DENOISING: Mapping[str, DenoisingDefaults] = {
    "mnist": DenoisingDefaults(epochs=4),
    "fashion-mnist": DenoisingDefaults(epochs=4),
    "cifar10": DenoisingDefaults(augment="crop-flip"),
    "cifar100": DenoisingDefaults(augment="crop-flip"),
    "digits": DenoisingDefaults(epochs=60, lr=2e-3, batch_size=64),
}


def denoising_defaults(dataset: str) -> DenoisingDefaults:
    """The row of ``dataset``, or the general one."""
    return DENOISING.get(dataset, DenoisingDefaults())
