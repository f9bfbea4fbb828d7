"""The standard deviation of the noise, checked where it enters."""

from __future__ import annotations

from typing import Any

import numpy as np

from certify.calls import shown
from certify.errors import InvalidSetting


def check_sigma(sigma: Any) -> Any:
    """``sigma`` as a float, or a float64 array where it is one; InvalidSetting unless finite and > 0."""
    try:
        values = np.asarray(sigma, dtype=np.float64)
    except Exception:  # text, ragged lists, tensors on another device: each has an error of its own
        values = np.empty(0)
    if values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidSetting(
            f"sigma = {shown(sigma)} cannot be used",
            why="sigma is the standard deviation of the noise: a finite number > 0",
            remedy="use the sigma the model was trained with, such as 0.25",
        )
    return float(values) if values.ndim == 0 else values
