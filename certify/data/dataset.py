"""One split of a data set in memory, with the facts a certificate needs about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and what is declared about them.

    ``x``: (n, *shape) float32; images are channels first. ``y``: (n,) int64, or (n, height, width)
    for ``task`` "segmentation", where ``certify.contract.IGNORE`` marks pixels without a class.
    ``low`` and ``high`` are the declared input range, in the units of x. ``grid`` is the step of
    the lattice the inputs lie on (1/255 for 8-bit images), None where none is declared.
    ``ids``: (n,) int64, the position within the whole split: it keys an input's noise, so that a
    part of a split gets the same certificates as the whole. ``counted`` says that nobody declared
    ``num_classes``: it is the largest label plus one, and a model may know further classes.
    """

    name: str
    split: str
    x: Tensor
    y: Tensor
    num_classes: int
    low: float
    high: float
    grid: float | None
    ids: Tensor
    classes: tuple[str, ...]
    task: str = "classification"
    counted: bool = False

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def bounds(self) -> tuple[float, float]:
        """Declared input range (low, high)."""
        return self.low, self.high

    def digest(self) -> str:
        """SHA-256 of shapes, inputs, labels and ids: names exactly the data a run used."""
        sha = hashlib.sha256()
        for part in (self.x, self.y, self.ids):
            sha.update(f"{tuple(part.shape)}{part.dtype}".encode())
            sha.update(part.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def part(self, skip: int = 0, limit: int | None = None) -> Dataset:
        """The inputs from ``skip`` on, at most ``limit`` of them; ids stay as they are."""
        end = None if limit is None else skip + limit
        keep = slice(skip, end)
        return replace(self, x=self.x[keep], y=self.y[keep], ids=self.ids[keep])


def whole_split(n: int) -> Tensor:
    """The ids of a split of n inputs."""
    return torch.arange(n, dtype=torch.int64)
