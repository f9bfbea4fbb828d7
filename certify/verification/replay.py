"""Do fresh samples agree with the stored counts?

For each replayed record the stored count of every class confines that class's probability to an interval
(exact binomial bounds at a tiny level), and the fresh count, of a number of samples fixed beforehand,
must be compatible with some probability in it (exact binomial test). Honest counts are those of
Bin(n, p) at each look, but sampling stops at a look that depends on them; and which records are
replayed depends on what was certified. So the level of one test is ``FALSE_ALARM`` divided among all
records of the run, all looks of its plan and all classes: by the union bound an honest run is called
faulty with probability at most ``FALSE_ALARM``, wherever its inputs stopped and whatever is picked.
How many looks there are is read from the plan, never from a record.

For soft scores the same is asked of the share of samples whose score reaches each of a few thresholds,
fixed beforehand. A stored histogram may be that of any look, whichever proved most.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from certify.records import Record
from certify.verification.independent import lower_bound, tail_at_least, tail_at_most, upper_bound
from certify.verification.settings import trials

#: Probability that a replay of an honest run reports a fault.
FALSE_ALARM = 1e-4
#: Thresholds at which score histograms are compared.
THRESHOLDS = 15


def consistent(
    records: Sequence[Record],
    fresh: Mapping[int, Sequence[int]],
    settings: Mapping[str, Any],
    *,
    looks: int = 1,
    inputs: int | None = None,
) -> str | None:
    """The first disagreement between stored certificates and fresh class counts, or None.

    Fresh counts may end with the samples that voted for no class (a score that is not a number).
    They are trials like all others, as they are in the run with these ``settings``. ``looks``: how many
    the run's plan has; ``inputs``: of how many records these were picked (default: of no others).
    """
    level = FALSE_ALARM / max(len(records), inputs or 0)
    for record in records:
        if record.index not in fresh:
            return f"input {record.index} was not sampled again"
        if found := _fault(record, list(fresh[record.index]), trials(record, settings), level, looks):
            return found
    return None


def scores_consistent(
    records: Sequence[Record],
    fresh: Mapping[int, Sequence[int]],
    settings: Mapping[str, Any],
    *,
    looks: int = 1,
    inputs: int | None = None,
) -> str | None:
    """The first disagreement between stored and fresh histograms of the certified class's score, or None.

    ``fresh``: by input, samples per bin (bins + 1 whole numbers), bins as in the run. Others as in
    ``consistent``.
    """
    bins = int(settings["mode_options"]["bins"])
    level = FALSE_ALARM / max(len(records), inputs or 0)
    for record in records:
        found = list(fresh.get(record.index, ()))
        if len(found) != bins + 1:
            return f"input {record.index} was not sampled again"
        stored = [0] * (bins + 1)
        for place, count in record.details["histogram"]:
            stored[place] = count
        share = level / THRESHOLDS / 4
        for step in range(1, THRESHOLDS + 1):
            edge = max(1, step * bins // (THRESHOLDS + 1))
            k, m, n, total = sum(stored[edge:]), sum(found[edge:]), sum(stored), sum(found)
            if _apart(k, n, m, total, share, looks):
                return (
                    f"input {record.index}: {k} of {n} scores were in bin {edge} or above, with fresh noise "
                    f"{m} of {total}; {_improbable()}"
                )
    return None


def counts_consistent(
    records: Sequence[Record], fresh: Mapping[int, Sequence[int]], *, inputs: int
) -> str | None:
    """The first disagreement between the counts of a population run and fresh class counts, or None.

    Input by input as in ``consistent``, at half of the level; at the other half all inputs together: the sum
    of the differences between stored and fresh shares of the true class (Hoeffding's inequality), which
    sees a few forged inputs less well than many, and small forgeries of many at all.
    """
    total, spread = 0.0, 0.0
    for record in records:
        if record.index not in fresh or record.target is None:
            return f"input {record.index} was not sampled again"
        votes = list(fresh[record.index])
        about_truth = replace(record, label=record.target)
        if found := _fault(about_truth, votes, record.samples, FALSE_ALARM / 2 / inputs, 1):
            return found
        total += record.counts[record.target] / record.samples - votes[record.target] / sum(votes)
        spread += 1 / record.samples + 1 / sum(votes)
    if total**2 >= math.log(4 / FALSE_ALARM) * spread / 2:
        return (
            f"{len(records)} inputs had their true class {total:+.3g} times more often (as shares of their "
            f"copies, summed) than with fresh noise; {_improbable()}"
        )
    return None


def _fault(record: Record, fresh: list[int], n: int, level: float, looks: int) -> str | None:
    """Half of the level goes to the certified class, the other half to all others and to no class."""
    label, counts = record.label, list(record.counts)
    if label is None or not 0 <= label < min(len(counts), len(fresh)) or len(fresh) < len(counts):
        return f"input {record.index}: the certified class {label} is not among the counted ones"
    counts.append(n - sum(counts))
    total = sum(fresh)
    for c, (k, m) in enumerate(zip(counts, fresh, strict=False)):
        share = level / 8 if c == label else level / 8 / len(counts)
        if _apart(k, n, m, total, share, looks):
            whose = f"class {c}" if c < len(record.counts) else "no class"
            told = f"{whose} had {k} of {n} votes, with fresh noise {m} of {total}"
            return f"input {record.index}: {told}; {_improbable()}"
    return None


@functools.lru_cache(maxsize=1 << 14)
def _apart(k: int, n: int, m: int, total: int, share: float, looks: int) -> bool:
    """Whether no probability explains k of n at one of ``looks`` looks and m of ``total`` fresh samples."""
    low, high = lower_bound(k, n, share / looks), upper_bound(k, n, share / looks)
    return tail_at_most(m, total, low) < share or tail_at_least(m, total, high) < share


def _improbable() -> str:
    return f"an honest run shows such a difference anywhere with probability below {FALSE_ALARM:.1g}"
