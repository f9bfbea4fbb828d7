"""What a model is made of besides its weights, as digests: its code and everything that the code refers to.

Two functions that agree on every probe may still be different classifiers, and two torch modules of
equal weights as well (a threshold, an activation, another class). So the code is read, with constants,
defaults, captured variables, the attributes of objects, and the global names that the code loads, and from
each on to whatever it refers to in turn. Installed libraries count by name, for plain functions by
version, too. Of a torch module counts what a call of it can reach (``certify.reached``): how often it was
trained, say, is no content.

Not seen: names looked up while the function runs (files, other processes). What has no readable content
(open files, objects of C extensions) is named as unchecked rather than left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from certify.reached import Reached, library
from certify.reading import Reader, hashed, parts_of


@dataclass(frozen=True)
class Contents:
    """Digest of each part of a model ("code", "captured w", "attribute scale"), and what has none."""

    parts: Mapping[str, str]
    unchecked: tuple[str, ...] = ()

    def constant(self, *later: Contents) -> Contents:
        """Without the parts that a call changed: counters and caches are no content."""
        kept = {n: d for n, d in self.parts.items() if all(one.parts.get(n) == d for one in later)}
        every = {name for one in (self, *later) for name in one.parts}
        moved = {f"{name}: changes when it is called" for name in every - set(kept)}
        unread = {what for one in (self, *later) for what in one.unchecked}
        return Contents(kept, tuple(sorted(unread | moved)))


def contents(function: Any) -> Contents:
    """The parts of ``function``, a callable that is no torch module."""
    parts: dict[str, str] = {}
    unchecked: set[str] = set()
    for name, value, names in parts_of(function):
        reader = Reader()
        found = hashed(parts.get(name, ""), reader.read(value, names))  # two may have one name: both count
        parts[name] = found.hex()[:32]
        unchecked |= {f"{name}: {what}" for what in reader.unchecked}
    return Contents(parts, tuple(sorted(unchecked)))


def model_contents(model: Any) -> Contents:
    """What a model is made of besides its weights."""
    return module_contents(model) if isinstance(model, nn.Module) else contents(model)


def module_contents(network: nn.Module) -> Contents:
    """The parts of a torch module, weights apart; plain functions in ``certify.wrap`` part by part."""
    reader = Reader(Reached(network))
    parts = {name: digest.hex()[:32] for name, digest in reader.network_parts(network).items()}
    unchecked = set(reader.unchecked)
    for at, function in _plain_functions(network):
        found = contents(function)
        parts |= {f"{at}{name}": digest for name, digest in found.parts.items()}
        unchecked |= {f"{at}{what}" for what in found.unchecked}
    return Contents(parts, tuple(sorted(unchecked)))


def _plain_functions(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The callables in this package's wrappers that are no modules, each with the prefix of its place."""
    for path, part in network.named_modules():
        if type(part).__module__.split(".")[0] != "certify":
            continue
        for name, prefix in (("model", ""), ("denoiser", "denoiser: ")):
            if (function := vars(part).get(name)) is not None:
                yield (f"{path}: " if path else "") + prefix, function


__all__ = ["Contents", "contents", "library", "model_contents", "module_contents"]
