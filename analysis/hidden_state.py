"""What of a network is not among its weights, and may have been learned from the data all the same.

A PAC-Bayes bound compares distributions over *weights*. It needs the map from weights to classifiers to
be fixed before the points are seen: running statistics, or data kept in a buffer, are part of that map, and
no KL divergence pays for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from certify.calls import checked
from certify.denoising import behind_denoiser
from certify.errors import InvalidModel, InvalidSetting

#: What the running statistics of a normalisation layer begin with.
_BEGINNING = {"running_mean": 0.0, "running_var": 1.0}
#: Counts batches; no answer in evaluation mode depends on it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class HiddenState:
    """Names of tensors that are no weights: known to have been ``learned``, or of ``unknown`` origin."""

    learned: tuple[str, ...]
    unknown: tuple[str, ...]


@checked
def hidden_state(model: nn.Module, fresh: nn.Module | None = None) -> HiddenState:
    """The buffers, and tensors kept as plain attributes, that differ from those of an untrained network.

    ``fresh`` is a network of the same architecture that has seen no data. Without one only the running
    statistics of normalisation layers are known to begin at 0 and 1; other tensors are unknown. Raises
    InvalidSetting where ``fresh`` has other weights by name or shape. A denoiser in front counts as learned
    whole: its weights or its few numbers were fitted to data that may be the points themselves.
    """
    if behind_denoiser(model) is not None:
        return HiddenState(("the denoiser in front",), ())
    if fresh is not None:
        _check_architecture(model, fresh)
    known = None if fresh is None else {name: tensor for name, tensor, _ in _state(fresh)}
    learned, unknown = [], []
    for name, tensor, owner in _state(model):
        leaf = name.rpartition(".")[2]
        if isinstance(owner, _NormBase) and leaf == _COUNTER:
            continue
        if known is not None:
            if name not in known or not _equal(tensor, known[name]):
                learned.append(name)
        elif isinstance(owner, _NormBase) and leaf in _BEGINNING:
            if not bool((tensor == _BEGINNING[leaf]).all()):
                learned.append(name)
        else:
            unknown.append(name)
    return HiddenState(tuple(learned), tuple(unknown))


def refuse_learned(found: HiddenState) -> None:
    """Raise InvalidModel where something beside the weights was learned."""
    if found.learned:
        raise InvalidModel(
            "PAC-Bayes over the weights does not bound this network",
            why=f"its {', '.join(found.learned[:3])} were learned from data, and are no weights that a prior "
            "could pay for",
            remedy="use the test-set bound, or a posterior trained on its own bound (--pac-bayes)",
        )


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module]]:
    """(name, tensor, module) of every tensor that is no parameter."""
    for prefix, module in model.named_modules():
        held = dict(module.named_buffers(recurse=False))
        held |= {
            k: v for k, v in vars(module).items() if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)
        }
        for leaf, tensor in held.items():
            yield f"{prefix}.{leaf}" if prefix else leaf, tensor, module


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left.detach().cpu(), right.detach().cpu().to(left.dtype))


def _check_architecture(model: nn.Module, fresh: nn.Module) -> None:
    ours, theirs = ({k: tuple(p.shape) for k, p in m.named_parameters()} for m in (model, fresh))
    if ours != theirs:
        raise InvalidSetting(
            "the fresh network is not of this architecture",
            why=f"{len(ours)} weights here, {len(theirs)} there, or other shapes",
            remedy="build it as the network was built, without training it",
        )
