"""The robustness section of a model card, in Markdown."""

from __future__ import annotations

from reports import tables, words
from reports.evidence import Evidence
from reports.numbers import count, percent_down, percent_interval, percent_up, radius_down


def card(evidence: Evidence) -> str:
    """What a model card should say about this run: result, guarantee, limits, how to replay it."""
    head = words.headline(evidence)
    settings = evidence.settings
    lines = ["## Robustness", "", f"**{head.share}** {head.claim}", "", *head.details, ""]
    if evidence.contradictions:
        lines += [f"**This run is invalid: {words.sandwich_sentence(evidence)}**", ""]
    rows = tables.accuracy_rows(evidence)
    after = words.after_attack(evidence)
    lines += [f"| radius | certified | 95 % interval | {after.lower()} |", "| ---: | ---: | ---: | ---: |"]
    for row in rows:
        left = percent_up(row.attacked.value) if row.attacked else "–"
        proved = f"{percent_down(row.proved.value)} | {percent_interval(row.proved)}"
        lines.append(f"| {row.radius:g} | {proved} | {left} |")
    lines += ["", f"Mean certified radius: {radius_down(evidence.run.mean_radius())}. "
              f"{words.sandwich_sentence(evidence)}", ""]  # fmt: skip
    for row in tables.attack_rows(evidence):
        lines.append(
            f"- Attack on the {row['target']} ({row['threat']}): of {count(row['inputs'])} inputs "
            f"{count(row['broken'])} were broken, {count(row['survived'])} survived preset {row['preset']}, "
            f"{count(row['clean_error'])} were wrong before the attack."
        )
    lines += ["", "### Guarantee", "", f"> {_one_line(evidence.run.guarantee)}", ""]
    lines += [f"- {s}" for s in words.guarantee_says(evidence)]
    lines += ["", "Not claimed:", ""]
    lines += [f"- {s}" for s in words.guarantee_omits(evidence)]
    lines += ["", "### Evidence", ""]
    lines += [f"- {name}: `{value}`" for name, value in _identity(evidence)]
    if settings.get("command"):
        lines += ["", "```", str(settings["command"]), "```"]
    return "\n".join(lines) + "\n"


def _identity(evidence: Evidence) -> list[tuple[str, str]]:
    settings = evidence.settings
    model = settings.get("model") if isinstance(settings.get("model"), dict) else {}
    data = settings.get("data") if isinstance(settings.get("data"), dict) else {}
    found = {
        "model": (model or {}).get("architecture"),
        "model digest": (model or {}).get("digest"),
        "data": (data or {}).get("name"),
        "data digest": (data or {}).get("digest"),
        "sigma": settings.get("sigma"),
        "alpha": settings.get("alpha"),
        "noise": settings.get("noise"),
        "seed": settings.get("seed"),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def _one_line(text: str) -> str:
    return " ".join(text.split())
