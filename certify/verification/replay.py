"""Do fresh samples agree with the stored counts?

For each replayed record two statements are tested, each with error shares chosen so that an
honest run fails with probability at most ``FALSE_ALARM`` in all: the stored counts confine the
class's probability to an interval (exact binomial bounds at a tiny level, divided among the
looks at which sampling might have stopped), and the fresh counts, whose number was fixed
beforehand, are compatible with some probability in that interval (exact binomial test).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from certify.records import Record
from certify.verification.independent import lower_bound, tail_at_least, tail_at_most, upper_bound
from certify.verification.settings import trials

#: Probability that a replay of an honest run reports a fault.
FALSE_ALARM = 1e-4


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


def _fault(record: Record, fresh: list[int], n: int, level: float) -> str | None:
    label = record.label
    if label is None or not 0 <= label < min(len(record.counts), len(fresh)):
        return f"input {record.index}: the certified class {label} is not among the counted ones"
    k, m, total = record.counts[label], fresh[label], sum(fresh)
    looks = 1 + int(record.details.get("look", 0))
    share = level / 4
    low, high = lower_bound(k, n, share / looks), upper_bound(k, n, share / looks)
    if tail_at_most(m, total, low) < share or tail_at_least(m, total, high) < share:
        return (
            f"input {record.index}: class {label} had {k} of {n} votes, with fresh noise {m} of {total}; "
            f"an honest run shows such a difference with probability below {level:.1g}"
        )
    return None
