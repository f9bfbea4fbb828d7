"""Putting weights into an architecture: every name, shape and type must agree before one is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from certify.contract import check_weight
from certify.errors import ArchitectureMismatch, CertifyError, UntrustedFile
from certify.registry import accepted, architecture

#: What a network may need beyond its stored weights (buffers that are not saved), in bytes.
SLACK = 2**24


def assemble(
    name: str,
    arguments: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    *,
    offered: Mapping[str, Any] | None = None,
    trusted_name: bool,
) -> nn.Module:
    """Build the architecture, compare it with the weights, load them, and switch to eval mode.

    The factory gets all ``arguments``, and of what is ``offered`` beside them what it takes.
    The network is first laid out without memory, so that arguments which describe a
    giant are refused rather than allocated. The caller's random stream is left as it was.
    Raises UntrustedFile, ArchitectureMismatch, InvalidModel.
    """
    if ":" in name and not trusted_name:
        raise UntrustedFile(
            f"the checkpoint names its network as {name!r}",
            why="importing that module runs its code, on nothing but the file's word",
            remedy=f"if you know this module, confirm it: --arch {name} (certify.load(path, arch={name!r}))",
        )
    factory = architecture(name)
    arguments = accepted(factory, offered or {}) | dict(arguments)
    for key, tensor in state_dict.items():
        check_weight(key, tensor)
    layout = _layout(factory, name, arguments)
    if layout is not None:
        _compare(name, layout, state_dict, arguments)
        _check_size(name, layout, state_dict)
    model = _call(factory, name, arguments)
    if layout is None:
        _compare(name, model, state_dict, arguments)
    try:
        model.load_state_dict(dict(state_dict), strict=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _mismatch(name, str(error).splitlines()[0], arguments) from error
    return model.eval()


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
        raise ArchitectureMismatch(
            f"the architecture {name!r} could not be built",
            why=f"{type(error).__name__}: {error}",
            remedy="check the arguments stored in the checkpoint or given as --arch-args: "
            + (", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "there are none"),
        ) from error
    if not isinstance(model, nn.Module):
        raise ArchitectureMismatch(
            f"the architecture {name!r} returned a {type(model).__name__}",
            why="a factory must return a torch.nn.Module",
            remedy="return the module itself",
        )
    return model


def _compare(
    name: str, model: nn.Module, state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]
) -> None:
    own = model.state_dict()
    found = []
    for key in [*own, *(k for k in state_dict if k not in own)]:
        if key not in state_dict:
            found.append(f"{key} {_form(own[key])} is missing from the file")
        elif key not in own:
            found.append(f"{key} {_form(state_dict[key])} is not part of the network")
        elif own[key].shape != state_dict[key].shape:
            found.append(f"{key} is {_form(state_dict[key])} in the file, {_form(own[key])} in the network")
        elif not _fits(state_dict[key].dtype, own[key].dtype):
            found.append(f"{key} is {state_dict[key].dtype} in the file, {own[key].dtype} in the network")
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise _mismatch(name, "; ".join(found[:4]) + more, arguments)


def _fits(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """The same type, or a floating type that holds every stored value exactly."""
    if stored == wanted:
        return True
    floating = stored.is_floating_point and wanted.is_floating_point
    return floating and torch.promote_types(stored, wanted) == wanted


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
