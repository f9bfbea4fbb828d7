"""The report of a run about a population: its statements, what they rest on, and when they do not hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from certify.chances import at_least
from certify.errors import InvalidSetting
from certify.laws import law_of
from certify.population.plan import Plan
from certify.population.statements import DOCUMENT, Statement, missing, right_counts, stated
from reports.html import environment, flat
from reports.latex import escape
from reports.numbers import count, percent_down, percent_up, radius_short
from reports.plots.counts import ends, right_copies
from reports.segmentation import Parts
from reports.svg import Figure

if TYPE_CHECKING:
    from certify.store import StoredRun


class PopulationEvidence:
    """A stored run about a population; nothing is counted again.

    Raises InvalidSetting where inputs are missing, so that nothing is stated yet.
    """

    def __init__(self, stored: StoredRun, name: str | None = None) -> None:
        left, document = missing(stored.run), stored.documents.get(DOCUMENT)
        if left or document is None:
            raise InvalidSetting(
                f"{stored.path} states nothing yet",
                why=f"{left} of its inputs have no counts",
                remedy="run the same command again, or merge the shards with certify merge",
            )
        self.run = stored.run
        self.name = name or stored.path.resolve().name
        self.settings: Mapping[str, Any] = stored.settings
        self.options: Mapping[str, Any] = stored.settings["mode_options"]
        self.plan = Plan.of_settings(stored.settings)
        self.n, self.sigma = self.plan.n, self.plan.sigma
        found = stated(document)
        self.statements: tuple[Statement, ...] = found.statements
        self.rules = found.rules
        self.one_pass = all(s.one_pass is not None for s in self.statements)

    @cached_property
    def right(self) -> np.ndarray:
        """How many copies of each counted input were right."""
        return right_counts(self.run)[1]

    @property
    def confidence(self) -> str:
        """Of all lower ends together, as a decimal that is not too large."""
        return at_least(self.plan.alpha)

    @property
    def first(self) -> Statement:
        """The statement that the page opens with."""
        return self.statements[0]


def parts(stored: StoredRun) -> Parts:
    """The page, the LaTeX table, the model-card section and the figures of a run about a population."""
    evidence = PopulationEvidence(stored)
    figures = {"population": ends(evidence), "counts": right_copies(evidence)}
    return Parts(page(evidence, figures), table(evidence), card(evidence), figures)


def page(evidence: PopulationEvidence, figures: Mapping[str, Figure]) -> str:
    """The whole report as one HTML document, escaped throughout."""
    return (
        environment()
        .get_template("population.html.j2")
        .render(
            evidence=evidence,
            claim=headline_claim(evidence),
            says=says(evidence),
            omits=omits(evidence),
            figures={name: Markup(figure.inline()) for name, figure in figures.items()},
            settings=flat(evidence.settings),
            samples=sum(r.samples for r in evidence.run),
            seconds=sum(r.seconds for r in evidence.run),
        )
    )


def headline_claim(evidence: PopulationEvidence) -> str:
    first = evidence.first
    return (
        f"of the {evidence.plan.about} at least, with confidence {evidence.confidence}, is classified "
        f"correctly under every change of ℓ₂ size up to {radius_short(first.radius, 4)}."
    )


def says(evidence: PopulationEvidence) -> list[str]:
    plan = evidence.plan
    many = plan.sharing
    lines = [
        "It is about the smoothed classifier, which votes over noisy copies of the input: about the share "
        "of inputs on which it is right and stays right. Which ones it does not say.",
        f"All lower ends of this run hold together with probability at least {at_least(plan.alpha)}"
        + (f": {many} statements share the level." if many > 1 else "."),
        f"{count(plan.pilot)} of the {count(plan.inputs)} inputs, drawn by the seed, chose the rules; they "
        "are not counted.",
    ]
    if evidence.one_pass:
        lines.append(
            "The one-copy classifier looks once, at one noisy copy. Its accuracy is averaged over its noise, "
            "against attackers who know everything but that noise."
        )
    return lines


def omits(evidence: PopulationEvidence) -> list[str]:
    lines = [
        "No input is certified by itself.",
        "It does not hold where the inputs are no sample: chosen, filtered or made up, or where any of them "
        "was used for training or tuning.",
        "It does not hold for the best of several runs: radii, copies, inputs and the seed are fixed "
        "beforehand.",
        "The upper end is about the criterion of the proof. An input that misses it may still be robust.",
        "The run directory is hashed, not signed.",
    ]
    if evidence.first.repeats:
        lines.insert(1, f"{count(evidence.first.repeats)} inputs repeat others.")
    if caveat := law_of(evidence.settings).caveat:
        lines.insert(0, caveat)
    return lines


def table(evidence: PopulationEvidence) -> str:
    """The statements as a LaTeX float (booktabs)."""
    plan = evidence.plan
    one = evidence.one_pass
    lines = [
        "% Needs \\usepackage{booktabs}. Lower ends are rounded down, upper ends up.",
        "\\begin{table}[t]", "\\centering",
        f"\\caption{{Share of the {escape(plan.about)} on which {escape(evidence.name)} is right and stays "
        f"right ({count(plan.inputs)} inputs, {plan.n} noisy copies each, $\\sigma={plan.sigma:g}$, "
        f"confidence {at_least(plan.alpha)}).}}",
        f"\\begin{{tabular}}{{r rr{'r' if one else ''}}}", "\\toprule",
        f"Radius & At least & At most{' & One copy' if one else ''} \\\\", "\\midrule",
    ]  # fmt: skip
    for s in evidence.statements:
        last = f" & {escape(percent_down(s.one_pass or 0.0))}" if one else ""
        both = f"{escape(percent_down(s.lower))} & {escape(percent_up(s.upper))}"
        lines.append(f"{radius_short(s.radius, 4)} & {both}{last} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def card(evidence: PopulationEvidence) -> str:
    """What a model card should say about this run."""
    lines = ["## Robustness of the population", ""]
    lines += [f"**{percent_down(evidence.first.lower)}** {headline_claim(evidence)}", ""]
    one = " one copy, at least |" if evidence.one_pass else ""
    rule = " ---: |" if one else ""
    lines += [f"| radius | at least | at most |{one}", f"| ---: | ---: | ---: |{rule}"]
    for s in evidence.statements:
        last = f" {percent_down(s.one_pass or 0.0)} |" if one else ""
        lines.append(
            f"| {radius_short(s.radius, 4)} | {percent_down(s.lower)} | {percent_up(s.upper)} |{last}"
        )
    lines += ["", "### Statements", ""] + [f"- {s.statement}" for s in evidence.statements]
    lines += ["", "### Guarantee", "", f"> {' '.join(evidence.run.guarantee.split())}", ""]
    lines += [f"- {s}" for s in says(evidence)]
    lines += ["", "Not claimed:", ""] + [f"- {s}" for s in omits(evidence)]
    if evidence.settings.get("command"):
        lines += ["", "```", str(evidence.settings["command"]), "```"]
    return "\n".join(lines) + "\n"
