"""What rounding explains: how far two evaluations of the same row may lie apart, and how far these do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A row is re-evaluated alone when its margin is below SAFETY times the largest difference
#: between batched and single evaluation seen in the probe (or the floor, if that is larger).
SAFETY = 64.0
FLOOR = {"fp32": 2.0**-18, "bf16": 2.0**-7, "fp64": 2.0**-44}
#: Above this relative difference the model is not the same function in a batch at all.
_LIMIT = {"fp32": 2.0**-10, "bf16": 2.0**-4, "fp64": 2.0**-20}
#: The same where ``torch.set_float32_matmul_precision`` allows TF32 or bfloat16 inside of products.
_FEWER_BITS = {"highest": 0.0, "high": 2.0**-7, "medium": 2.0**-4}
#: How much larger than a single evaluation's rounding error the difference to a batch may be: kernels
#: for one row add in short parts, those for many rows one term after the other.
ERRORS_APART = 128.0
#: A model whose float64 answers are farther away, relative to the usual score, is another function there.
ANOTHER = 2.0**-3


def explained(dtype: str) -> float:
    """The most that rounding explains between two evaluations, relative to the size of the scores."""
    # Torch may multiply float32 matrices in fewer bits when its user allows that.
    fewer = _FEWER_BITS[torch.get_float32_matmul_precision()] if dtype == "fp32" else 0.0
    return max(_LIMIT[dtype], fewer)


def usual_size(sizes: Tensor) -> float:
    """The median of the rows' finite sizes; 0 where there is none."""
    finite = sizes[sizes.isfinite()]
    return float(finite.median()) if finite.numel() else 0.0


def error_of(model: nn.Module, rows: Tensor, single: Tensor) -> float:
    """The largest rounding error of ``single``, the scores of the rows one by one, as float64 sees it.

    ``model`` is turned to float64 for this; 0 where it cannot be.
    """
    try:
        wide = model.double()
        with torch.inference_mode():
            exact = torch.cat([wide(row[None].double()).clone() for row in rows])
    except Exception:  # a model may be written for one precision and fail in another with any error
        return 0.0
    if exact.dtype != torch.float64 or exact.shape != single.shape:
        return 0.0
    return float((exact - single.double()).abs().nan_to_num(0.0, 0.0, 0.0).max())


def difference(scores: Tensor, expected: Tensor, unit: Tensor) -> float:
    """The largest, in units of ``unit``; infinite where only one of the two is a finite number.

    ``scores`` may hold the expected rows again and again: all places of a batch are compared.
    """
    worst = 0.0
    for part in scores.split(len(expected)):
        ours, one = expected[: len(part)], unit[: len(part)]
        if not torch.equal(part.isfinite(), ours.isfinite()):
            return float("inf")
        worst = max(worst, float(((part - ours).abs() / one).nan_to_num().max()))
    return worst


__all__ = ["ANOTHER", "ERRORS_APART", "FLOOR", "SAFETY", "difference", "error_of", "explained", "usual_size"]
