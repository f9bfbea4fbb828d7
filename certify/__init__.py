"""Prove, attack and bound claims about neural networks, with evidence others can check.

Names are resolved on first use, so that reading a record or checking a bound never
pays for (or needs) torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certify import bounds as bounds
    from certify import checkpoints as checkpoints
    from certify import data as data
    from certify import errors as errors
    from certify import noise as noise
    from certify import radii as radii
    from certify import records as records
    from certify import registry as registry
    from certify import sequential as sequential
    from certify import smoothing as smoothing
    from certify import store as store
    from certify import verification as verification
    from certify.checkpoints import load as load
    from certify.checkpoints.own import save_own as save
    from certify.denoising import denoised as denoised
    from certify.dense.run import SegmentationRun as SegmentationRun
    from certify.dense.smoothing import SmoothedSegmentation as SmoothedSegmentation
    from certify.errors import CertifyError as CertifyError
    from certify.records import Estimate as Estimate
    from certify.records import Record as Record
    from certify.records import Run as Run
    from certify.records import Status as Status
    from certify.smoothing import Smoothed as Smoothed
    from certify.wrapping import wrap as wrap

__version__ = "0.1.0"

_HOME = {
    "load": "certify.checkpoints.load",
    "save": "certify.checkpoints.own.save_own",
    "CertifyError": "certify.errors.CertifyError",
    "Estimate": "certify.records.Estimate",
    "Record": "certify.records.Record",
    "Run": "certify.records.Run",
    "Status": "certify.records.Status",
    "Smoothed": "certify.smoothing.Smoothed",
    "SegmentationRun": "certify.dense.run.SegmentationRun",
    "SmoothedSegmentation": "certify.dense.smoothing.SmoothedSegmentation",
    "denoised": "certify.denoising.denoised",
    "wrap": "certify.wrapping.wrap",
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

__all__ = [
    "CertifyError",
    "Estimate",
    "Record",
    "Run",
    "SegmentationRun",
    "Smoothed",
    "SmoothedSegmentation",
    "Status",
    "bounds",
    "checkpoints",
    "data",
    "denoised",
    "errors",
    "load",
    "noise",
    "radii",
    "records",
    "registry",
    "save",
    "sequential",
    "smoothing",
    "store",
    "verification",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, _, attribute = _HOME[name].rpartition(".")
        return getattr(importlib.import_module(module), attribute)
    if name in _MODULES:
        return importlib.import_module(f"certify.{name}")
    raise AttributeError(f"module 'certify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
