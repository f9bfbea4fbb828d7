"""Making sure that ``pdenets``, ``attacks``, ... are the ones installed beside this package.

Their names are ordinary words: a folder ``attacks`` or a file ``reports.py`` in the working
directory would be imported instead, silently, and its results would pass for this toolkit's.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from certify.errors import MissingExtra, ShadowedPackage

#: The packages that are installed together with this one, in the same folder.
SIBLINGS = ("pdenets", "attacks", "analysis", "reports", "certify_cli")

_HOME = Path(__file__).resolve().parent.parent


def check(*names: str) -> None:
    """Raise ShadowedPackage when one of these siblings would come (or came) from elsewhere.

    Nothing is imported. Raises MissingExtra when a sibling is not installed at all.
    """
    for name in names or SIBLINGS:
        found = _location(name)
        if found is None:
            raise MissingExtra(
                f"the package {name!r} is not installed beside certify",
                why=f"there is no {name} in {_HOME}",
                remedy="install the whole distribution again: pip install certify-robustness",
            )
        expected = _HOME / name
        if not _inside(found, expected):
            own_name = found.parent.name if found.name == "__init__.py" else found.name
            raise ShadowedPackage(
                f"the package {name!r} is shadowed by {found}",
                why=f"Python finds that file before this installation's own {expected}",
                remedy=f"rename {own_name}, or run from another folder (and check PYTHONPATH)",
            )


def _location(name: str) -> Path | None:
    """The file that is, or would be, imported as ``name``; None when there is none."""
    module = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return Path(module.__file__) if module is not None and module.__file__ else None
    if spec.origin and spec.origin not in ("namespace", "built-in", "frozen"):
        return Path(spec.origin)
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]) if places else None


def _inside(found: Path, folder: Path) -> bool:
    resolved = found.resolve()
    return resolved == folder or folder in resolved.parents
