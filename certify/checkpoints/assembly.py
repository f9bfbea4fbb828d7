"""Putting weights into an architecture: every name, shape and type must agree before one is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.checkpoints.by_value import holds_already
from certify.checkpoints.candidates import (
    COUNTER,
    Leaf,
    candidates,
    different,
    in_words,
)
from certify.checkpoints.folder import INDEX, WHOLE
from certify.checkpoints.loaded import Loaded, choose, loaded_of, refuse
from certify.contract import check_weight
from certify.errors import ArchitectureMismatch, CertifyError, InvalidModel, UnreadableFile, UntrustedFile
from certify.files.legacy_archive import RESAVE
from certify.files.pickle_machine import Opaque
from certify.files.safe import untrusted
from certify.registry import GROUP, accepted, architecture, missing
from certify.wrapping import Wrapped

#: What a data set can tell a factory.
SHAPES = ("num_classes", "input_shape")
#: What a network may need beyond its stored weights (buffers that are not saved), in bytes.
SLACK = 2**24


@dataclass(frozen=True)
class Source:
    """What a file holds: containers with tensors, or plans of them, which ``tensor`` reads."""

    path: Path
    content: Any
    tensor: Callable[[Leaf], Tensor]
    note: str | None = None


def assemble(
    name: str,
    arguments: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    *,
    offered: Mapping[str, Any] | None = None,
    trusted_name: bool,
    group: str = GROUP,
) -> nn.Module:
    """Build the architecture, compare it with the weights, load them, and switch to eval mode.

    ``group``: among which names ``name`` is looked up (``certify.registry``).
    The factory gets all ``arguments``, and of what is ``offered`` beside them what it takes.
    The network is first laid out without memory, so that arguments which describe a
    giant are refused rather than allocated. The caller's random stream is left as it was.
    Floating-point weights become the network's own type. Raises UntrustedFile, ArchitectureMismatch,
    InvalidModel.
    """
    plan = _Building(name, arguments, offered, trusted_name, group)
    for key, tensor in state_dict.items():
        check_weight(key, tensor)
    _compare(name, plan.own, state_dict, plan.arguments)
    return plan.filled(state_dict)


def assemble_found(
    name: str,
    arguments: Mapping[str, Any],
    stored: Source,
    *,
    offered: Mapping[str, Any] | None = None,
    entry: str | None = None,
) -> tuple[nn.Module, Loaded]:
    """As ``assemble``, with the state dict that fits found among a file's contents, at ``entry`` if given.

    A network inside ``certify.wrap`` is filled from a state dict of its own, too. Raises InvalidSetting
    for an entry that is not there.
    """
    plan = _Building(name, arguments, offered, trusted_name=True)
    found = candidates(stored.content)
    if not found:
        raise no_weights(stored)
    for inside in (False, *([True] if plan.wraps else [])):
        own = plan.inner if inside else plan.own
        chosen = choose(found, own, stored.tensor, entry)
        if chosen is not None:
            fit, others = chosen
            state = {key: stored.tensor(leaf) for key, leaf in fit.leaves.items()}
            for key, tensor in state.items():
                check_weight(key, tensor)
            loaded = loaded_of(fit, others, stored.content, stored.tensor)
            notes = [stored.note] if stored.note else []
            notes += ["the weights are those of the model inside certify.wrap"] if inside else []
            loaded = replace(loaded, converted=converted(state, own), notes=(*notes, *loaded.notes))
            return plan.filled(state, inside=inside), loaded
    network = plan.built()
    for candidate in found:
        asked = entry in (None, candidate.name, *candidate.entry[-1:])
        if asked and holds_already(candidate, network, stored.tensor):
            return network.eval(), Loaded(
                candidate.name,
                choice=candidate.name,
                notes=(
                    f"the factory loaded these {len(candidate.leaves)} tensors itself, under its own names",
                ),
            )
    hub = stored.path.name == INDEX or stored.path.name in WHOLE
    raise refuse(name, found, plan.inner if plan.wraps else plan.own, entry, plan.described, hub=hub)


class _Building:
    """An architecture laid out, to be compared with weights, and then built and filled."""

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        offered: Mapping[str, Any] | None,
        trusted_name: bool,
        group: str = GROUP,
    ) -> None:
        if ":" in name and not trusted_name:
            raise UntrustedFile(
                f"the checkpoint names its network as {name!r}",
                why="importing that module runs its code, on nothing but the file's word",
                remedy=f"if you know this module, confirm it: --arch {name} "
                f"(certify.load(path, arch={name!r}))",
            )
        self.name = name
        self.factory = architecture(name, group)
        self.arguments = accepted(self.factory, offered or {}) | dict(arguments)
        self.layout = _layout(self.factory, name, self.arguments)
        self.model = _call(self.factory, name, self.arguments) if self.layout is None else self.layout
        self.wraps = isinstance(self.model, Wrapped) and isinstance(self.model.model, nn.Module)

    @property
    def own(self) -> dict[str, Tensor]:
        """The names, shapes and types of the network's state dict."""
        return self.model.state_dict()

    @property
    def inner(self) -> dict[str, Tensor]:
        """The same of the network inside ``certify.wrap``."""
        return self.model.model.state_dict()  # type: ignore[union-attr, operator]

    @property
    def described(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.arguments.items()) or "no arguments"

    def built(self) -> nn.Module:
        """The network as its factory makes it, outside the layout without memory."""
        return self.model if self.layout is None else _call(self.factory, self.name, self.arguments)

    def filled(self, state: Mapping[str, Tensor], *, inside: bool = False) -> nn.Module:
        """The network with these weights, in eval mode; batch counters that they lack stay as built."""
        if self.layout is not None:
            _check_size(self.name, self.layout, state)
            self.model = _call(self.factory, self.name, self.arguments)
        target: Any = self.model.model if inside else self.model
        own = target.state_dict()
        counters = {key: value for key, value in own.items() if key.endswith(COUNTER) and key not in state}
        weights = _narrowed(state, own) | counters
        try:
            target.load_state_dict(weights, strict=True)
        except (RuntimeError, ValueError, TypeError) as error:
            raise _mismatch(self.name, str(error).splitlines()[0], self.arguments) from error
        return self.model.eval()


