"""Which of a file's contents became the network: chosen, said and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from certify.checkpoints.candidates import (
    NORMALISERS,
    Candidate,
    Fit,
    Leaf,
    differences,
    fits,
    in_words,
    known_aside,
    normaliser_of,
    part_of,
)
from certify.errors import ArchitectureMismatch, InvalidSetting

_SHOWN = 6
#: More places than any file has in which one network fits.
_MANY = 64


class LeftOut(UserWarning):
    """A file holds other weights than those that were taken."""


@dataclass(frozen=True)
class Loaded:
    """What was taken from a file that does not describe itself, and what was left.

    ``entry``: where the weights were. ``choice``: what finds them again (``certify.load(path, entry=...)``).
    ``removed`` and ``added``: prefixes of the file's and of the network's names. ``converted``: types that
    were changed ("float64 to float32"). ``absent``: batch counters that the file lacks. ``alternatives``:
    entries that fit, too, with other weights. ``left``: groups of weights beside the network's that
    are no known part of training. ``ignored``: everything else in the file. ``notes``: what else a
    user should know.
    """

    entry: str
    choice: str = ""
    removed: str = ""
    added: str = ""
    converted: tuple[str, ...] = ()
    absent: int = 0
    alternatives: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for the settings of a run."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @property
    def doubtful(self) -> bool:
        """Whether the file holds other weights that could have been meant, or that the answer may need."""
        return bool(self.alternatives or self.left)

    def lines(self) -> list[str]:
        """What a user is told, a line each."""
        said = [f"entry {self.entry!r}"] if self.entry else []
        said += [f"prefix {self.removed!r} removed"] if self.removed else []
        said += [f"prefix {self.added!r} added"] if self.added else []
        said += list(self.converted)
        said += [f"{self.absent} batch counters absent (evaluation reads none)"] if self.absent else []
        found = [f"loaded: {', '.join(said)}"] if said else []
        if self.alternatives:
            others = ", ".join(f"--entry {name}" for name in self.alternatives)
            found.append(f"other weights in the file fit, too: {others}")
        if self.left:
            found.append(f"weights beside the network's, left out: {_listed(self.left)}")
        if self.ignored:
            found.append(f"ignored: {_listed(self.ignored)}")
        return [*found, *self.notes]


def choose(
    found: Sequence[Candidate], own: Mapping[str, Tensor], fetch: Callable[[Leaf], Tensor], entry: str | None
) -> tuple[Fit, list[Fit]] | None:
    """The state dict that fits a network, and others that fit with other weights. None where none fits.

    Of raw weights and their running average the raw ones are taken. Raises ArchitectureMismatch
    where several fit and nothing says which is meant.
    """
    every = (fit for candidate in found for fit in fits(candidate, own))
    named = list(islice((fit for fit in every if entry is None or fit.answers_to(entry)), _MANY))
    distinct: list[Fit] = []
    for fit in sorted(
        named, key=lambda f: (f.averaged, len(f.candidate.entry), len(f.removed), len(f.added))
    ):
        if not any(_equal(fit, other, fetch) for other in distinct):
            distinct.append(fit)
    if not distinct:
        return None
    raw = [fit for fit in distinct if not fit.averaged] or distinct
    if len(raw) > 1:
        names = [fit.name or "(the outermost)" for fit in raw]
        raise ArchitectureMismatch(
            "the file holds several networks that fit the architecture",
            why=f"with different weights: {', '.join(names[:_SHOWN])}",
            remedy=f"choose one: --entry {names[0]} (certify.load(path, entry={names[0]!r}))",
        )
    return raw[0], [fit for fit in distinct if fit is not raw[0]]


def loaded_of(fit: Fit, others: Sequence[Fit], content: Any, fetch: Callable[[Leaf], Tensor]) -> Loaded:
    """What to say about the state dict that was taken; ``content``: the whole file."""
    aside = sorted({_group(ascii(name)[1:-1]) for name in fit.beside})
    taken = {other.candidate.name for other in others}
    elsewhere = [f"{name} ({what})" for name, what in _left(content, fit.candidate) if name not in taken]
    return Loaded(
        entry=fit.candidate.name,
        choice=fit.name,
        removed=ascii(fit.removed)[1:-1],
        added=fit.added,
        absent=len(fit.absent),
        alternatives=tuple(other.name for other in others),
        ignored=(*elsewhere, *(f"{n} (weights)" for n in aside if known_aside(n) and not _normalises(n))),
        left=tuple(name for name in aside if not known_aside(name) or _normalises(name)),
        notes=tuple(_about_normaliser(fit, names, fetch) for names in [normaliser_of(fit)] if names),
    )


def refuse(
    name: str,
    found: Sequence[Candidate],
    own: Mapping[str, Tensor],
    entry: str | None,
    built_with: str,
    *,
    hub: bool,
) -> ArchitectureMismatch | InvalidSetting:
    """The error where no state dict fits: what is different in the one that comes closest.

    ``hub``: the file is part of a folder as Hugging Face writes it.
    """
    asked = [c for c in found if entry is None or entry in (c.name, *c.entry[-1:])] if entry else list(found)
    if not asked:
        names = ", ".join(c.name or "(the outermost)" for c in found[:_SHOWN])
        return InvalidSetting(
            f"there is no entry {entry!r} whose weights fit the network",
            why=f"the file holds tensors at {names}",
            remedy="name one of these with --entry, or leave it out",
        )
    rows = [(len(different), candidate, removed, different) for candidate in asked
            for removed, different in [differences(candidate, own)]]  # fmt: skip
    _, candidate, removed, different = min(rows, key=lambda row: row[0])
    more = f"; and {len(different) - 4} more" if len(different) > 4 else ""
    where = f" (its entry {candidate.name!r})" if candidate.name else ""
    where += f" (names without {removed!r})" if removed else ""
    return ArchitectureMismatch(
        f"the weights do not belong to the architecture {name!r}{where}",
        why="; ".join(different[:4]) + more,
        remedy="use the architecture and arguments the weights were trained with (no weight was loaded); "
        f"this network was built with {built_with}"
        + ". transformers renames weights while it loads them: let the factory call from_pretrained"
        * hub,
    )


def _equal(one: Fit, other: Fit, fetch: Callable[[Leaf], Tensor]) -> bool:
    """Whether two places hold the same weights: the same numbers in the file, or equal ones."""
    if set(one.leaves) != set(other.leaves):
        return False
    pairs = [(leaf, other.leaves[name]) for name, leaf in one.leaves.items()]
    return all(
        a is b or (not isinstance(a, Tensor) and a == b) or torch.equal(fetch(a), fetch(b)) for a, b in pairs
    )


def _left(content: Any, candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Everything on the way to a state dict that does not lead to it, and what in it is no tensor."""
    level, path = content, ""
    for part in candidate.entry:
        rows = [
            (part_of(key), v)
            for key, v in (level.items() if isinstance(level, Mapping) else enumerate(level))
        ]
        yield from ((path + name, in_words(value)) for name, value in rows if name != part)
        level, path = dict(rows)[part], f"{path}{part}/"
    yield from ((path + part_of(name), what) for name, what in candidate.others.items())


def _normalises(name: str) -> bool:
    return bool(set(name.split(".")) & set(NORMALISERS))


def _group(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] in ("module", "model") else 1])


def _about_normaliser(fit: Fit, names: list[str], fetch: Callable[[Leaf], Tensor]) -> str:
    """The constants beside a network that wants normalised inputs, as options of the command."""
    shown = []
    for name in names[:4]:
        leaf = fit.candidate.leaves[name]
        values = fetch(leaf).flatten().tolist() if len(leaf.shape) <= 4 else []
        shown.append(f"{name} = {', '.join(f'{v:.4g}' for v in values[:4])}")
    return (
        f"a normaliser stands beside the network and is no part of it: {'; '.join(shown)}. If the network "
        "wants normalised inputs, put it in front: --mean ... --std ... (certify.wrap(model, mean=, std=))"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2 * _SHOWN} more" if len(names) > 2 * _SHOWN else ""
    return ", ".join(names[: 2 * _SHOWN]) + more
