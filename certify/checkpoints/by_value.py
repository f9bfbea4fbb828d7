"""Weights compared by their values, where names cannot be: a library renamed them while it loaded them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from certify.checkpoints.candidates import Candidate, Leaf, type_of
from certify.wrapping import Wrapped


def holds_already(candidate: Candidate, network: nn.Module, fetch: Callable[[Leaf], Tensor]) -> bool:
    """Whether a network, as built, holds exactly the tensors of a file, under whatever names.

    Libraries that rename weights while they load them can build a network only together with its weights.
    """
    own: Any = network.model if isinstance(network, Wrapped) else network
    if not isinstance(own, nn.Module) or any(t.is_meta for t in own.state_dict().values()):
        return False
    mine = list(own.state_dict().values())
    shapes = [Counter((tuple(t.shape), kind) for t, kind in rows) for rows in (
        ((t, t.dtype) for t in mine), ((leaf, type_of(leaf)) for leaf in candidate.leaves.values()),
    )]  # fmt: skip
    if shapes[0] != shapes[1]:
        return False
    theirs = (fetch(leaf) for leaf in candidate.leaves.values())
    return Counter(map(_bytes_of, mine)) == Counter(map(_bytes_of, theirs))


def _bytes_of(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(
        f"{tuple(tensor.shape)}{tensor.dtype}".encode() + flat.numpy().tobytes()
    ).hexdigest()
