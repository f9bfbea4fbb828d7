"""The report page: one file, nothing fetched, nothing that runs without being in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from certify.files.text import command, lines
from reports import numbers, tables, words
from reports.attack_groups import norm_name
from reports.evidence import Evidence
from reports.fronts import denoiser_of
from reports.gallery import gallery
from reports.made import made_sentence
from reports.svg import Figure, style_sheet

if TYPE_CHECKING:
    from reports.comparison import Comparison

#: Ledger states and the chip each is shown with.
CHIPS = {"holds": "good", "violated": "bad", "undetermined": "none"}


def page(evidence: Evidence, figures: Mapping[str, Figure]) -> str:
    """The whole report as one HTML document, escaped throughout."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            evidence=evidence,
            headline=words.headline(evidence),
            after_attack=words.after_attack(evidence),
            same_inputs=words.same_inputs(evidence),
            kinds=tables.verdict_kinds(evidence),
            sandwich_sentence=words.sandwich_sentence(evidence),
            says=words.guarantee_says(evidence),
            omits=words.guarantee_omits(evidence),
            accuracy=tables.accuracy_rows(evidence),
            attacks=tables.attack_rows(evidence),
            formulas=tables.formula_rows(evidence),
            refutation=(example := tables.refutation(evidence)),
            refutation_sentence=words.formula_refutation(example),
            ledger=(claims := tables.ledger_claims(evidence)),
            ledger_sentence=words.ledger_sentence(claims),
            ledger_open=any(row["status"] == "violated" for claim in claims for row in claim.rows),
            violated=tables.violated_theorems(evidence),
            bounds=tables.bound_rows(evidence),
            left_out=(evidence.documents.get("bounds") or {}).get("left_out"),
            gap_sentence=words.gap_sentence((evidence.documents.get("bounds") or {}).get("measured_gap")),
            cost=tables.cost(evidence),
            front=denoiser_of(evidence.settings),
            settings=flat(evidence.settings),
            figures={name: Markup(figure.inline()) for name, figure in figures.items()},
            maps=[name for name in figures if name.startswith("map-")],
            classes=tables.class_rows(evidence),
            exhibits=gallery(evidence),
            columns=tables.input_columns(evidence),
            inputs=script_json(tables.input_rows(evidence)),
            norm=norm_name(evidence.norm),
        )
    )


def comparison_page(comparison: Comparison, figure: Figure) -> str:
    """Several runs side by side as one HTML document."""
    return (
        environment()
        .get_template("compare.html.j2")
        .render(comparison=comparison, figure=Markup(figure.inline()), words=words)
    )


def environment() -> jinja2.Environment:
    """Jinja with escaping on, undefined names refused, and the number formats as filters."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    for name in (
        "radius_down",
        "radius_short",
        "radius_over",
        "symbols",
        "distance_up",
        "plain",
        "points",
        "p_value",
        "percent_down",
        "percent_up",
        "percent_interval",
    ):
        env.filters[name] = getattr(numbers, name)
    env.filters |= {"general": numbers.general, "count": numbers.count, "duration": numbers.seconds}
    env.filters["chip"] = lambda status: CHIPS.get(str(status), "none")
    env.filters["command"] = command
    env.filters["made"] = made_sentence
    env.globals["points_interval"] = numbers.points_interval
    env.globals["asset"] = lambda name: Markup(style_sheet(name))
    return env


def _shown(value: Any) -> Any:
    """What stands on a page: text of a run without control characters, in the direction of the page."""
    return lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def script_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: no character in it can close the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as dotted names and short values, in their stored order.

    The command is left out, and a function's scores on fixed inputs: measurements, not settings.
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name in ("command", "model.scores"):
            continue
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((name, json.dumps(value, ensure_ascii=False)))
        elif value is not None and value != {}:
            rows.append((name, str(value)))
    return rows
