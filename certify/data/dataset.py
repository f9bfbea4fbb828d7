"""One split of a data set in memory, with the facts a certificate needs about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certify.errors import InvalidInput
from certify.labels import IGNORE, check_labels


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and what is declared about them.

    ``x``: (n, *shape) float32; images are channels first. ``y``: (n,) int64, or (n, height, width)
    for ``task`` "segmentation", where ``certify.contract.IGNORE`` marks pixels without a class.
    ``low`` and ``high`` are the declared input range, in the units of x. ``grid`` is the step of
    the lattice the inputs lie on (1/255 for 8-bit images), None where none is declared.
    ``ids``: (n,) int64, the position within the whole split: it keys an input's noise, so that a
    part of a split gets the same certificates as the whole. ``classes`` are the classes' names. ``counted``
    says that nobody declared ``num_classes``: it is the largest label plus one, and a model may know
    further classes. Labels of other whole-number types become int64; all others raise InvalidInput.
    Inputs without labels have ``IGNORE`` for every label. ``notes`` say what a reader of files decided.
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
    classes: Sequence[str]
    task: str = "classification"
    counted: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labelled and len(self.y) == len(self.x):
            return
        labels = check_labels(
            self.y, len(self.x), num_classes=self.num_classes, dense=self.task == "segmentation",
            input_shape=self.x.shape[1:],
        )  # fmt: skip
        object.__setattr__(self, "y", labels)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        lattice = "no lattice" if self.grid is None else f"lattice {self.grid:.6g}"
        what = "inputs" if self.labelled else "inputs without labels"
        return (
            f"<Dataset {self.name!r} ({self.split}): {len(self)} {what} {self.input_shape} in "
            f"[{self.low:g}, {self.high:g}], {lattice}, {self.num_classes} classes, {self.task}>"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def bounds(self) -> tuple[float, float]:
        """Declared input range (low, high)."""
        return self.low, self.high

    @property
    def labelled(self) -> bool:
        """Whether the inputs have labels."""
        y = self.y
        return not (isinstance(y, Tensor) and y.dim() == 1 and len(y) > 0 and bool((y == IGNORE).all()))

    @property
    def labels(self) -> Tensor | None:
        """``y`` where there are labels, else None: what ``certify`` and ``attack`` take."""
        return self.y if self.labelled else None

    def need_labels(self, why: str) -> Tensor:
        """``y``; InvalidInput where there are no labels, and ``why`` they are needed."""
        if not self.labelled:
            raise InvalidInput(
                f"the data set {self.name!r} has no labels",
                why=why,
                remedy="give the labels with the inputs: labels.npy beside x.npy, y in an .npz file, class "
                "folders or labels.csv beside images",
            )
        return self.y

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
