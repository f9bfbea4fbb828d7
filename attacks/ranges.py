"""Bounds that differ by coordinate: the range of every feature."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from certify.calls import shown
from certify.errors import InvalidSetting


class Ranges(tuple[Tensor, Tensor]):
    """(low, high), each of one input's shape, float64; compared and hashed by value."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and all(torch.equal(a, b) for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(tuple(bound.flatten().tolist()) for bound in self))

    def __repr__(self) -> str:
        return f"Ranges({tuple(self[0].shape)})"


def read_bounds(bounds: Any) -> tuple[float, float] | Ranges | None:
    """``bounds`` as two numbers, as ranges per coordinate, or None. Raises InvalidSetting."""
    if bounds is None:
        return None
    try:
        low, high = (torch.as_tensor(bound, dtype=torch.float64).detach().cpu().clone() for bound in bounds)
        low, high = torch.broadcast_tensors(low, high)
        fine = low.numel() > 0 and bool((low.isfinite() & high.isfinite() & (low <= high)).all())
    except Exception:  # whatever is no pair of numbers or arrays fails with an error of its own
        low = high = torch.zeros(0)
        fine = False
    if not fine or (low.dim() == 0 and not bool(low < high)):
        raise InvalidSetting(
            f"bounds {shown(bounds)} are not an input range",
            why="low and high must be finite, low below high: two numbers, or two arrays of an input's shape",
            remedy="give bounds=(low, high) of the data, or bounds=None for an unbounded input",
        )
    return (float(low), float(high)) if low.dim() == 0 else Ranges((low, high))


def width(box: tuple[Any, Any]) -> float:
    """The longest side of a box; infinite where a side is open."""
    side = torch.as_tensor(box[1]) - torch.as_tensor(box[0])
    return float(side.max()) if side.numel() else math.inf
