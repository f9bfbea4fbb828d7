"""The table of networks that can be trained by name. Importing it does not import torch."""

from __future__ import annotations

from typing import NamedTuple


class Architecture(NamedTuple):
    """A registered name, what it is in one line, and where it comes from."""

    name: str
    description: str
    reference: str


_TABLE = (
    Architecture(
        "convection-diffusion",
        "residual network with a diffusion phase; vectors or images; trained with the diffusion residual",
        "arXiv 2307.12333",
    ),
    Architecture("linear", "one affine map of the flattened input", "baseline"),
    Architecture("mlp", "fully connected ReLU network (width, depth, dropout)", "baseline"),
    Architecture("cnn", "two strided 5x5 convolutions and one hidden layer (width, dropout)", "baseline"),
)


def catalogue() -> list[Architecture]:
    """Every network of this package as (name, description, reference), in the order to try them."""
    return list(_TABLE)
