"""Numbers and tensors that a function can compute with; what it cannot is a named error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from certify.calls import shown
from certify.errors import InvalidInput, InvalidSetting

if TYPE_CHECKING:
    from torch import Tensor


def within(name: str, value: float, least: float, most: float, what: str) -> float:
    """``value``, where it is from ``least`` to ``most``; else InvalidSetting, which says ``what`` it is."""
    if not least <= value <= most:
        bounds = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise InvalidSetting(
            f"{name} = {shown(value)} cannot be used",
            why=f"it is {what} and must be {bounds}",
            remedy=f"choose {name} in this range",
        )
    return value


def real_values(name: str, x: Tensor) -> Tensor:
    """``x``, where it is a tensor with entries, of floating-point numbers; InvalidInput otherwise."""
    if not x.is_floating_point() or x.dim() == 0 or x.numel() == 0:
        raise InvalidInput(
            f"{name} of shape {tuple(x.shape)} and type {x.dtype} cannot be used",
            why="it must hold real numbers, along at least one dimension",
            remedy=f"pass {name} as a float tensor, for example {name}.float()",
        )
    return x


def alike(name: str, x: Tensor, other: str, y: Tensor) -> None:
    """Both tensors have real values and one shape; InvalidInput otherwise."""
    if real_values(name, x).shape != real_values(other, y).shape:
        raise InvalidInput(
            f"{name} has shape {tuple(x.shape)}, {other} {tuple(y.shape)}",
            why="they are compared entry by entry",
            remedy="bring both to one shape",
        )
