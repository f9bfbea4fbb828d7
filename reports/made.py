"""When, with what and on which machine a run was made, as far as the run says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

_PROGRAMS = ("certify", "torch", "numpy", "python")


def made_sentence(settings: Mapping[str, Any]) -> str:
    """One sentence from the settings of a run's first session; "" where it says nothing of this.

    These are what the run says of itself: no digest depends on them, and they change no certificate.
    """
    environment, versions = _table(settings.get("environment")), _table(settings.get("versions"))
    hardware = _table(environment.get("hardware"))
    parts = []
    if day := _day(environment.get("date")):
        parts.append(f"on {day}")
    programs = [f"{name} {versions[name]}" for name in _PROGRAMS if isinstance(versions.get(name), str)]
    if programs:
        parts.append(f"with {', '.join(programs)}")
    if isinstance(name := hardware.get("processor"), str) and name:
        cores = hardware.get("cpus")
        parts.append(f"on {name}" + (f" ({cores} cores)" if isinstance(cores, int) and cores > 1 else ""))
    return f"Begun {' '.join(parts)}." if parts else ""


def _day(told: Any) -> str:
    try:
        return date.fromisoformat(told).strftime("%-d %B %Y") if isinstance(told, str) else ""
    except ValueError:
        return ""


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


__all__ = ["made_sentence"]
