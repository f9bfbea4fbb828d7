"""A run as a caller names it: its directory, or what was read from one."""

from __future__ import annotations

import os
from typing import Any

from certify.calls import shown
from certify.errors import InvalidInput
from certify.store import read_run


def opened(run: Any) -> Any:
    """The stored run behind a directory, or ``run`` itself. Raises InvalidInput for what is neither."""
    if isinstance(run, str | os.PathLike):
        return read_run(run)
    if all(hasattr(run, part) for part in ("run", "settings", "path")):
        return run
    raise InvalidInput(
        f"{shown(run)} is no run",
        why="reports are made from the evidence in a run directory",
        remedy="pass the directory, or what certify.store.read_run(DIRECTORY) returns",
    )
