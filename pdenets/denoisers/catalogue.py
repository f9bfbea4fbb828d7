"""The registered denoisers, each described by its own docstring."""

from __future__ import annotations

import inspect

from certify import registry


def denoiser_catalogue() -> list[tuple[str, str, str]]:
    """(name, what it is in one line, how it comes to its numbers) of every registered denoiser."""
    rows = []
    for name in registry.names(registry.DENOISERS):
        factory = registry.denoiser(name)
        text = (inspect.getdoc(factory) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")
        if getattr(factory, "learned", False):
            source = "trained"
        else:
            matched = [key for key, _ in getattr(factory, "matched", ())]
            source = f"matched: {', '.join(matched)}" if matched else "as given"
        rows.append((name, text, source))
    return rows
