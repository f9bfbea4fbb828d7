"""State dicts inside a file, and how their names and shapes fit those of a network.

Training scripts save weights under many names, beside all sorts of things, and with the prefix of whatever
wrapped the network. Nothing is guessed from such names alone: a state dict is taken where every
name and shape of the network is found in it under one common prefix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from certify.files.pickle_machine import Opaque
from certify.files.pickle_plan import TensorPlan
from certify.files.stored import dtype_of

Leaf = Tensor | TensorPlan
_T = TypeVar("_T")
#: How deep a state dict is looked for, and among how many containers.
_DEPTH, _MOST = 5, 200
#: Prefixes that are tried in one container; a network's deepest name occurs in few places.
_PREFIXES = 256
#: Of a batch norm's three statistics the one that evaluation never reads; torch before 0.4.1 had none.
COUNTER = "num_batches_tracked"
#: Parts of a training script's module that are no part of the network's answer.
NORMALISERS = ("normalizer", "normalize", "normaliser")
_ASIDE = (
    *NORMALISERS, "criterion", "loss", "loss_fn", "loss_function", "attacker", "attack", "ema", "model_ema",
    "ema_model", "metric", "metrics", "train_metrics", "val_metrics",
)  # fmt: skip
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|polyak)(?![a-z])|averag")


@dataclass(frozen=True)
class Candidate:
    """Named tensors at one place of a file; ``others`` are its entries that are no tensors, in words."""

    entry: tuple[str, ...]
    leaves: Mapping[str, Leaf]
    others: Mapping[str, str]

    @property
    def name(self) -> str:
        return "/".join(self.entry)


@dataclass(frozen=True)
class Fit:
    """A state dict that has every weight of a network.

    Its names are the network's once ``removed`` is taken from their beginning and ``added`` put there.
    ``leaves`` bear the network's names; ``absent`` are counters that the file lacks; ``beside`` are the
    names in the same place that belong to no part of the network.
    """

    candidate: Candidate
    removed: str
    added: str
    leaves: Mapping[str, Leaf]
    absent: tuple[str, ...]
    beside: tuple[str, ...]

    @property
    def name(self) -> str:
        """What ``entry`` must be to choose this one."""
        return "/".join(part for part in (self.candidate.name, self.removed.rstrip(".")) if part)

    @property
    def averaged(self) -> bool:
        """Whether its place says that it is a running average of the weights."""
        return _AVERAGED.search(self.name.lower()) is not None

    def answers_to(self, entry: str) -> bool:
        """Whether ``entry`` names this place."""
        asked = entry.strip("/").rstrip(".")
        path = self.candidate.entry
        known = {self.name, self.candidate.name, ".".join(path), self.removed.rstrip("."), *path[-1:]}
        return asked in known


def candidates(content: Any) -> list[Candidate]:
    """Every mapping of names to tensors in the content of a file, the outermost first."""
    found = []
    for entry, mapping in _mappings(content):
        leaves = {name: leaf for name, leaf in mapping.items() if _is_leaf(leaf) and isinstance(name, str)}
        if leaves:
            others = {str(name): in_words(v) for name, v in mapping.items() if name not in leaves}
            found.append(Candidate(entry, leaves, others))
    return found


def fits(candidate: Candidate, own: Mapping[str, Tensor]) -> Iterator[Fit]:
    """Every way in which the candidate's names are those of a network's state dict ``own``."""
    for added, removed in _prefixes(candidate.leaves, own):
        fit = _fit(candidate, own, removed, added)
        if fit is not None:
            yield fit


def differences(candidate: Candidate, own: Mapping[str, Tensor]) -> tuple[str, list[str]]:
    """The prefix under which most names agree, and what is still different, in words."""
    prefixes = _likely_prefixes(candidate.leaves, own)
    rows = [(different(_under(candidate.leaves, p), own, aside=True, named=_under(candidate.others, p)), p)
            for p in prefixes]  # fmt: skip
    found, removed = min(rows, key=lambda row: len(row[0]))
    return removed, found


def type_of(leaf: Leaf) -> torch.dtype:
    """The element type of a tensor, read or not."""
    return leaf.dtype if isinstance(leaf, Tensor) else getattr(torch, dtype_of(leaf))


def in_words(value: Any) -> str:
    """What an entry of a file is, for a list of what was left out."""
    if isinstance(value, Opaque):
        return value.what
    if _is_leaf(value):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, bool | int | float | str | bytes | type(None)):
        return ascii(value)[:40]
    return (
        f"a {type(value).__name__} of {len(value)}"
        if hasattr(value, "__len__")
        else f"a {type(value).__name__}"
    )


def part_of(key: Any) -> str:
    """A key of a file as a part of an entry's name, fit to be printed."""
    return ascii(key)[1:-1] if isinstance(key, str) else in_words(key)


def normaliser_of(fit: Fit) -> list[str]:
    """Names of normalising constants that were left beside the network."""
    return [n for n in fit.beside if set(n.split(".")) & set(NORMALISERS) and "attack" not in n]


