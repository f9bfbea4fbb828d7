"""The integer grid the inputs lie on, and the one float image of every grid point.

A grid is all multiples of a step that is 1/n (8-bit images: 1/255) or a power of two. A point
is its integer i; its float image is float32(i) / float32(n), one correctly rounded operation on
exact operands, so it depends on i alone and differs for different i (|i| <= 2**22 < 2**24). For
8-bit images it equals the usual float image of the pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from certify.errors import InvalidInput, InvalidSetting

#: Integers up to here are exact in float32, and their quotients by n stay distinct.
MAX_INTEGER = 1 << 22
#: The finest step 1/n.
MAX_DIVISOR = 1 << 16


@dataclass(frozen=True)
class Grid:
    """Multiples of ``step``; ``low``/``high`` the declared range as integers (None: unbounded)."""

    step: Fraction
    low: int | None
    high: int | None

    @cached_property
    def divisor(self) -> float:
        """Integer / divisor is the float image; both are exact in float32."""
        return float(1 / self.step)

    @property
    def largest(self) -> int:
        """Largest magnitude an input may have, in steps."""
        if self.low is None or self.high is None:
            return MAX_INTEGER // 2
        return max(abs(self.low), abs(self.high))

    def integers(self, x: Tensor) -> Tensor:
        """The grid integers of ``x``, int32. Raises InvalidInput where ``x`` is off the grid.

        A value belongs to a grid point when it is within 2**-20 of its own size of it: a few
        float32 roundings, such as pixel * (1/255) makes, and at most 1/64 of a step.
        """
        exact = x.detach().double() * self.divisor
        nearest = exact.round()
        self._check_range(nearest)
        off = (exact - nearest).abs() > (2.0**-20 * nearest.abs()).clamp(2.0**-20, 2.0**-6)
        if bool(off.any()):
            worst = x.flatten()[off.flatten().long().argmax()].item()
            raise InvalidInput(
                f"an input is not on the grid: {worst!r} is no multiple of {self.step}",
                why="lattice noise is proved for inputs on the declared grid only",
                remedy="round the inputs with Smoothed.to_grid, declare the grid they lie on, "
                "or use noise='gaussian' (a certificate in exact arithmetic only)",
            )
        return nearest.to(torch.int32)

    def snap(self, x: Tensor) -> Tensor:
        """The nearest grid point inside the range, as its float32 image."""
        nearest = (x.detach().double() * self.divisor).round()
        if self.low is not None and self.high is not None:
            nearest = nearest.clamp(self.low, self.high)
        self._check_range(nearest)
        return self.image(nearest)

    def image(self, integers: Tensor) -> Tensor:
        """The float32 image of grid integers."""
        # A tensor, not a Python number: torch replaces division by a number with a
        # multiplication by its reciprocal on CUDA, which rounds differently.
        divisor = torch.full((1,), self.divisor, dtype=torch.float32, device=integers.device)
        return integers.to(torch.float32) / divisor

    def _check_range(self, nearest: Tensor) -> None:
        low = -self.largest if self.low is None else self.low
        high = self.largest if self.high is None else self.high
        inside = (nearest >= low) & (nearest <= high)  # False for NaN
        if not bool(inside.all()):
            raise InvalidInput(
                "an input is not finite, or outside the range of the grid",
                why=f"the grid holds multiples of {self.step} from {float(low * self.step):g} "
                f"to {float(high * self.step):g}",
                remedy="check the scaling of the inputs (8-bit images: / 255), or declare their range",
            )


def make_grid(step: float, bounds: tuple[float, float] | None) -> Grid:
    """The grid of a declared step and input range. Raises InvalidSetting."""
    exact = _exact_step(step)
    if bounds is None:
        return Grid(exact, None, None)
    slack = 2.0**-20  # the range of an 8-bit image may be declared as float32 numbers
    edges = bounds[0] / float(exact) - slack, bounds[1] / float(exact) + slack
    low, high = (math.ceil(edges[0]), math.floor(edges[1])) if all(map(math.isfinite, edges)) else (1, 0)
    if low > high or max(abs(low), abs(high)) > MAX_INTEGER // 2:
        raise InvalidSetting(
            f"the grid of step {exact} has no use in the range {bounds}",
            why=f"the range must hold grid points, at most {MAX_INTEGER // 2} steps from zero",
            remedy="declare a coarser grid, or the true range of the inputs",
        )
    return Grid(exact, low, high)


def _exact_step(step: float) -> Fraction:
    if isinstance(step, (int, float)) and math.isfinite(step) and step > 0:
        n = round(1 / step) if step <= 1 else 0
        if 1 <= n <= MAX_DIVISOR and abs(1 / n - step) <= 2.0**-22 * step:
            return Fraction(1, n)
        mantissa, exponent = math.frexp(step)
        if mantissa == 0.5 and -40 <= exponent <= 40:
            return Fraction(2) ** (exponent - 1)
    raise InvalidSetting(
        f"grid = {step!r} is not the step of a grid",
        why="exact sums need a step of 1/n (n whole, up to 65536) or a power of two",
        remedy=_normalised(step)
        or "use 1/255 for 8-bit images, or a power of two such as 2**-10 and round the inputs to it",
    )


def _normalised(step: object) -> str:
    """What to do where ``step`` is that of 8-bit images divided by a standard deviation; "" elsewhere."""
    if not isinstance(step, (int, float)) or not 0 < step <= 0.1:
        return ""
    std = 1 / (255 * float(step))
    if abs(std - 0.5) < 1e-3:
        how = "images in [-1, 1]: keep them in [0, 1] (grid=1/255) and certify.wrap(model, mean=0.5, std=0.5)"
    elif 0.05 < std < 1:
        how = (
            f"8-bit images divided by {std:.4g}: keep them in [0, 1] (grid=1/255) and normalise inside the "
            f"model, certify.wrap(model, mean=..., std={std:.4g})"
        )
    else:
        return ""
    return f"this looks like {how}; sigma and radii are then in units of [0, 1], too"
