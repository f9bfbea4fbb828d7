"""Sample in the space a first linear layer sees, instead of the input space.

Let a network be x -> rest(W x + b) with W of shape (h, d), h < d. With the QR factorisation
W^T = Q R it depends on x only through Q^T x, and for Z ~ N(0, I_d) the projected noise Q^T Z is
exactly N(0, I_h), since the columns of Q are orthonormal. So the votes at x + sigma Z have the law
of the votes of the network y -> rest(R^T y + b) at y = Q^T x + sigma Z', Z' ~ N(0, I_h): h random
numbers a sample instead of d, and a matrix product of h columns instead of d. The certificate
is about the original network in the original input space. Isotropic Gaussian noise only, and exact
up to rounding only, as that noise is anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certify.altered import altered
from certify.errors import InvalidModel
from certify.sampling.classifier import BaseClassifier, difference


@dataclass(frozen=True, eq=False)
class Reduced:
    """A network seen from behind its first linear layer: ``model(project(x))`` is the network at x.

    ``basis``: (d, h) float64, orthonormal columns. ``model`` maps (batch, h) to class scores.
    """

    basis: Tensor
    model: nn.Module

    def project(self, x: Tensor) -> Tensor:
        """Inputs (n, *shape) as points (n, h), float32."""
        return (x.flatten(1).double() @ self.basis.to(x.device)).float()


def reduce_first_linear(model: Any) -> Reduced | None:
    """The reduced network, or None where ``model`` does not start with a linear layer that narrows.

    Recognised: ``nn.Sequential`` (nested too) that begins with a Linear layer, after Flatten and
    Identity. The factorisation is computed in float64; the model itself is not touched.
    """
    layers = _flattened(model)
    if layers is None:
        return None
    while layers and (type(layers[0]) is nn.Identity or _flattens_rows(layers[0])):
        if altered(layers[0]):
            return None
        layers = layers[1:]
    if not layers or type(layers[0]) is not nn.Linear or altered(layers[0]):
        return None
    first = layers[0]
    if first.out_features >= first.in_features or not first.weight.dtype.is_floating_point:
        return None
    weight = first.weight.detach().double().cpu()
    basis, upper = torch.linalg.qr(weight.T)
    place = {"device": first.weight.device, "dtype": first.weight.dtype}
    small = nn.Linear(first.out_features, first.out_features, bias=first.bias is not None, **place)
    with torch.no_grad():
        small.weight.copy_(upper.T)
        if first.bias is not None:
            small.bias.copy_(first.bias)
    return Reduced(basis, nn.Sequential(small, *layers[1:]).eval())


def _flattened(model: Any) -> list[nn.Module] | None:
    """The layers of nested nn.Sequentials, or None where a container does more than pass on."""
    if type(model) is not nn.Sequential:
        return [model] if isinstance(model, nn.Module) else []
    if altered(model):
        return None
    parts = [_flattened(part) for part in model]
    return None if None in parts else [layer for part in parts if part is not None for layer in part]


def _flattens_rows(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1


def refuse_other_shortcut(
    reduced: Reduced, behind: BaseClassifier, whole: BaseClassifier, rows: Tensor
) -> None:
    """Raise InvalidModel where the network behind its first layer is not the network itself on ``rows``.

    ``rows``: noisy inputs (n, *shape). ``behind`` classifies points of the reduced space, ``whole`` inputs.
    """
    found, expected = behind.one_by_one(reduced.project(rows)), whole.one_by_one(rows)
    worst = difference(found, expected, whole.unit(expected))
    if worst > whole.rounding:
        raise InvalidModel(
            "the network cannot be sampled behind its first layer",
            why=f"its scores there differ by {worst:.1e} (relative) from the network's own on the same noisy "
            f"inputs, rounding explains {whole.rounding:.1e}",
            remedy="use reduce=False",
        )
