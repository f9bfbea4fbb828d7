"""Where what a run directory says becomes values: each kind of content by its own JSON Schema.

A database can be written by anyone. Nothing leaves ``certify.store`` before it passed here, so that a
reader may rely on the types, sizes and names that the schemas promise; and nothing is written that
would not be read again. What the numbers *mean* is judged elsewhere (``certify.verification``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from certify.errors import CorruptRun
from certify.store.schema import schema, violation
from certify.store.settings import split

#: What a run can be about; runs about one class per input do not name it.
TASKS = ("classification", "segmentation", "population")
#: Documents that some reader takes apart; others are kept as they are.
DOCUMENTS = ("ledger", "bounds", "contradictions", "residual_gap", "maps", "population")
#: What the records of a segmentation count, and the settings that its readers need.
_PIXELS = ("pixels", "certified", "labelled", "correct")
_PIXEL_SETTINGS = ("mode_options", "num_classes", "input_shape")


def settings_fault(settings: Any) -> str | None:
    """What no run's settings can be, or None. ``settings``: as ``certify.store.settings.join`` returns."""
    fault = violation(settings, schema("settings"), "settings")
    if fault is None and settings.get("task", TASKS[0]) not in TASKS:
        return f"settings.task {settings['task']!r} is no task that this release knows"
    if fault is None and settings.get("task") == "segmentation":
        fault = next((f"settings.{k} is missing" for k in _PIXEL_SETTINGS if k not in settings), None)
    if fault is None and settings.get("task") == "population":
        needed = (*_PIXEL_SETTINGS, "seed")
        fault = next((f"settings.{k} is missing" for k in needed if k not in settings), None)
        fault = fault or violation(
            settings["mode_options"], schema("population_options"), "settings.mode_options"
        )
    return fault


def session_fault(body: Any) -> str | None:
    """The same for what a session recorded: nothing that binds the run, which it would override."""
    fault = violation(body, schema("session"), "session")
    if fault is None and (name := _leaf(split(body)[0])):
        fault = f"session.{name} is no setting that a session records"
    return fault


def record_fault(body: Any, settings: Mapping[str, Any]) -> str | None:
    """The same for one record, in JSON types, of a run with these ``settings``."""
    fault = violation(body, schema("record"), "record")
    if fault is None and settings.get("task") == "segmentation" and body["status"] != "failed":
        fault = next((f"record.details.{k} is missing" for k in _PIXELS if k not in body["details"]), None)
    return fault


def attack_fault(body: Any, settings: Mapping[str, Any]) -> str | None:
    """The same for one attack outcome."""
    kind = "pixel_attack" if settings.get("task") == "segmentation" else "attack"
    return violation(body, schema(kind), "attack")


def document_fault(name: str, body: Any) -> str | None:
    """The same for a document that some reader takes apart; None for any other."""
    return violation(body, schema(name), f"document {name}") if name in DOCUMENTS else None


def _leaf(value: Mapping[str, Any]) -> str | None:
    """The dotted name of some value in nested dictionaries; None where they hold none."""
    for key, inner in value.items():
        if not isinstance(inner, dict):
            return key
        if found := _leaf(inner):
            return f"{key}.{found}"
    return None


def need(settings: Mapping[str, Any], names: Iterable[str], where: object) -> None:
    """Raise CorruptRun where a run's settings lack one of ``names``: a reader cannot do without it."""
    if missing := [name for name in names if settings.get(name) is None]:
        raise CorruptRun(
            f"{where} does not say its {', '.join(missing)}",
            why="every run that this package writes says so; an imported log, or another tool's, may not",
            remedy="use a run that `certify radius` wrote",
        )
