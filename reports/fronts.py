"""What stood in front of the certified classifier: a denoiser, and how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.numbers import count


def denoiser_of(settings: Mapping[str, Any]) -> str | None:
    """The denoiser of a run in a few words, such as "unet, told sigma 0.25"; None for a run without one."""
    row = _table(_table(settings.get("model")).get("denoiser"))
    if not row:
        return None
    kind = str(row.get("architecture") or str(row.get("kind", "of its own")).rpartition(".")[2])
    told = row.get("sigma")
    return f"{kind}, told sigma {told:g}" if isinstance(told, int | float) else kind


def front_sentences(settings: Mapping[str, Any]) -> list[str]:
    """What a denoiser in front means for the guarantee; nothing for a run without one."""
    found = denoiser_of(settings)
    if found is None:
        return []
    said = [
        f"It is about the classifier and the denoiser in front of it ({found}) as one: the noisy input is "
        "denoised, then classified. Neither part has this certificate without the other."
    ]
    choice = _table(settings.get("denoiser_choice"))
    if choice:
        seen = _table(settings.get("environment")).get("pilot_inputs")
        pilot = f"{count(seen)} pilot inputs" if isinstance(seen, int) else "pilot inputs"
        names = choice.get("candidates")
        several = f"{len(names)} denoisers" if isinstance(names, list) else "several denoisers"
        said.append(
            f"The denoiser was chosen among {several} on {pilot} that are not among these inputs, under "
            "noise of their own: the choice costs no error probability and flatters no figure."
        )
    return said


def front_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Names and digests of both parts, for a model card; nothing for a run without a denoiser."""
    model = _table(settings.get("model"))
    row = _table(model.get("denoiser"))
    if not row:
        return {}
    return {
        "denoiser": denoiser_of(settings),
        "denoiser digest": row.get("digest"),
        "classifier digest": _table(model.get("classifier")).get("digest"),
    }


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
