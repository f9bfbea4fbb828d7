"""A run that was made in memory, written as a run directory."""

from __future__ import annotations

import os
from pathlib import Path

from certify.errors import InvalidSetting
from certify.records import Run
from certify.store import open_run
from certify.verification.witness import PLAN

#: Modes whose certificates rest on boundaries that were declared before the first sample.
_SEQUENTIAL = ("radius", "grid", "decide")


def keep(run: Run, path: str | os.PathLike[str]) -> Path:
    """See ``Run.save``."""
    sequential = run.settings.get("mode") in _SEQUENTIAL and run.settings.get("scores", "votes") == "votes"
    if sequential and PLAN not in run.documents:
        raise InvalidSetting(
            "this run cannot be saved",
            why="the boundaries of its sequential tests are not at hand, and its certificates rest on them",
            remedy="copy the directory that it was read from, or certify with store=DIRECTORY",
        )
    place = Path(path)
    with open_run(place, run.settings, run.guarantee) as store:
        for name, body in run.documents.items():
            store.put_document(name, body)
        store.add_all(run.records)
    return place
