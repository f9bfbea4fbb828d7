"""Level 2: every bound and radius again, from the stored counts and the stored boundaries.

Fixed mode: the binomial tail at the stored bound must equal alpha. Sequential modes: the stored
count must have reached the stored boundary at a stored look, and the boundaries must have an
error probability of at most alpha, by a dynamic programme of the verifier's own. Radii must
follow from the bounds through the normal law. All arithmetic is that of ``certify.verification.independent``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from certify.records import Record, Status
from certify.store.read import StoredRun
from certify.verification.audit import audit_checks
from certify.verification.ball import between_of, reach_of
from certify.verification.carried import carried_fault, source_of
from certify.verification.dense import dense_checks
from certify.verification.independent import lower_bound, tail_at_least, upper_bound
from certify.verification.plan import Plan, PlanFault
from certify.verification.randomised import between_counts
from certify.verification.rivals import one_sided_fault, share_of, upper_fault
from certify.verification.settings import record_fault, settings_faults, trials
from certify.verification.soft import distribution_fault, soft_fault
from certify.verification.witness import PLAN

#: Agreement asked of two ways to compute the same number.
CLOSE = 1e-9

#: What arithmetic on a run of wrong types or impossible sizes may raise.
_IMPOSSIBLE = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)

_SOFT = {"soft": soft_fault, "distribution": distribution_fault}

Found = tuple[str, bool | None, str]


def recompute(stored: StoredRun) -> Iterator[Found]:
    """(check, ok, detail) for the run's settings, bounds, radii and statuses. Raises nothing.

    ``ok`` is None for what cannot be recomputed by anybody.
    """
    try:
        yield from _recomputed(stored)
    except _IMPOSSIBLE as cause:
        yield "bounds", False, f"the run cannot be recomputed: {cause!r}"


def _recomputed(stored: StoredRun) -> Iterator[Found]:
    settings = stored.settings
    mode = settings.get("mode")
    scores = settings.get("scores", "votes")
    records = [r for r in stored.run if r.status is not Status.FAILED]
    if mode == "imported":
        yield (
            "bounds",
            None,
            (
                "an imported log holds radii without the votes behind them: nothing can be recomputed; "
                "certify the model itself with `certify radius --model`"
            ),
        )
        return
    yield _terms(stored)
    yield from audit_checks(stored)
    if settings.get("task") == "segmentation":
        yield from dense_checks(stored)
        return
    if settings.get("task") == "population":
        from certify.verification.population import population_checks  # plans again by scipy

        yield from population_checks(stored)
        return
    yield _all("records hold together", list(stored.run), lambda r: record_fault(r, settings))
    if "transfer" in settings:
        yield _all("carried over", records, lambda r: carried_fault(r, settings))
        records = [source_of(r, settings) for r in records]  # what follows is about what was carried over
        yield _all("sources hold together", records, lambda r: record_fault(r, settings))
    if scores in _SOFT:
        yield _all("bounds", records, lambda r: _SOFT[scores](r, settings))
        if scores == "soft":
            yield _all("radii", records, lambda r: _radius_fault(r, settings))
        return
    if mode not in ("fixed", "decide", "grid", "radius") or scores != "votes":
        yield "bounds", False, f"mode {mode!r} with {scores!r} scores has no second arithmetic"
        return
    plan = None
    if mode != "fixed":
        try:
            plan = Plan.of(stored.documents.get(PLAN), settings)
            plan.check_error(records)
        except (PlanFault, *_IMPOSSIBLE) as fault:
            yield "boundaries", False, str(fault)
            return
        yield "boundaries", True, f"wrong with probability at most {plan.error:.6g} <= alpha"
    yield _all("outcomes", records, lambda r: _outcome_fault(r, settings))
    if plan is None:
        yield _all("bounds", records, lambda r: _fixed_fault(r, settings))
    else:
        yield _all("bounds", records, plan.fault)
    yield _all("intervals", records, lambda r: _interval_fault(r, settings))
    yield _all("radii", records, lambda r: _radius_fault(r, settings))


def _terms(stored: StoredRun) -> Found:
    """Whether the settings and the guarantee agree with themselves and each other."""
    try:
        found = list(settings_faults(stored.settings, stored.guarantee))
    except _IMPOSSIBLE as cause:
        found = [f"they cannot be read: {cause!r}"]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return "settings", not found, found[0] + more if found else "agree with themselves and the guarantee"


def _all(name: str, records: list[Record], fault) -> Found:
    found = [f"input {r.index}: {text}" for r in records if (text := _guarded(fault, r))]
    if not found:
        return name, True, f"{len(records)} recomputed"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return name, False, found[0] + more


def _guarded(fault, record: Record) -> str | None:
    try:
        return fault(record)
    except _IMPOSSIBLE as cause:
        return f"the record cannot be recomputed: {cause!r}"


def _outcome_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """What no procedure can have produced."""
    options, n = settings["mode_options"], trials(r, settings)
    if len(r.counts) != settings["num_classes"] or sum(r.counts) > n:
        return f"{len(r.counts)} counts with sum {sum(r.counts)} do not come from {n} samples"
    if r.certified and (r.label is None or not 0 <= r.label < len(r.counts)):
        return f"the certified class {r.label} is not among the counted ones"
    if settings["mode"] != "fixed":
        return None
    if r.samples != options["n0"] + options["n"]:
        return f"{r.samples} samples were paid for, not {options['n0']} + {options['n']}"
    selection = list(r.details.get("selection_counts", ()))
    if len(selection) != len(r.counts) or sum(selection) > options["n0"]:
        return "its selection counts are missing or impossible"
    if r.certified and selection[r.label or 0] < max(selection):
        return f"class {r.label} was not the one selected"
    return None


def _fixed_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """p_lower is where the tail of the counts equals alpha, less the noise's own error."""
    options = settings["mode_options"]
    label = r.label if r.certified else r.details.get("selected")
    if not isinstance(label, int) or not 0 <= label < len(r.counts):
        return f"the selected class {label} is not among the counted ones"
    share = share_of(settings)
    k, n, alpha, tv = (
        r.counts[label],
        int(options["n"]),
        float(options["alpha"]) * (1 - share),
        float(options.get("tv", 0.0)),
    )
    try:
        u = between_counts(r, settings, alpha)
    except ValueError as fault:
        return str(fault)
    expected = max(0.0, lower_bound(k, n, alpha, u) - tv)
    if abs(r.p_lower - expected) > CLOSE or (
        r.p_lower > 0 and tail_at_least(k, n, r.p_lower + tv, u) > alpha * (1 + CLOSE)
    ):
        return f"p_lower is {r.p_lower:.9g}, {k} of {n} votes at alpha = {alpha:g} prove {expected:.9g}"
    if share and (fault := upper_fault(r, label, n, float(options["alpha"]) * share, tv)):
        return fault
    if r.certified != (r.p_lower > (r.pb_upper if share else 0.5)):
        return f"{r.status} with p_lower = {r.p_lower:.9g}"
    return None


