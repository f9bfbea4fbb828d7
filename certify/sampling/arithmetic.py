"""The settings of this process that change how torch computes, beside the model and its inputs.

They hold for the whole process and may change between two calls: what was measured about rounding
under some of them says nothing under others.
"""

from __future__ import annotations

from functools import reduce

import torch

#: Where torch keeps them: values, or functions without arguments.
_PLACES = (
    "get_num_threads", "are_deterministic_algorithms_enabled", "get_float32_matmul_precision",
    "backends.fp32_precision", "backends.cuda.matmul.fp32_precision", "backends.cuda.matmul.allow_tf32",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32", "backends.cudnn.conv.fp32_precision", "backends.cudnn.rnn.fp32_precision",
    "backends.mkldnn.enabled", "backends.mkldnn.matmul.fp32_precision", "backends.mkldnn.conv.fp32_precision",
    "backends.cuda.flash_sdp_enabled", "backends.cuda.mem_efficient_sdp_enabled",
    "backends.cuda.math_sdp_enabled", "backends.cuda.cudnn_sdp_enabled",
)  # fmt: skip


def arithmetic(device: torch.device) -> tuple[tuple[str, str], ...]:
    """Every such setting with its value in this thread, for a model on ``device``."""
    autocast = str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else "off"
    return (("autocast", autocast), *((place, _value(place)) for place in _PLACES))


def _value(place: str) -> str:
    try:
        found = reduce(getattr, place.split("."), torch)
        return str(found() if callable(found) else found)
    except (RuntimeError, AttributeError):  # torch was told by another name, or does not know this one
        return ""
