"""The tables of a report as plain rows: what HTML, LaTeX and the model card all print."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy import special

from certify.radii import RADII
from certify.records import Estimate, Record, Run, Status, median_distance
from certify.store.logs import printed_radius
from reports.attack_groups import AttackGroup
from reports.evidence import LEVEL, VERDICTS, Evidence
from reports.numbers import distance_up, radius_down


@dataclass(frozen=True)
class AccuracyRow:
    """One radius: what was proved, what is left after the attacks, and the verdicts.

    ``confronted``: what was proved of the attacked inputs alone, where not all were attacked.
    """

    radius: float
    proved: Estimate
    confronted: Estimate | None
    attacked: Estimate | None
    verdict: Mapping[str, int]


@dataclass(frozen=True)
class FormulaRow:
    """One radius formula over all certified inputs; medians of its value and interval ends."""

    name: str
    title: str
    expression: str
    claim: str
    reference: str
    sound: bool
    radius: float
    low: float
    high: float
    violations: int
    checked: int


def accuracy_rows(evidence: Evidence) -> list[AccuracyRow]:
    """The certified-accuracy table at the run's round radii."""
    radii = evidence.radii
    reach = evidence.attack_reach(smoothed=True)
    attacked = evidence.attacked_accuracy(radii, smoothed=True)
    same = evidence.confronted.certified_accuracy(radii) if evidence.confronted is not evidence else None
    rows = []
    for i, proved in enumerate(evidence.certified_accuracy(radii)):
        known = attacked[i] if attacked and radii[i] <= reach else None
        shared = same[i] if same and known else None
        rows.append(AccuracyRow(radii[i], proved, shared, known, evidence.verdict(radii[i])))
    return rows


def verdict_kinds(evidence: Evidence) -> list[str]:
    """The verdicts that a page has to name: of the two open ones those that some input has."""
    tallies = [evidence.verdict(radius) for radius in {*evidence.radii, evidence.headline_radius}]
    open_kinds = ("inconclusive", "not attacked")
    return [kind for kind in VERDICTS if kind not in open_kinds or any(t[kind] for t in tallies)]


def formula_rows(evidence: Evidence) -> list[FormulaRow]:
    """Every formula of ``certify.radii`` on every certified input; empty if none is certified.

    A violation is a confirmed attack on the smoothed classifier within the formula's smallest
    value over the intervals of pA and pB: sampling error cannot explain it away.
    """
    tables = evidence.formulas
    found = [(p, tables[p.record.index]) for p in evidence.points if p.record.index in tables]
    if not found:
        return []
    rows = []
    for name, formula in RADII.items():
        values = [table[name] for _, table in found]
        met = [(p.distance, table[name]["low"]) for p, table in found if p.distance is not None]
        rows.append(
            FormulaRow(
                name=name,
                title=formula.title,
                expression=formula.expression,
                claim=formula.claim,
                reference=formula.reference,
                sound=formula.sound,
                radius=statistics.median(v["radius"] for v in values),
                low=statistics.median(v["low"] for v in values),
                high=statistics.median(v["high"] for v in values),
                violations=sum(distance <= radius for distance, radius in met),
                checked=len(met),
            )
        )
    return rows


def refutation(evidence: Evidence, name: str = "as_printed") -> dict[str, Any] | None:
    """The input that refutes formula ``name`` best, with all formulas' values on it.

    A confirmed attack inside the claimed radius if there is one (the largest ratio wins), else
    the half-space with the same class probability, whose true radius is sigma Phi^-1(pA).
    """
    attacked, linear = [], []
    for p in evidence.points:
        table = evidence.formulas.get(p.record.index)
        if table is None:
            continue
        claimed = table[name]["low"]
        if p.attack is not None and p.distance and claimed >= p.distance:
            attacked.append((claimed / p.distance, p, table))
        total = sum(p.record.counts)
        p_a = max(p.record.counts) / total if total else p.record.p_lower
        true_radius = evidence.sigma * float(special.ndtri(p_a))
        if 0 < true_radius < claimed and math.isfinite(true_radius):
            linear.append((claimed / true_radius, p, table, true_radius, p_a))
    if attacked:
        _, p, table = max(attacked, key=lambda row: row[0])
        return {
            "kind": "attack",
            "index": p.record.index,
            "claimed": table[name]["low"],
            "distance": p.distance,
            "before": evidence.class_name(p.record.label),
            "after": evidence.class_name((p.attack or {}).get("prediction")),
            "table": table,
        }
    if linear:
        _, p, table, distance, p_a = max(linear, key=lambda row: row[0])
        return {
            "kind": "half-space",
            "index": p.record.index,
            "claimed": table[name]["low"],
            "distance": distance,
            "p": p_a,
            "table": table,
        }
    return None


@dataclass(frozen=True)
class ClassRow:
    """One true class: how its inputs fared."""

    name: str
    inputs: int
    at_zero: Estimate
    at_headline: Estimate
    mean_radius: float
    abstained: int
    broken: int


