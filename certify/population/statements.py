"""From the counts of a run to its statements. No torch is needed to make, read or check them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from certify.chances import at_least
from certify.errors import InvalidSetting
from certify.inputs import INPUT
from certify.population.bounds import mirrored
from certify.population.one_pass import attacked, shifted
from certify.population.plan import TASK, Plan
from certify.population.rules import Rule, design, design_mean
from certify.records import Record, Run, Status

if TYPE_CHECKING:
    from certify.store import RunStore

#: The document of a run that holds its statements and the rules behind them.
DOCUMENT = "population"
#: A larger share of repeated inputs is no sample of a population.
MOST_REPEATS = 0.01
_DIGITS = Decimal("0.01")


@dataclass(frozen=True)
class Statement:
    """What is stated about one radius.

    ``lower`` and ``upper`` bound the share of the population on which the smoothed classifier is right and
    stays right within ``radius``; ``one_pass`` is a lower bound on the accuracy of the one-copy
    classifier under every attack of that size, ``shifted`` the same after a shift. ``confidence``
    holds for the lower ends of all radii of the run together, and for the upper ends together.
    """

    radius: float
    samples_per_input: int
    inputs: int
    counted: int
    pilot: int
    repeats: int
    passes: int
    lower: float
    upper: float
    confidence: float
    method: str
    one_pass: float | None
    shifted: float | None
    statement: str


@dataclass(frozen=True)
class Stated:
    """All statements of a run, and by name the rules that made them."""

    statements: tuple[Statement, ...]
    rules: Mapping[str, Rule]

    def to_json(self) -> dict[str, Any]:
        """The document that is stored."""
        return {
            "statements": [asdict(s) for s in self.statements],
            "rules": {name: rule.to_json() for name, rule in self.rules.items()},
        }


def stated(document: Mapping[str, Any]) -> Stated:
    """The statements and rules of a stored document."""
    rules = {name: Rule.from_json(row) for name, row in document["rules"].items()}
    return Stated(tuple(Statement(**row) for row in document["statements"]), rules)


def is_population(settings: Mapping[str, Any]) -> bool:
    """Whether these are the settings of a run that states something about a population."""
    return settings.get("task") == TASK


def refuse_population(settings: Mapping[str, Any], what: str) -> None:
    """Raise InvalidSetting if the run is about a population: ``what`` exists where inputs are certified."""
    if is_population(settings):
        raise InvalidSetting(
            f"{what} for a run about a population",
            why="it counted votes for one statement about all inputs, and certified none of them by itself",
            remedy="certify the inputs with `certify radius`",
        )


def missing(run: Run) -> int:
    """How many inputs of the plan have no counts yet: before that is 0 nothing is stated."""
    plan = Plan.of_settings(run.settings)
    done = {r.index for r in run if r.status is Status.COUNTED}
    return sum(id not in done for id in plan.order(run.settings["seed"]))


def state(run: Run) -> Stated:
    """The statements of a run that is complete. Raises InvalidSetting where it is not."""
    plan = Plan.of_settings(run.settings)
    if left := missing(run):
        raise InvalidSetting(
            "nothing can be stated yet",
            why=f"{left} of {plan.inputs} inputs have no counts: leaving them out would bias the share",
            remedy="run the same command again: it goes on where it stopped; merge shards with certify merge",
        )
    pilot, counted = right_counts(run)
    repeats = len(run) - len({r.details.get(INPUT) for r in run})
    rules: dict[str, Rule] = {}
    accuracy = None
    if plan.one_pass:
        rules["one_pass"] = design_mean(pilot, plan.n, len(counted), plan.share, plan.about)
        accuracy = rules["one_pass"].lower(counted)
    statements = []
    for radius in plan.radii:
        ends = {"lower": (pilot, counted), "upper": (plan.n - pilot, plan.n - counted)}
        found = {}
        for side, target in zip(ends, plan.targets(radius), strict=True):
            apart, counts = ends[side]
            found[side] = 0.0
            p = target if side == "lower" else mirrored(target)
            if 0.0 < p < 1.0:
                rule = design(apart, plan.n, p, len(counts), plan.share, plan.about)
                rules[f"{side} {radius!r}"], found[side] = rule, rule.lower(counts)
        statements.append(_statement(plan, radius, found, rules, accuracy, repeats))
    return Stated(tuple(statements), rules)


def conclude(store: RunStore) -> Run:
    """Store the statements of a run once all of its inputs are there; the run as it is now."""
    run = store.run()
    if not missing(run):
        store.put_document(DOCUMENT, state(run).to_json())
    return run


def right_counts(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """How many copies of each input of a complete run were right: of the pilot, and of the counted ones."""
    plan, by_id = Plan.of_settings(run.settings), {r.index: r for r in run}
    right = [_right(by_id[id], plan.n) for id in plan.order(run.settings["seed"])]
    return tuple(np.split(np.array(right, dtype=np.int64), [plan.pilot]))  # type: ignore[return-value]


def _right(record: Record, n: int) -> int:
    """How many of an input's ``n`` copies got its true class."""
    if record.target is None or not 0 <= record.target < len(record.counts) or sum(record.counts) > n:
        raise InvalidSetting(
            f"input {record.index} has no true class among the counted ones",
            why="the share of inputs that are right needs to know what is right",
            remedy="use a data set with labels",
        )
    return record.counts[record.target]


