"""The robustness section of a model card, in Markdown."""

from __future__ import annotations

from typing import Any

from certify.files.text import block, code, command, markdown
from reports import tables, words
from reports.evidence import Evidence
from reports.fronts import front_identity
from reports.numbers import count, percent_down, percent_interval, percent_up, radius_down


def card(evidence: Evidence) -> str:
    """What a model card should say about this run: result, guarantee, limits, how to replay it."""
    head = words.headline(evidence)
    settings = evidence.settings
    details = [markdown(s) for s in head.details]
    lines = ["## Robustness", "", f"**{head.share}** {markdown(head.claim)}", "", *details, ""]
    if evidence.contradictions:
        lines += [f"**This run is invalid: {words.sandwich_sentence(evidence)}**", ""]
    rows = tables.accuracy_rows(evidence)
    after = words.after_attack(evidence)
    part = any(row.confronted for row in rows)
    beside = (words.same_inputs(evidence).lower(),) if part else ()
    heads = ("radius", evidence.say.certified, "95 % interval", *beside, after.lower())
    lines += [f"| {' | '.join(heads)} |", f"| {' | '.join(['---:'] * len(heads))} |"]
    for row in rows:
        left = percent_up(row.attacked.value) if row.attacked else "–"
        proved = f"{percent_down(row.proved.value)} | {percent_interval(row.proved)}"
        if part:
            proved += f" | {percent_down(row.confronted.value) if row.confronted else '–'}"
        lines.append(f"| {row.radius:g} | {proved} | {left} |")
    lines += ["", f"Mean {evidence.say.certified} radius: {radius_down(evidence.run.mean_radius())}. "
              f"{words.sandwich_sentence(evidence)}", ""]  # fmt: skip
    if evidence.two_sided:
        lines += [words.one_sided_sentence(evidence), ""]
    for row in tables.attack_rows(evidence):
        preset = markdown(row["preset"])
        lines.append(
            f"- Attack on the {row['target']} ({row['threat']}): of {count(row['inputs'])} inputs "
            f"{count(row['broken'])} were broken, {count(row['survived'])} survived preset {preset}, "
            f"{count(row['clean_error'])} were wrong before the attack."
        )
    guarantee = "What the log claims" if evidence.imported else "Guarantee"
    lines += ["", f"### {guarantee}", "", f"> {markdown(evidence.run.guarantee)}", ""]
    lines += [f"- {markdown(s)}" for s in words.guarantee_says(evidence)]
    lines += ["", "Not claimed:", ""]
    lines += [f"- {markdown(s)}" for s in words.guarantee_omits(evidence)]
    lines += ["", "### Evidence", ""]
    lines += [f"- {name}: {code(value)}" for name, value in _identity(evidence)]
    return "\n".join([*lines, *made_by(settings.get("command"))]) + "\n"


def made_by(told: Any) -> list[str]:
    """The command behind a run as Markdown lines; text that is no plain command is not offered as one."""
    if not told:
        return []
    if (words_of := command(told)) is not None:
        return ["", *block(words_of)]
    return ["", f"The run gives as its command a text that is none of certify: {code(told)}"]


def _identity(evidence: Evidence) -> list[tuple[str, str]]:
    settings = evidence.settings
    model = settings.get("model") if isinstance(settings.get("model"), dict) else {}
    data = settings.get("data") if isinstance(settings.get("data"), dict) else {}
    found = {
        "model": (model or {}).get("architecture"),
        "model digest": (model or {}).get("digest"),
        **front_identity(settings),
        "data": (data or {}).get("name"),
        "data digest": (data or {}).get("digest"),
        "sigma": settings.get("sigma"),
        "alpha": settings.get("alpha"),
        "noise": settings.get("noise"),
        "seed": settings.get("seed"),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]
