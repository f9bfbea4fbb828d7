"""Level 2 for randomised bounds: the input's own number again, from the seed of the run.

A lower bound p for k of n votes leaves P(Bin(n, p) > k) + u P(Bin(n, p) = k) at alpha. u is uniform, drawn
from seed and id, and never below the root of alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from hashlib import new
from typing import Any

from certify.records import Record


def between_counts(record: Record, settings: Mapping[str, Any], alpha: float) -> float:
    """The share of the probability of the count itself that counts; 1 where nothing is randomised.

    Raises ValueError where the record's number is not the one that belongs to its seed and id.
    """
    said, asked = record.details.get("uniform"), settings["mode_options"].get("randomised", False)
    if asked not in (True, False):
        raise ValueError(f"randomised is {asked!r}")
    if not asked:
        if said is not None:
            raise ValueError("it holds a random number, and its run's bounds are not randomised")
        return 1.0
    text = f"certify: randomised bound, seed {int(settings['seed'])}, input {int(record.index)}"
    digest = new("sha256", text.encode()).hexdigest()
    drawn = float(Fraction(int(digest[:16], 16) // 2**11 + 1, 2**53))
    if said != drawn:
        raise ValueError(f"its random number is {said!r}, seed and id give {drawn!r}")
    return max(drawn, math.sqrt(alpha))
