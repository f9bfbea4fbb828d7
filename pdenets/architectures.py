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
    Architecture(
        "noisy-resnet",
        "residual network with noise after every block, certified through its contraction",
        "NeurIPS 2019 (EnResNet); arXiv 2307.12333",
    ),
    Architecture(
        "unet",
        "U-Net for segmentation, trained through an inverse evolution layer if asked (evolution, dt, steps)",
        "arXiv 2307.07344",
    ),
    Architecture(
        "tiny-global",
        "MNIST network of 524 parameters: convolution, residual or diffusion-advection (backbone)",
        "Kag and Saligrama, CVPR 2022",
    ),
    Architecture(
        "global-cifar",
        "small residual network with three diffusion-advection layers (steps, diffusion, advection)",
        "Kag and Saligrama, CVPR 2022",
    ),
    Architecture(
        "quasi-linear",
        "hyperbolic system with few or no activations and a continuous symmetry (equation, activation)",
        "Liu, Shao and Bai (2023)",
    ),
    Architecture(
        "neural-ode",
        "state follows an ordinary differential equation; vectors or images (augment, solver, adjoint)",
        "Chen et al., NeurIPS 2018",
    ),
    Architecture("resnet", "ResNet-20, -32 or -110 for small images (depth)", "He et al., CVPR 2016"),
    Architecture(
        "cifar-resnet",
        "ResNet-20 to -110 under the names of published CIFAR checkpoints (depth, layout akamaster or cohen)",
        "He et al., CVPR 2016",
    ),
    Architecture("linear", "one affine map of the flattened input", "baseline"),
    Architecture("mlp", "fully connected ReLU network (width, depth, dropout)", "baseline"),
    Architecture("cnn", "two strided 5x5 convolutions and one hidden layer (width, dropout)", "baseline"),
)


def catalogue() -> list[Architecture]:
    """Every network of this package as (name, description, reference), in the order to try them."""
    return list(_TABLE)