def known_aside(name: str) -> bool:
    """Whether a group of weights is a known part of training, not of a network's answer."""
    return bool(set(name.split(".")) & set(_ASIDE))


def same_kind(leaf: Leaf, wanted: Tensor) -> bool:
    """Whether the stored type can become the network's: floats of any width, all else only as it is."""
    stored = type_of(leaf)
    return stored == wanted.dtype or (stored.is_floating_point and wanted.dtype.is_floating_point)


# -- looking ------------------------------------------------------------------------------------


def _mappings(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Containers breadth first, without following one twice."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), content)]
    visited: set[int] = set()
    while todo and len(visited) < _MOST:
        entry, item = todo.pop(0)
        if id(item) in visited or len(entry) > _DEPTH:
            continue
        visited.add(id(item))
        if isinstance(item, Mapping):
            yield entry, item
            if not all(isinstance(key, int) for key in item):  # an optimizer's state of every parameter
                todo += [
                    ((*entry, part_of(k)), v) for k, v in item.items() if isinstance(v, dict | list | tuple)
                ]
        elif isinstance(item, list | tuple):
            todo += [
                ((*entry, str(i)), value) for i, value in enumerate(item[:_MOST]) if isinstance(value, dict)
            ]


def _is_leaf(value: Any) -> bool:
    return isinstance(value, Tensor | TensorPlan)


# -- fitting ------------------------------------------------------------------------------------


def _prefixes(leaves: Mapping[str, Leaf], own: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """(added, removed) prefixes under which one of the network's names occurs in the file."""
    required = [name for name in own if not name.endswith(COUNTER)] or list(own)
    if not required:
        return
    anchor = max(required, key=lambda name: (name.count("."), len(name)))
    for added in _own_prefixes(own):
        wanted = anchor.removeprefix(added)
        ends = [name for name in leaves if name == wanted or name.endswith(f".{wanted}")]
        for name in sorted(ends, key=len)[:_PREFIXES]:
            yield added, name.removesuffix(wanted)


def _likely_prefixes(leaves: Mapping[str, Leaf], own: Mapping[str, Tensor]) -> list[str]:
    """Prefixes under which most of a few of the network's names occur, whatever else is different."""
    votes = Counter("")
    for wanted in list(own)[:: max(1, len(own) // 40)]:
        ends = (name for name in leaves if name == wanted or name.endswith(f".{wanted}"))
        votes.update(name.removesuffix(wanted) for name in islice(ends, _PREFIXES))
    return [prefix for prefix, _ in votes.most_common(4)] or [""]


def _own_prefixes(own: Mapping[str, Tensor]) -> Iterator[str]:
    """The empty prefix, and each that all of the network's names share."""
    yield ""
    parts = next(iter(own)).split(".")[:-1]
    for count in range(1, len(parts) + 1):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in own):
            return
        yield prefix


def _fit(candidate: Candidate, own: Mapping[str, Tensor], removed: str, added: str) -> Fit | None:
    names = {name: removed + name.removeprefix(added) for name in own}
    leaves: dict[str, Leaf] = {}
    absent = []
    for name, wanted in own.items():
        leaf = candidate.leaves.get(names[name])
        if leaf is None and name.endswith(COUNTER):
            absent.append(name)
        elif leaf is None or tuple(leaf.shape) != tuple(wanted.shape) or not same_kind(leaf, wanted):
            return None
        else:
            leaves[name] = leaf
    used = set(names.values())
    beside = [name for name in candidate.leaves if name not in used]
    if any(name.startswith(removed) and not _aside(name.removeprefix(removed)) for name in beside):
        return None
    return Fit(candidate, removed, added, leaves, tuple(absent), tuple(beside))


def _under(named: Mapping[str, _T], prefix: str) -> dict[str, _T]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _aside(name: str) -> bool:
    return name.split(".")[0] in _ASIDE


def different(
    leaves: Mapping[str, Leaf],
    own: Mapping[str, Tensor],
    *,
    aside: bool = False,
    named: Mapping[str, str] | None = None,
) -> list[str]:
    """How names, shapes and types differ from those of a network, in words; batch counters may be absent.

    ``aside``: pass over parts of a training script's module that are no part of the network. ``named``:
    what stands in the file under other names, in words.
    """
    found = []
    for key in [*own, *(k for k in leaves if k not in own and not (aside and _aside(k)))]:
        if key not in leaves:
            if named and key in named:
                found.append(f"{key} is {named[key]} in the file, {tuple(own[key].shape)} in the network")
            elif not key.endswith(COUNTER):
                found.append(f"{key} {tuple(own[key].shape)} is missing from the file")
        elif key not in own:
            found.append(f"{key} {tuple(leaves[key].shape)} is not part of the network")
        elif tuple(own[key].shape) != tuple(leaves[key].shape):
            theirs, mine = tuple(leaves[key].shape), tuple(own[key].shape)
            found.append(f"{key} is {theirs} in the file, {mine} in the network")
        elif not same_kind(leaves[key], own[key]):
            found.append(f"{key} is {type_of(leaves[key])} in the file, {own[key].dtype} in the network")
    return found