def class_rows(evidence: Evidence) -> list[ClassRow]:
    """Certified accuracy per true class; empty without labels or with more than 50 classes."""
    classes = sorted({r.target for r in evidence.run if r.target is not None})
    if not evidence.labelled or len(classes) > 50:
        return []
    broken = evidence.nearest(smoothed=True)
    rows = []
    for label in classes:
        own = Run([r for r in evidence.run if r.target == label], evidence.settings, "")
        zero, headline = own.accuracy([0.0, evidence.headline_radius], level=LEVEL)
        rows.append(
            ClassRow(
                name=evidence.class_name(label),
                inputs=len(own),
                at_zero=zero,
                at_headline=headline,
                mean_radius=own.mean_radius(),
                abstained=sum(r.status is Status.ABSTAINED for r in own),
                broken=sum(r.index in broken for r in own),
            )
        )
    return rows


def input_rows(evidence: Evidence) -> list[list[Any]]:
    """One row per input for the page's table, in the order of ``INPUT_COLUMNS``."""
    verdicts = evidence.verdicts(evidence.headline_radius)
    rows = []
    for p, alone, verdict in zip(evidence.points, evidence.run.one_sided(), verdicts, strict=True):
        r = p.record
        rows.append(
            [
                r.index,
                evidence.class_name(r.target),
                evidence.class_name(r.label) if r.certified else "–",
                str(r.status),
                _shown_radius(evidence, r) if r.certified else None,
                *([float(radius_down(alone, 4)) if r.certified else None] if evidence.two_sided else []),
                None if p.distance is None else float(distance_up(p.distance, 4)),
                float(radius_down(r.p_lower, 5)) if r.certified else None,
                r.samples,
                evidence.say.verdict(verdict),
            ]
        )
    return rows


def _shown_radius(evidence: Evidence, record: Record) -> float:
    """Rounded down; what a log prints is rounded already and stands as it is."""
    printed = printed_radius(record) if evidence.imported else None
    return float(printed) if printed is not None else float(radius_down(record.radius, 4))


def input_columns(evidence: Evidence) -> list[tuple[str, str]]:
    """``INPUT_COLUMNS`` in the words of this run."""
    word = evidence.say.certified.capitalize()
    found = [(name.replace("Certified", word), kind) for name, kind in INPUT_COLUMNS]
    if evidence.two_sided:
        found.insert(5, ("One-sided radius", "n"))
    return found


#: Heading and kind ("n" for numbers) of each column of ``input_rows``.
INPUT_COLUMNS = (
    ("Input", "n"),
    ("True class", ""),
    ("Certified class", ""),
    ("Status", ""),
    ("Certified radius", "n"),
    ("Attack distance", "n"),
    ("pA at least", "n"),
    ("Samples", "n"),
    ("Verdict", ""),
)


def attack_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """One row per attack: what it met, what it broke, what survived, what it cost."""
    return [_attack_row(g) for g in evidence.groups]


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger with all its measurements."""

    name: str
    statement: str
    reference: str
    rows: tuple[Mapping[str, Any], ...]


def ledger_claims(evidence: Evidence) -> list[Claim]:
    """The stored ledger, its rows gathered by claim in their stored order.

    The reference is that of the claim, or "" where its rows have references of their own.
    """
    document = evidence.documents.get("ledger") or {}
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in document.get("claims") or ():
        found.setdefault((str(row["claim"]), str(row["statement"])), []).append(row)
    claims = []
    for (name, statement), rows in found.items():
        references = {str(row.get("reference") or "") for row in rows}
        common = references.pop() if len(references) == 1 else ""
        claims.append(Claim(name, statement, common, tuple(rows)))
    return claims


def violated_theorems(evidence: Evidence) -> list[str]:
    """Claims that are proved and that the evidence contradicts: the evidence or this program is wrong."""
    return [
        claim.name
        for claim in ledger_claims(evidence)
        if any(row.get("sound") and row["status"] == "violated" for row in claim.rows)
    ]


def bound_rows(evidence: Evidence) -> list[Mapping[str, Any]]:
    """The stored generalization bounds."""
    document = evidence.documents.get("bounds") or {}
    return list(document.get("results") or ())


def cost(evidence: Evidence) -> dict[str, Any]:
    """What the evidence cost: noisy samples and seconds for proofs, passes for attacks."""
    samples = [r.samples for r in evidence.run]
    return {
        "samples": sum(samples),
        "samples_per_input": sum(samples) / max(1, len(samples)),
        "samples_max": max(samples, default=0),
        "seconds": math.fsum(r.seconds for r in evidence.run),
        "attack_forwards": sum(int(o.get("forwards") or 0) for o in evidence.attacks),
        "attack_backwards": sum(int(o.get("backwards") or 0) for o in evidence.attacks),
        "attack_seconds": math.fsum(float(o.get("seconds") or 0) for o in evidence.attacks),
    }


def _gradient_free(outcome: Mapping[str, Any]) -> bool:
    """Broken by an attack that uses no gradient; those run last, so the gradient attacks had failed."""
    by = str(outcome.get("by_attack") or "")
    return outcome["status"] == "broken" and by.startswith(("square", "coordinate"))


def _attack_row(group: AttackGroup) -> dict[str, Any]:
    statuses = ("clean_error", "broken", "survived", "unconfirmed", "error")
    row: dict[str, Any] = {s: group.number(s) for s in statuses}
    row |= {
        "target": group.target,
        "threat": group.name,
        "preset": group.preset,
        "inputs": len(group.outcomes),
        "black_box": sum(_gradient_free(o) for o in group.outcomes),
        "median": median_distance((o["status"], o["distance"]) for o in group.outcomes),
        "seconds": math.fsum(float(o.get("seconds") or 0) for o in group.outcomes),
    }
    return row
