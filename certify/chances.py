"""Probabilities as sentences print them: rounded against the claim, in plain decimals."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

#: Significant digits of what is missing to 1, and of an error probability.
_DIGITS = 6


def at_least(alpha: float) -> str:
    """1 - alpha as a decimal number that is not larger: "0.999" for 0.001, "0.99999" for 1e-5."""
    missing = Context(prec=_DIGITS, rounding=ROUND_CEILING).plus(Decimal(repr(float(alpha))))
    places = max(0, -int(missing.as_tuple().exponent))
    wide = Context(prec=places + 2)
    return f"{wide.subtract(Decimal(1), missing):f}" if places < 20 else f"1 - {at_most(alpha)}"


def at_most(chance: float, digits: int = _DIGITS) -> str:
    """An error probability, or an expected number of errors, rounded up: "0.001", "1e-07"."""
    rounded = Context(prec=digits, rounding=ROUND_CEILING).plus(Decimal(repr(float(chance))))
    return f"{float(rounded):.{digits}g}"


def most_wrong(inputs: int, alpha: float, level: float = 0.01) -> tuple[int, float]:
    """(j, chance): of the certificates of so many inputs more than j are wrong with probability <= chance.

    Each is wrong with probability <= ``alpha``, and the noise of each input is drawn by a key of its own, so
    the wrong ones are at most a binomial number. j is the smallest with chance <= ``level``; chance is
    rounded up. ``inputs`` counts those that were tried, not those that were certified.
    """
    from scipy import special

    j = 0
    while (chance := float(special.bdtrc(j, inputs, alpha)) if j < inputs else 0.0) > level:
        j += 1
    return j, min(1.0, chance * (1 + 1e-9))


def exactly(value: float) -> str:
    """A number that a statement is about, with as many digits as it needs: "0.25", "0.12345678"."""
    text = f"{value:g}"
    return text if float(text) == value else repr(float(value))


def percent(share: float) -> str:
    """A share that a statement is about, in percent and exactly: "0.1 %" for 0.001."""
    return f"{(Decimal(repr(float(share))) * 100).normalize():f} %"


def error_probability(settings: Mapping[str, Any]) -> float:
    """The probability that one certificate of a run is wrong: its alpha, and that of a transfer beside it."""
    carried = settings.get("transfer") or {}
    return float(settings["alpha"]) + float(carried.get("alpha", 0.0))
