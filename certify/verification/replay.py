"""Do fresh samples agree with the stored counts?

For each replayed record two statements are tested, each with error shares chosen so that an
honest run fails with probability at most ``FALSE_ALARM`` in all: the stored counts confine the
class's probability to an interval (exact binomial bounds at a tiny level, divided among the
looks at which sampling might have stopped), and the fresh counts, whose number was fixed
beforehand, are compatible with some probability in that interval (exact binomial test).

For soft scores the same is asked of the share of samples whose score reaches each of a few thresholds,
fixed beforehand. A stored histogram may be that of any look, whichever proved most: the level is divided
among all looks of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from certify.records import Record
from certify.verification.independent import lower_bound, tail_at_least, tail_at_most, upper_bound
from certify.verification.settings import trials

#: Probability that a replay of an honest run reports a fault.
FALSE_ALARM = 1e-4
#: Thresholds at which score histograms are compared.
THRESHOLDS = 15


def consistent(
    records: Sequence[Record], fresh: Mapping[int, Sequence[int]], settings: Mapping[str, Any]
) -> str | None:
    """The first disagreement between stored certificates and fresh class counts, or None.

    Fresh counts may end with the samples that voted for no class (a score that is not a number).
    They are trials like all others, as they are in the run with these ``settings``.
    """
    for record in records:
        if record.index not in fresh:
            return f"input {record.index} was not sampled again"
        level = FALSE_ALARM / len(records)
        if found := _fault(record, list(fresh[record.index]), trials(record, settings), level):
            return found
    return None


def scores_consistent(
    records: Sequence[Record], fresh: Mapping[int, Sequence[int]], settings: Mapping[str, Any]
) -> str | None:
    """The first disagreement between stored and fresh histograms of the certified class's score, or None.

    ``fresh``: by input, samples per bin (bins + 1 whole numbers), bins as in the run.
    """
    bins = int(settings["mode_options"]["bins"])
    for record in records:
        found = list(fresh.get(record.index, ()))
        if len(found) != bins + 1:
            return f"input {record.index} was not sampled again"
        stored = [0] * (bins + 1)
        for place, count in record.details["histogram"]:
            stored[place] = count
        share = FALSE_ALARM / len(records) / THRESHOLDS / 4
        for step in range(1, THRESHOLDS + 1):
            edge = max(1, step * bins // (THRESHOLDS + 1))
            k, m, n, total = sum(stored[edge:]), sum(found[edge:]), sum(stored), sum(found)
            if _apart(k, n, m, total, share, _looks(settings)):
                return (
                    f"input {record.index}: {k} of {n} scores were in bin {edge} or above, with fresh noise "
                    f"{m} of {total}; an honest run shows such a difference with probability below "
                    f"{FALSE_ALARM / len(records):.1g}"
                )
    return None


def _looks(settings: Mapping[str, Any]) -> int:
    """How many looks the plan has: first, then each later by the factor growth, up to n_max."""
    options = settings["mode_options"]
    if "growth" not in options:
        return 1
    last, growth = int(options["n_max"]), float(options["growth"])
    n, looks = min(int(options["first"]), last), 1
    while n < last:
        n, looks = min(last, max(n + 1, math.ceil(n * growth))), looks + 1
    return looks


def _apart(k: int, n: int, m: int, total: int, share: float, looks: int) -> bool:
    """Whether no probability explains k of n at one of ``looks`` looks and m of ``total`` fresh samples."""
    low, high = lower_bound(k, n, share / looks), upper_bound(k, n, share / looks)
    return tail_at_most(m, total, low) < share or tail_at_least(m, total, high) < share


def _fault(record: Record, fresh: list[int], n: int, level: float) -> str | None:
    label = record.label
    if label is None or not 0 <= label < min(len(record.counts), len(fresh)):
        return f"input {record.index}: the certified class {label} is not among the counted ones"
    k, m, total = record.counts[label], fresh[label], sum(fresh)
    looks = 1 + int(record.details.get("look", 0))
    share = level / 4
    if _apart(k, n, m, total, share, looks):
        return (
            f"input {record.index}: class {label} had {k} of {n} votes, with fresh noise {m} of {total}; "
            f"an honest run shows such a difference with probability below {level:.1g}"
        )
    return None
