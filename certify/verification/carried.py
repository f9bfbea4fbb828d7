"""Level 2 for certificates that were carried over to other numerics (``certify.transfer``).

A transferred record says what was certified before ("source"), on how many of the noisy copies the two
models differed, and the bound q on that share. The source must follow from its counts like any other
record. The carried bounds must be the source's, each moved by q to the safe side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from certify.records import Record, Status
from certify.verification.ball import between_of, reach_of
from certify.verification.independent import tail_at_most, upper_bound
from certify.verification.rivals import share_of

CLOSE = 1e-9
_NUMBERS = ("radius", "p_lower", "p_upper", "pb_lower", "pb_upper")
_ONE_SIDED = "one_sided"


def source_of(r: Record, settings: Mapping[str, Any]) -> Record:
    """The record before it was carried over; itself where nothing had been certified."""
    before = r.details.get("source")
    reach = reach_of(settings)
    if before is None or reach is None:
        return r
    numbers = {name: float(before[name]) for name in _NUMBERS}
    upper = _reach(settings)(numbers["p_upper"], numbers["pb_lower"])
    details = {k: v for k, v in r.details.items() if k not in ("source", "flips", "flip_bound")}
    details |= {_ONE_SIDED: before[_ONE_SIDED]} if share_of(settings) else {}
    return replace(
        r, status=Status.CERTIFIED, label=before["label"], radius_upper=upper, details=details, **numbers
    )


def carried_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """Why the record does not follow from its source and the flips, or None."""
    reach = reach_of(settings)
    if "source" not in r.details:
        return "it is certified, and does not say what was carried over" if r.certified else None
    if reach is None:
        return f"no theorem is known for {settings.get('noise')!r} noise in norm {settings.get('norm')!r}"
    before, said = source_of(r, settings), settings["transfer"]
    flips, n, alpha = r.details["flips"], int(said["samples"]), float(said["alpha"])
    q, tv = float(r.details["flip_bound"]), float(settings["mode_options"].get("tv", 0.0))
    if not isinstance(flips, int) or not 0 <= flips <= n:
        return f"{flips} flips do not come from {n} samples"
    expected = upper_bound(flips, n, alpha) + tv
    if abs(q - expected) > CLOSE or tail_at_most(flips, n, q - tv) > alpha * (1 + 1e-6):
        return f"the flips are bounded by {q:.9g}, {flips} of {n} at alpha = {alpha:g} give {expected:.9g}"
    moved = {
        "p_lower": max(0.0, before.p_lower - q),
        "p_upper": min(1.0, before.p_upper + q),
        "pb_lower": max(0.0, before.pb_lower - q),
        "pb_upper": min(1.0, 1.0 - max(0.0, before.p_lower - q)),
    }
    if share_of(settings):
        moved["pb_upper"] = min(moved["pb_upper"], before.pb_upper + q)
        if fault := _one_sided_fault(r, before, reach):
            return fault
    for name, value in moved.items():
        if abs(getattr(r, name) - value) > CLOSE:
            return f"{name} is {getattr(r, name):.9g}, {q:.9g} from the source's it is {value:.9g}"
    upper = _reach(settings)(r.p_upper, r.pb_lower)
    if r.radius_upper != upper and abs(r.radius_upper - upper) > CLOSE * max(1.0, upper):
        return f"radius_upper is {r.radius_upper:.9g}, p_upper = {r.p_upper:.9g} gives {upper:.9g}"
    proved = min(before.radius, _reach(settings)(r.p_lower, r.pb_upper))
    if r.certified != (proved > 0):
        return f"{r.status}, and p_lower = {r.p_lower:.9g} proves {proved:.9g}"
    if r.certified and (r.label != before.label or abs(r.radius - proved) > CLOSE * max(1.0, proved)):
        return f"class {r.label} at radius {r.radius:.9g}, carried over were {before.label} and {proved:.9g}"
    return None


def _reach(settings: Mapping[str, Any]) -> Callable[[float, float], float]:
    """(p, q) -> radius as the run reads its bounds: q counts where the runner-up was bounded, too."""
    alone, both = reach_of(settings), between_of(settings)
    assert alone is not None
    assert both is not None
    return both if share_of(settings) else lambda p, q: alone(p)


def _one_sided_fault(r: Record, before: Record, reach: Callable[[float], float]) -> str | None:
    said, proved = r.details.get(_ONE_SIDED), min(before.details[_ONE_SIDED], reach(r.p_lower))
    if isinstance(said, int | float) and abs(said - proved) <= CLOSE * max(1.0, proved):
        return None
    return f"its radius without the runner-up is {said!r}, carried over was {proved:.9g}"
