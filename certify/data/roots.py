"""Where data files are looked for: --data-root, then CERTIFY_DATA, then ~/.cache/certify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from certify.errors import DataNotFound


def data_root(root: str | Path | None) -> Path:
    """The folder that holds one folder per data set."""
    if root is not None:
        return Path(root).expanduser()
    return Path(os.environ.get("CERTIFY_DATA") or "~/.cache/certify").expanduser()


def find_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first existing file of one of these names in one of these folders."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def not_found(dataset: str, root: Path, layout: str, *, download: bool = False) -> DataNotFound:
    """The error for a data set whose files are not there: where, in which layout, what to do."""
    fetch = (
        f", or fetch it: certify train --data {dataset} --download --out {dataset}.pt "
        f'(in Python: certify.data.load("{dataset}", download=True))'
    )
    return DataNotFound(
        f"data set {dataset!r} was not found under {root}",
        why=f"expected {layout}",
        remedy=f"give its folder with --data-root (or the variable CERTIFY_DATA){fetch if download else ''}",
    )