def _interval_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """The descriptive ends, and the bound on all other classes."""
    n, alpha = trials(r, settings), float(settings["alpha"])
    leader = r.label if r.certified else _leader(r, settings)
    if leader is None or not 0 <= leader < len(r.counts):
        return f"class {leader} is not among the counted ones"
    others = max((k for c, k in enumerate(r.counts) if c != leader), default=0)
    upper = max(upper_bound(r.counts[leader], n, alpha), r.p_lower)
    if abs(r.p_upper - upper) > CLOSE:
        return f"p_upper is {r.p_upper:.9g}, the counts give {upper:.9g}"
    if abs(r.pb_lower - lower_bound(others, n, alpha)) > CLOSE:
        return f"pb_lower is {r.pb_lower:.9g}, the counts give {lower_bound(others, n, alpha):.9g}"
    if share_of(settings):
        return None  # what bounds the others is recomputed with the bounds
    if abs(r.pb_upper - (1.0 - r.p_lower)) > CLOSE or r.pb_upper + r.p_lower < 1.0:
        return f"pb_upper is {r.pb_upper:.9g}, p_lower leaves {1 - r.p_lower:.9g}"
    return None


def _leader(r: Record, settings: Mapping[str, Any]) -> int:
    if settings["mode"] == "fixed":
        return int(r.details["selected"])
    return max(range(len(r.counts)), key=lambda c: (r.counts[c], -c))


def _radius_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """The radii follow from the bounds: the certificate is proved by p_lower, and is no other number."""
    reach = reach_of(settings)
    if reach is None:
        return f"no theorem is known for {settings.get('noise')!r} noise in norm {settings.get('norm')!r}"
    share, both = share_of(settings), between_of(settings)
    assert both is not None
    upper = both(r.p_upper, r.pb_lower) if share else reach(r.p_upper)
    if r.radius_upper != upper and abs(r.radius_upper - upper) > CLOSE * max(1.0, upper):
        return f"radius_upper is {r.radius_upper:.9g}, p_upper = {r.p_upper:.9g} gives {upper:.9g}"
    proved, tested = reach(r.p_lower), settings["mode"] in ("decide", "grid")
    if share and (fault := one_sided_fault(r, proved, tested=tested)):
        return fault
    if not r.certified:
        return None
    least = r.pb_upper if share else 0.5
    proved = both(r.p_lower, r.pb_upper) if share else proved
    if r.radius > proved * (1 + 1e-12) or (r.radius > 0 and r.p_lower <= least):
        return f"radius {r.radius:.9g} needs more than p_lower = {r.p_lower:.9g}, which proves {proved:.9g}"
    if not tested and abs(r.radius - proved) > CLOSE * max(1.0, proved):
        return f"radius is {r.radius:.9g}, p_lower = {r.p_lower:.9g} gives {proved:.9g}"
    return None
