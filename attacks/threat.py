"""What the attacker may do: a norm, a size, and the box the inputs must stay in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attacks.ranges import Ranges, read_bounds
from certify.calls import checked_class, shown
from certify.errors import InvalidSetting
from certify.noise.grid import make_grid

_NORMS = {"1": 1.0, "l1": 1.0, "2": 2.0, "l2": 2.0, "inf": math.inf, "linf": math.inf}


@checked_class
@dataclass(frozen=True)
class Threat:
    """All x' with ``|x' - x|_norm <= eps`` and every coordinate inside ``bounds``.

    ``norm`` is 1, 2 or infinity (``math.inf``, ``"inf"``). ``eps`` is in the unit of
    the inputs; None asks for the smallest perturbation that changes the class.
    ``bounds`` is the declared input range ``(low, high)``: two numbers, or two arrays of one input's shape
    (a range per feature; equal ends: that feature stays); None leaves it open. ``mask``: which coordinates
    may move, booleans of one input's shape; None: all. ``grid``: x' must lie on the multiples of this step,
    1/n or a power of two (1/255: 8-bit images, so that x' survives being saved); None: anywhere.
    Raises InvalidSetting for anything else.
    """

    norm: float | str
    eps: float | None = None
    bounds: Any = (0.0, 1.0)
    mask: Any = field(default=None, compare=False)
    grid: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", _norm(self.norm))
        if self.eps is not None:
            if not (math.isfinite(self.eps) and self.eps > 0):
                raise InvalidSetting(
                    f"eps {self.eps!r} is not a perturbation size",
                    why="it must be finite and > 0",
                    remedy="give eps > 0, or leave it out to ask for the minimal distance",
                )
            object.__setattr__(self, "eps", float(self.eps))
        object.__setattr__(self, "bounds", read_bounds(self.bounds))
        object.__setattr__(self, "mask", _mask(self.mask))
        if self.grid is not None:
            make_grid(float(self.grid), self.bounds if not self.ranged else None)

    @property
    def p(self) -> float:
        """The norm as a number: 1.0, 2.0 or ``math.inf``."""
        return float(self.norm)

    @property
    def norm_name(self) -> str:
        """The norm as records and file names write it: ``"1"``, ``"2"``, ``"inf"``."""
        return "inf" if math.isinf(self.p) else str(int(self.p))

    @property
    def ranged(self) -> bool:
        """Whether the bounds differ by coordinate."""
        return isinstance(self.bounds, Ranges)

    @property
    def restrictions(self) -> dict[str, Any]:
        """What keeps the attacker from parts of ball and box, as JSON types; {} where nothing does."""
        found: dict[str, Any] = {} if self.grid is None else {"grid": float(self.grid)}
        if self.ranged:
            found["ranges"] = True
        if self.mask is not None:
            found |= {"movable": int(self.mask.sum()), "coordinates": self.mask.numel()}
        return found

    @property
    def box(self) -> tuple[Any, Any]:
        """``bounds`` with an open range written as (-inf, inf)."""
        return (-math.inf, math.inf) if self.bounds is None else self.bounds


def _mask(mask: Any) -> Tensor | None:
    if mask is None:
        return None
    try:
        found = torch.as_tensor(mask).detach().cpu().clone()
        fine = found.dim() > 0 and bool(((found == 0) | (found == 1)).all()) and bool((found != 0).any())
    except Exception:  # whatever is no array fails with an error of its own
        found, fine = torch.zeros(0), False
    if not fine:
        raise InvalidSetting(
            f"mask {shown(mask)} does not say which coordinates may move",
            why="it holds True (or 1) for each that may, in the shape of one input, for at least one of them",
            remedy="give mask=tensor of booleans, or leave it out: all coordinates may move",
        )
    return found != 0


def _norm(norm: float | str) -> float:
    value = _NORMS.get(norm.strip().lower()) if isinstance(norm, str) else norm
    if value not in (1.0, 2.0, math.inf):
        raise InvalidSetting(
            f"norm {norm!r} is not supported",
            why="attacks exist for the l1, l2 and linf norms",
            remedy='use norm=1, norm=2 or norm="inf"',
        )
    return float(value)
