"""Prove, attack and bound claims about neural networks, with evidence others can check.

Names are resolved on first use, so that reading a record or checking a bound never
pays for (or needs) torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certify.checkpoints import load as load
    from certify.errors import CertifyError as CertifyError
    from certify.records import Estimate as Estimate
    from certify.records import Record as Record
    from certify.records import Run as Run
    from certify.records import Status as Status
    from certify.smoothing import Smoothed as Smoothed

__version__ = "0.1.0.dev0"

_HOME = {
    "load": "certify.checkpoints",
    "CertifyError": "certify.errors",
    "Estimate": "certify.records",
    "Record": "certify.records",
    "Run": "certify.records",
    "Status": "certify.records",
    "Smoothed": "certify.smoothing",
}
_MODULES = (
    "bounds",
    "checkpoints",
    "data",
    "errors",
    "noise",
    "radii",
    "records",
    "registry",
    "sequential",
    "smoothing",
    "store",
    "verification",
)

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"certify.{name}")
    raise AttributeError(f"module 'certify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