def _layout(factory: Any, name: str, arguments: Mapping[str, Any]) -> nn.Module | None:
    """The network on the meta device: names and shapes without memory. None if it cannot be laid out."""
    try:
        with torch.device("meta"):
            return _call(factory, name, arguments)
    except (ArchitectureMismatch, NotImplementedError, RuntimeError):
        # A factory that computes with values while building fails here and is then built for real,
        # which also reports its own errors.
        return None


def _call(factory: Any, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            model = factory(**arguments)
    except CertifyError:
        raise
    except NotImplementedError:
        raise
    except Exception as error:
        lacking = missing(factory, arguments)
        if lacking and not set(lacking) - set(SHAPES):
            remedy = "add --data (certify.load(path, arch=..., data=...)): the data set gives them"
        else:
            remedy = "check the arguments stored in the checkpoint or given as --arch-args: " + (
                ", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "there are none"
            )
        raise ArchitectureMismatch(
            f"the architecture {name!r} could not be built",
            why=f"it needs {' and '.join(lacking)}" if lacking else f"{type(error).__name__}: {error}",
            remedy=remedy,
        ) from error
    if not isinstance(model, nn.Module):
        raise ArchitectureMismatch(
            f"the architecture {name!r} returned a {type(model).__name__}",
            why="a factory must return a torch.nn.Module",
            remedy="return the module itself",
        )
    return model


def _compare(
    name: str, own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]
) -> None:
    found = different(state_dict, own)
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise _mismatch(name, "; ".join(found[:4]) + more, arguments)


def _narrowed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the network's types, each rounded to the nearest. Raises InvalidModel for overflow."""
    found = {}
    for key, tensor in state.items():
        found[key] = tensor if tensor.dtype == own[key].dtype else tensor.to(own[key].dtype)
        if found[key] is not tensor and not bool(torch.isfinite(found[key]).all()):
            raise InvalidModel(
                f"the weight {key!r} has values beyond {own[key].dtype}",
                why=f"the file stores it as {tensor.dtype}, the network computes in {own[key].dtype}",
                remedy="save the network in the type it computes in: model.float()",
            )
    return found


def converted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Which types of weights become which others in the network, in words."""
    pairs = Counter((t.dtype, own[key].dtype) for key, t in state.items() if t.dtype != own[key].dtype)
    name = {kind: str(kind).removeprefix("torch.") for pair in pairs for kind in pair}
    how = {(a, b): "widened" if torch.promote_types(a, b) == b else "rounded" for a, b in pairs}
    return tuple(f"{name[a]} weights {how[a, b]} to {name[b]}" for a, b in pairs)


def no_weights(stored: Source) -> UnreadableFile | UntrustedFile:
    """The error for a file without a single named tensor."""
    content = stored.content
    if isinstance(content, Opaque):
        return untrusted(
            stored.path,
            f"it is {content.what}, not weights: building it runs code that the file names",
            RESAVE,
        )
    opaque = (
        {}
        if not isinstance(content, Mapping)
        else {k: v for k, v in content.items() if isinstance(v, Opaque)}
    )
    if opaque:
        name, value = next(iter(opaque.items()))
        return untrusted(
            stored.path,
            f"it holds no weights, and its entry {ascii(name)[:60]} is {value.what}: building that runs code",
            RESAVE,
        )
    return UnreadableFile(
        f"{stored.path} holds no state dict",
        why=f"it contains {in_words(content) if content != {} else 'nothing'}",
        remedy="write it with certify.save, or torch.save(model.state_dict(), path)",
    )


def _check_size(name: str, layout: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    parts = {id(t): t for t in [*layout.parameters(), *layout.buffers()]}
    needed = sum(t.numel() * t.element_size() for t in parts.values())
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state_dict.values()}
    stored = sum(storages.values())
    if needed > 2 * stored + SLACK:
        raise UntrustedFile(
            f"the network {name!r} would take {needed} bytes",
            why=f"the file holds {stored} bytes of weights; the rest would be made of nothing",
            remedy="do not use this file; get it again from its author",
        )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}"


def _mismatch(name: str, why: str, arguments: Mapping[str, Any]) -> ArchitectureMismatch:
    built = ", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "no arguments"
    return ArchitectureMismatch(
        f"the weights do not belong to the architecture {name!r}",
        why=why,
        remedy="use the architecture and arguments the weights were trained with (no weight was loaded); "
        f"this network was built with {built}",
    )
