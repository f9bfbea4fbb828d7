"""What the attacker may do: a norm, a size, and the box the inputs must stay in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from certify.calls import checked_class
from certify.errors import InvalidSetting

_NORMS = {"1": 1.0, "l1": 1.0, "2": 2.0, "l2": 2.0, "inf": math.inf, "linf": math.inf}


@checked_class
@dataclass(frozen=True)
class Threat:
    """All x' with ``|x' - x|_norm <= eps`` and every coordinate inside ``bounds``.

    ``norm`` is 1, 2 or infinity (``math.inf``, ``"inf"``). ``eps`` is in the unit of
    the inputs; None asks for the smallest perturbation that changes the class.
    ``bounds`` is the declared input range ``(low, high)``; None leaves it open.
    Raises InvalidSetting for anything else.
    """

    norm: float | str
    eps: float | None = None
    bounds: tuple[float, float] | None = (0.0, 1.0)

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
        if self.bounds is not None:
            low, high = (float(b) for b in self.bounds)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InvalidSetting(
                    f"bounds {self.bounds!r} are not an input range",
                    why="low and high must be finite, low below high",
                    remedy="give bounds=(low, high) of the data, or bounds=None for an unbounded input",
                )
            object.__setattr__(self, "bounds", (low, high))

    @property
    def p(self) -> float:
        """The norm as a number: 1.0, 2.0 or ``math.inf``."""
        return float(self.norm)

    @property
    def norm_name(self) -> str:
        """The norm as records and file names write it: ``"1"``, ``"2"``, ``"inf"``."""
        return "inf" if math.isinf(self.p) else str(int(self.p))

    @property
    def box(self) -> tuple[float, float]:
        """``bounds`` with an open range written as (-inf, inf)."""
        return (-math.inf, math.inf) if self.bounds is None else self.bounds


def _norm(norm: float | str) -> float:
    value = _NORMS.get(norm.strip().lower()) if isinstance(norm, str) else norm
    if value not in (1.0, 2.0, math.inf):
        raise InvalidSetting(
            f"norm {norm!r} is not supported",
            why="attacks exist for the l1, l2 and linf norms",
            remedy='use norm=1, norm=2 or norm="inf"',
        )
    return float(value)
