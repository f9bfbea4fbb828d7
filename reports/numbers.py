"""Numbers as the reader sees them: never rounded in the flattering direction.

A certified radius is printed rounded down, the distance of a counterexample rounded up, the
ends of an interval outward. Rounding starts from the shortest decimal that names the float, so
that a radius the user typed as 0.3 is printed as 0.3.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from certify.records import Estimate

DASH = "–"

#: Patterns of the ASCII spellings used in claims and formulas, and what they are printed as.
_SYMBOLS = (
    (r"\bPhi\^-1", "Φ⁻¹"),
    (r"\bPhi\b", "Φ"),
    (r"\bsigma(?=\b|_)", "σ"),
    (r"\blambda(?=\b|_)", "λ"),
    (r"\bdelta\b", "δ"),
    (r"\beps\b", "ε"),
    (r"\bpi\b", "π"),
    (r"\bsqrt ?\((\w)\)", r"√\1"),
    (r"\bsqrt\b ?", "√"),
    (r"\bl2\b", "ℓ₂"),
    (r"\bl1\b", "ℓ₁"),
    (r"\bl_?inf\b", "ℓ∞"),
    (r"\bl_?p\b", "ℓₚ"),
    (r"(?<=\w)\^2\b", "²"),
    (r"<=", "≤"),
    (r">=", "≥"),
    (r"->", "→"),
    (r"(?<=[\w)\]]) - (?=[\w(])", " − "),
)


def radius_down(value: float | None, digits: int = 3) -> str:
    """A certified radius, rounded towards zero."""
    return _fixed(value, digits, ROUND_FLOOR)


def distance_up(value: float | None, digits: int = 3) -> str:
    """The distance of a counterexample: an upper bound on the true distance, rounded up."""
    return _fixed(value, digits, ROUND_CEILING)


def radius_short(value: float | None, digits: int = 3) -> str:
    """A radius of unknown size: significant digits, rounded towards zero."""
    if value is None or not math.isfinite(value):
        return _fixed(value, digits, ROUND_FLOOR)
    rounded = Context(prec=digits, rounding=ROUND_FLOOR).create_decimal(Decimal(repr(float(value))))
    return f"{rounded:f}"


def plain(value: float | None, digits: int = 3) -> str:
    """A quantity with no preferred direction, rounded to nearest."""
    return _fixed(value, digits, ROUND_HALF_EVEN)


def percent(value: float, digits: int = 1) -> str:
    """A share with no preferred direction, rounded to nearest."""
    return _fixed(value, digits, ROUND_HALF_EVEN, scale=100) + "\u00a0%"


def percent_down(value: float, digits: int = 1) -> str:
    return _fixed(value, digits, ROUND_FLOOR, scale=100) + "\u00a0%"


def percent_up(value: float, digits: int = 1) -> str:
    return _fixed(value, digits, ROUND_CEILING, scale=100) + "\u00a0%"


def percent_interval(estimate: Estimate, digits: int = 1) -> str:
    """The interval in percent, its ends rounded outward."""
    low = _fixed(estimate.low, digits, ROUND_FLOOR, scale=100)
    high = _fixed(estimate.high, digits, ROUND_CEILING, scale=100)
    return f"{low}\u00a0–\u00a0{high}\u00a0%"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return _signed(_fixed(value, 1, ROUND_HALF_EVEN, scale=100))


def points_interval(low: float, high: float) -> str:
    """The interval of such a difference, its ends rounded outward."""
    first = _signed(_fixed(low, 1, ROUND_FLOOR, scale=100))
    return f"{first} to {_signed(_fixed(high, 1, ROUND_CEILING, scale=100))}"


def p_value(value: float) -> str:
    """A p-value, rounded up; very small ones as a bound."""
    return "< 0.001" if value < 0.001 else _fixed(value, 3, ROUND_CEILING)


def level(estimate: Estimate) -> str:
    return f"{estimate.level * 100:g}\u00a0%"


def general(value: Any, digits: int = 4) -> str:
    """A number of unknown size: significant digits, infinity as a symbol, text unchanged."""
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return count(value)
    return f"{value:.{digits}g}".replace("-", "−")


def symbols(text: str) -> str:
    """A formula or statement typed in ASCII, with the letters of the field: sigma as σ, l2 as ℓ₂."""
    for pattern, symbol in _SYMBOLS:
        text = re.sub(pattern, symbol, text)
    return text


def radius_over(value: float | None, digits: int = 3) -> str:
    """The upper end of a radius's interval: significant digits, rounded up."""
    if value is None or not math.isfinite(value):
        return _fixed(value, digits, ROUND_CEILING)
    rounded = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(repr(float(value))))
    return f"{rounded:f}"


def count(value: int | float) -> str:
    """An integer with thin spaces between groups of three digits."""
    return f"{int(value):,}".replace(",", "\u202f")


def seconds(value: float) -> str:
    """A duration in the largest unit that keeps it above one."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 90:
        return f"{value:.1f} s"
    if value < 5400:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def _signed(text: str) -> str:
    if text.strip("−0.") == "":
        return text.removeprefix("−")
    return text if text.startswith("−") else f"+{text}"


def _fixed(value: float | None, digits: int, rounding: str, scale: int = 1) -> str:
    if value is None:
        return DASH
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    exact = Decimal(repr(float(value))) * scale
    text = str(exact.quantize(Decimal(1).scaleb(-digits), rounding=rounding))
    if not text.strip("-0."):  # a zero has no sign
        text = text.removeprefix("-")
    return text.replace("-", "−")
