"""A polynomial's sign on a whole interval, proved in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

_BITS = 192
_HALVINGS = 48
#: Averages that a proof may take in all, at least 64 halvings: honest weights need a few.
_WORK = 40_000_000


def never_positive(weights: Sequence[float], p: float) -> bool:
    """Whether sum_k c_k C(n, k) q^k (1 - q)^(n - k) <= 0 for every q in [0, p], proved in whole numbers.

    All numbers are multiples of 2**-192; every average is rounded up, so each coefficient is an upper
    bound of the true one, and one polynomial's values are at most the largest of its coefficients. False
    where that takes too many halvings to show.
    """
    one = 1 << _BITS
    row, at = [math.ceil(Fraction(c) * one) for c in weights], math.ceil(Fraction(p) * one)
    restricted = []
    while row:
        restricted.append(row[0])
        row = [-((-(a * (one - at) + b * at)) >> _BITS) for a, b in pairwise(row)]
    open_intervals, slack = [(restricted, 0)], len(weights) * (_HALVINGS + 2)
    left_over = max(64, _WORK // len(weights) ** 2)
    while open_intervals:
        row, depth = open_intervals.pop()
        if max(row) <= 0:
            continue
        # A value at an end is positive, or the polynomial keeps so near to 0 that the proof has no end.
        if row[0] > slack or row[-1] > slack or depth == _HALVINGS or left_over == 0:
            return False
        left, right, left_over = [], [], left_over - 1
        while row:
            left.append(row[0])
            right.append(row[-1])
            row = [(a + b + 1) >> 1 for a, b in pairwise(row)]
        open_intervals += [(left, depth + 1), (right[::-1], depth + 1)]
    return True
