"""The sentences of a report: verdict, limits of the guarantee, what the attacks showed.

Vocabulary of ISO/IEC 24029: proof, counterexample, inconclusive. An input that no attack broke
has "survived preset X"; it is never called safe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certify.chances import at_most, most_wrong
from certify.inputs import interval_notes
from certify.laws import law_of
from certify.records import Estimate, Status
from reports.attack_groups import norm_name
from reports.evidence import Evidence
from reports.fronts import front_sentences
from reports.numbers import (
    count,
    general,
    level,
    p_value,
    percent,
    percent_down,
    percent_interval,
    percent_up,
    points,
    points_interval,
    radius_down,
)

if TYPE_CHECKING:
    from reports.comparison import Pair
    from reports.tables import Claim


@dataclass(frozen=True)
class Headline:
    """The first sentence, its number set apart, and the sentences under it."""

    share: str
    claim: str
    details: tuple[str, ...]


def headline(evidence: Evidence) -> Headline:
    """What was proved at the headline radius, what was broken, what is left open."""
    radius, n = evidence.headline_radius, len(evidence.run)
    shown, norm = radius_down(radius, 2), norm_name(evidence.norm)
    if n == 0:
        return Headline("No input", "has been certified yet.", ("The run holds no records.",))
    proved = evidence.certified_accuracy([radius])[0]
    what = "classified correctly" if evidence.labelled else "given one fixed class"
    reach = (
        f"under every change of {norm} size up to {shown}." if radius > 0 else "by the smoothed classifier."
    )
    claim = f"of {count(n)} inputs are {evidence.say.proved} to be {what} {reach}"
    details = [f"For inputs drawn like these, the {level(proved)} interval is {percent_interval(proved)}. "]
    if evidence.imported:
        details[0] += (
            "A log holds neither votes nor weights: nobody can check its claims from it. They are about a "
            f"smoothed classifier (sigma = {evidence.sigma:g}, alpha = {evidence.alpha:g} by the import)."
        )
    else:
        details[0] += (
            f"Each proof is a statement about the smoothed classifier (sigma = {evidence.sigma:g}) that "
            f"fails with probability at most {at_most(evidence.alpha)}."
        )
        if proved.robust_low is not None and radius > 0:
            details.append(
                f"Whether or not every proof holds, at least {percent_down(proved.robust_low)} of inputs "
                f"drawn like these keep their true class that far (confidence {level(proved)})."
            )
        if evidence.two_sided:
            details.append(one_sided_sentence(evidence))
        details += interval_notes(evidence.run.records, evidence.settings)
        details.append(_attack_sentence(evidence, radius))
    return Headline(percent_down(proved.value), claim, tuple(details))


def one_sided_sentence(evidence: Evidence) -> str:
    """Both radii of a run that bounds the runner-up, and which of them published tables have."""
    pairs = [(r, a) for r, a in zip(evidence.run, evidence.run.one_sided(), strict=True)]
    alone = sum(a for r, a in pairs if r.correct is not False) / max(1, len(pairs))
    lost = sum(r.certified and r.p_lower <= 0.5 for r, _ in pairs)
    sentence = (
        f"Radii are by two bounds, on the leading class and on every other one: {evidence.say.certified} "
        f"{radius_down(evidence.run.mean_radius(), 4)} on average. Published tables use pB = 1 − pA: by that "
        f"the average is {radius_down(alone, 4)}"
    )
    return sentence + (f", and {count(lost)} of the inputs would have no radius." if lost else ".")


def _attack_sentence(evidence: Evidence, radius: float) -> str:
    tally, n = evidence.verdict(radius), len(evidence.run)
    open_inputs = tally["inconclusive"] + tally["not attacked"]
    left = percent_up(open_inputs / n)
    if not evidence.attacked(smoothed=True) and evidence.challenged:
        return (
            f"{count(evidence.challenged)} certified balls were attacked from inside and held. Beyond them "
            "nothing was tried: what is neither proved right nor certified with a wrong class is open."
        )
    if not evidence.attacked(smoothed=True):
        return (
            "The smoothed classifier has not been attacked: what is neither proved right nor certified with "
            "a wrong class is open."
        )
    broken = (
        "Counterexamples (wrong class, or a confirmed attack on the smoothed classifier within "
        f"{radius_down(radius, 2)}) are known for {percent_up(tally['counterexample'] / n)}."
    )
    if not open_inputs:
        return broken
    return f"{broken} The remaining {left} are open: {_open_parts(tally)}."


def _open_parts(tally: Mapping[str, int]) -> str:
    """Why inputs are open: attacked without a result, or not attacked."""
    told = {
        "inconclusive": "attacked and neither proved nor broken",
        "not attacked": "neither proved nor attacked",
    }
    parts = [(tally[kind], text) for kind, text in told.items() if tally[kind]]
    if len(parts) == 1:
        return parts[0][1]
    return ", ".join(f"{count(number)} {text}" for number, text in parts)


def comparison_sentence(pair: Pair, radius: float) -> str:
    """Which of two runs proves (or claims) more at ``radius``, and whether the data can tell."""
    if pair.reason:
        return f"{pair.name} and {pair.baseline} are not compared: {pair.reason}."
    row = next(d for d in pair.differences if d.radius == radius)
    told = f"{points(row.value)} percentage points, 95 % interval {points_interval(row.low, row.high)}"
    if row.low > 0 or row.high < 0:
        more = "more" if row.value > 0 else "fewer"
        claim = f"{pair.name} {pair.say.claims} {more} inputs than {pair.baseline} at radius {radius:g}"
    else:
        claim = f"At radius {radius:g} these inputs do not tell {pair.name} and {pair.baseline} apart"
    return f"{claim}: {told}."


def comparison_details(pair: Pair, radius: float) -> str:
    """The counts behind ``comparison_sentence``; "" where the two are not compared."""
    if pair.reason:
        return ""
    row = next(d for d in pair.differences if d.radius == radius)
    both = f"Of {count(row.inputs)} common inputs only {pair.name} {pair.say.claims} {count(row.only_first)}"
    adjusted = p_value(row.p_adjusted)
    told = (adjusted if adjusted.startswith("<") else f"= {adjusted}").replace(" ", "\u00a0")
    return (
        f"{both}, only {pair.baseline} {count(row.only_second)} at this radius (exact p\u00a0{told} after "
        "Holm's correction for all radii and runs)."
    )


def after_attack(evidence: Evidence) -> str:
    """Heading of the attacked accuracy: how many inputs it is about, where not all were attacked."""
    tried = len(evidence.attacked(smoothed=True))
    return "After attack" if tried in (0, len(evidence.run)) else f"After attack, {count(tried)} inputs"


def same_inputs(evidence: Evidence) -> str:
    """Heading of what was proved of the attacked inputs alone."""
    return f"{evidence.say.proved.capitalize()}, the same {count(len(evidence.attacked(smoothed=True)))}"


def sandwich_sentence(evidence: Evidence) -> str:
    """Whether any confirmed attack lies inside a certified ball."""
    met = sum(p.record.certified and p.distance is not None for p in evidence.points)
    if evidence.contradictions:
        many = len(evidence.contradictions)
        return f"{count(many)} confirmed attack{'s' if many > 1 else ''} inside a certified ball."
    if not evidence.attacked(smoothed=True) and not evidence.challenged:
        return "The smoothed classifier has not been attacked yet."
    tried = f"; {count(evidence.challenged)} balls were attacked from inside" if evidence.challenged else ""
    return f"No confirmed attack lies inside a certified ball ({count(met)} inputs have both{tried})."


def ledger_sentence(claims: Sequence[Claim]) -> str:
    """How many rows of the ledger hold, are refuted or stay open; a violated theorem first."""
    rows = [row for claim in claims for row in claim.rows]
    said = {
        status: [r for r in rows if r["status"] == status] for status in ("holds", "violated", "undetermined")
    }
    broken = sum(bool(r.get("sound")) for r in said["violated"])
    parts = [f"{count(len(said['holds']))} of {count(len(rows))} confrontations hold"]
    if broken:
        parts.insert(0, f"{count(broken)} violate a theorem, so that this run is in doubt")
    if refuted := len(said["violated"]) - broken:
        parts.append(f"{count(refuted)} refute a statement that is no theorem")
    if said["undetermined"]:
        parts.append(f"{count(len(said['undetermined']))} stay undetermined: nothing here could decide them")
    return "; ".join(parts) + "."


def gap_sentence(gap: Mapping[str, Any] | None) -> str:
    """The measured errors behind the bounds: training, test, and the gap with its interval."""
    if (
        not gap
        or not {"train_error", "test_error", "n_train", "n_test", "test_low", "test_high"} <= gap.keys()
    ):
        return ""
    test = Estimate(gap["test_error"], gap["test_low"], gap["test_high"], 1 - gap["delta"], "clopper-pearson")
    return (
        f"The {gap['predictor']} errs on {percent(gap['train_error'])} of {count(gap['n_train'])} "
        f"training inputs and on {percent(gap['test_error'])} of {count(gap['n_test'])} test inputs "
        f"({level(test)} interval {percent_interval(test)}). Its generalization gap is "
        f"{points(gap['value'])} percentage points ({points_interval(gap['low'], gap['high'])})."
    )


def guarantee_says(evidence: Evidence) -> list[str]:
    """Consequences of the guarantee that a reader can use."""
    certified = evidence.number(Status.CERTIFIED)
    expected = evidence.alpha * len(evidence.run)
    if evidence.imported:
        return [
            "The claims are about a smoothed classifier, which votes over noisy copies of the input, and "
            "about each input separately.",
            f"If they were made at alpha = {evidence.alpha:g} by a sound procedure, at most "
            f"{general(expected, 2)} of the {count(certified)} claims are expected to be wrong.",
        ]
    said = [
        "It is about the smoothed classifier, which votes over noisy copies of the input. It says nothing "
        "about calling the base model once on a clean input.",
        f"It holds for each input separately. Over {count(len(evidence.run))} inputs at alpha = "
        f"{at_most(evidence.alpha)}, at most {at_most(expected, 2)} wrong certificates are expected among "
        f"the {count(certified)} issued; all of them hold together with probability at least "
        f"{radius_down(max(0.0, 1 - expected), 3)}. {_binomial(len(evidence.run), evidence.alpha)}",
    ]
    if evidence.norm == "2" and evidence.dim is not None and evidence.dim > 1:
        said.append(
            f"An ℓ₂ radius R covers every ℓ₁ change up to R and every ℓ∞ change up to R/√{evidence.dim} "
            f"= {radius_down(1 / math.sqrt(evidence.dim), 4)} R."
        )
    return said + front_sentences(evidence.settings)


def _binomial(inputs: int, alpha: float) -> str:
    """How many certificates may be wrong at once: the noise of each input has a key of its own."""
    most, chance = most_wrong(inputs, alpha)
    what = "one or more are" if most == 0 else f"more than {count(most)} are"
    return f"Their noise is independent: {what} wrong with probability at most {at_most(chance, 2)}."


def guarantee_omits(evidence: Evidence) -> list[str]:
    """What must not be read into it."""
    if evidence.imported:
        return [
            "The records were copied from another tool's log: they can be plotted and compared, not "
            "verified.",
            "Sigma, alpha and the number of samples are what was given at the import; a log does not state "
            "them.",
            "Beyond the radius nothing is claimed.",
            "The log names neither weights nor data: which model it is about is its publisher's word.",
        ]
    omitted = [
        "Beyond the radius nothing is claimed: not proved is not broken.",
        "Other weights, preprocessing, number types or kernels are another model. The digests in the "
        "settings name this one.",
        "The intervals over inputs speak of the population these inputs were drawn from, one radius at a "
        "time.",
        "Surviving an attack proves nothing; only a certificate does.",
        "The run directory is hashed, not signed: a hash shows that files belong together, not that anyone "
        "vouches for them.",
    ]
    if caveat := law_of(evidence.settings).caveat:
        omitted.insert(0, caveat)
    return omitted


def formula_refutation(example: Mapping[str, Any] | None) -> str:
    """The sentence under the formula table: the input on which the printed formula fails."""
    if example is None:
        return ""
    claimed, index = general(example["claimed"], 4), example["index"]
    if example["kind"] == "attack":
        return (
            f"Refuted by input {index}: the printed formula allows every change up to {claimed} at "
            f"least, yet a change of size {general(example['distance'], 4)} was confirmed to turn class "
            f"{example['before']} into {example['after']}."
        )
    return (
        f"Refuted by a half-space: the linear classifier with input {index}'s class probability, "
        f"{general(example['p'], 5)}, changes its class at distance exactly "
        f"{general(example['distance'], 4)}; the printed formula allows {claimed} at least."
    )