def _statement(
    plan: Plan, radius: float, found: Mapping[str, float], rules: Mapping[str, Rule],
    accuracy: float | None, repeats: int,
) -> Statement:  # fmt: skip
    one_pass = after = None
    if accuracy is not None:
        one_pass = attacked(accuracy, radius, plan.sigma, tv=plan.tv)
        after = None if plan.shift is None else shifted(accuracy, plan.shift, plan.sigma, tv=plan.tv)
    rule = rules.get(f"lower {radius!r}")
    said = Statement(
        radius=radius, samples_per_input=plan.n, inputs=plan.inputs, counted=plan.inputs - plan.pilot,
        pilot=plan.pilot, repeats=repeats, passes=plan.inputs * plan.n, lower=found["lower"],
        upper=1.0 - found["upper"], confidence=1 - plan.alpha, method="none" if rule is None else rule.method,
        one_pass=one_pass, shifted=after, statement="",
    )  # fmt: skip
    return replace(said, statement=sentence(plan, said))


def sentence(plan: Plan, said: Statement) -> str:
    """What a reader may say, with everything it depends on. Lower ends are rounded down, upper ends up."""
    whom = {
        "population": f"the population that the {plan.inputs:,} inputs are a sample of",
        "set": f"the {plan.of - plan.pilot:,} inputs that the counted ones were drawn from",
    }[plan.about]
    under = f"under every change of l2 size up to {said.radius:g}"
    text = (
        f"With confidence {at_least(plan.alpha)}, the smoothed classifier (sigma = {plan.sigma:g}) is right, "
        f"and stays right {under}, on at least {_down(said.lower)} of {whom}; at most {_up(said.upper)} "
        "of it meet the criterion of this proof."
    )
    if said.one_pass is not None:
        text += (
            f" The classifier that answers from one noisy copy is right on at least {_down(said.one_pass)} "
            f"of it {under}, whatever the attacker knows but the noise"
        )
        if said.shifted is not None:
            text += f", and on at least {_down(said.shifted)} after a shift of mean size {plan.shift:g}"
        text += "."
    shared = f" the level is shared by {plan.sharing} statements;" if plan.sharing > 1 else ""
    text += (
        f" {plan.n} noisy {'copy' if plan.n == 1 else 'copies'} of each input;{shared} {plan.pilot:,} inputs "
        "chose the rule and are not counted. No input is certified by itself. It does not hold for inputs "
        "that were chosen, or used for training or tuning."
    )
    return text + (f" {said.repeats:,} inputs repeat others." if said.repeats else "")


def _down(share: float) -> str:
    return f"{(100 * Decimal(share)).quantize(_DIGITS, ROUND_FLOOR)} %"


def _up(share: float) -> str:
    return f"{(100 * Decimal(share)).quantize(_DIGITS, ROUND_CEILING)} %"
