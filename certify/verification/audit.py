"""Was every input audited as the run says: enough rows evaluated alone, and none that disagreed?

A run that does not speak of an audit, neither in its settings nor in its guarantee, was made before
there was one: nothing is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from certify.records import Record, Status
from certify.store.read import StoredRun

#: Rows per input that an audit has at least, whatever a run says of itself.
LEAST = 8
#: The same where all inputs are the subject of one statement.
LEAST_OF_POPULATION = 1
#: Confidence of the bound on the share of copies that the whole run's audit excludes.
_LEVEL = 1e-3

Found = tuple[str, bool | None, str]


def audit_checks(stored: StoredRun) -> Iterator[Found]:
    """(check, ok, detail), one at most. May raise where types are wrong."""
    plan, counted = stored.settings.get("audit"), stored.settings.get("task") == "population"
    if plan is None and not counted and "evaluated again one at a time" not in stored.guarantee:
        return
    least = LEAST_OF_POPULATION if counted else LEAST
    if not isinstance(plan, Mapping) or not _whole(plan.get("rows"), least):
        yield "audit", False, f"an audit has {least} rows or more, the settings say {plan}"
        return
    records = [record for record in stored.run if record.status is not Status.FAILED]
    faults = [f"input {r.index}: {text}" for r in records if (text := _fault(r, int(plan["rows"])))]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        yield "audit", False, faults[0] + more
        return
    rows = sum(record.details["audit"]["rows"] for record in records)
    share = 1.0 - _LEVEL ** (1.0 / rows) if rows else 1.0
    yield (
        "audit",
        True,
        f"{rows} rows evaluated alone, none counted otherwise: were a share above {share:.2g} of them, alike "
        f"for all inputs, one would have been found with probability {1 - _LEVEL:g}",
    )


def _fault(record: Record, least: int) -> str | None:
    found: Any = record.details.get("audit")
    if not isinstance(found, Mapping):
        return "it was not audited"
    rows, wrong = found.get("rows"), found.get("disagreements")
    if not _whole(rows, min(least, record.samples)):
        return f"{rows} of its {record.samples} rows were evaluated alone, not {least}"
    if not _whole(wrong, 0) or wrong != 0 or int(rows or 0) > record.samples:
        return f"{wrong} of {rows} audited rows disagreed"
    return None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
