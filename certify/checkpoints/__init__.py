"""Checkpoints that describe themselves, in formats that cannot run code.

``save`` writes a network with its ``Header``; ``load`` gives it back ready to certify. Both formats,
``.safetensors`` and weights-only ``.pt``, carry the same header.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify import registry
from certify.arguments import measured_classes
from certify.calls import checked
from certify.checkpoints.assembly import Source, assemble, assemble_found, converted
from certify.checkpoints.folder import weights_file
from certify.checkpoints.header import Header, encode
from certify.checkpoints.loaded import LeftOut, Loaded
from certify.checkpoints.onnx_file import OnnxModel, load_onnx
from certify.checkpoints.opening import (
    FORMAT,
    VERSION,
    checksum,
    headerless,
    is_safetensors,
    opened,
    own_tensors,
    tensor_digest,
)
from certify.data.dataset import Dataset
from certify.denoising import Denoised
from certify.errors import ArchitectureMismatch, InvalidSetting
from certify.files.safe import atomic_write
from certify.files.tensor_files import to_bytes
from certify.files.torch_archive import load_program, program_kind, refuse_program

__all__ = ["Header", "LeftOut", "Loaded", "build", "load", "model_digest", "read", "save", "tensor_digest"]


@checked
def save(path: str | Path, model: nn.Module | Mapping[str, Tensor], header: Header) -> None:
    """Write a network (or its state dict) with its header; the file is wholly there or not at all.

    ``path`` ends in ``.pt`` or ``.safetensors``. Raises InvalidSetting for another ending,
    UnreadableFile when the place cannot be written or the header is not plain JSON.
    """
    path = Path(path)
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = encode(header)
    own = checksum(header, tensors)
    if path.suffix == ".safetensors":
        metadata = {"format": FORMAT, "version": str(VERSION), "header": text, "checksum": own}
        with atomic_write(path) as file:
            file.write(to_bytes(tensors, metadata))
    elif path.suffix == ".pt":
        content = {"format": FORMAT, "version": VERSION, "header": json.loads(text), "state_dict": tensors}
        content["checksum"] = own
        with atomic_write(path) as file:
            torch.save(content, file)
    else:
        raise InvalidSetting(
            f"{path.name} has no known checkpoint ending",
            why="the ending decides the format",
            remedy="name it .pt or .safetensors",
        )


@checked
def read(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors (on the CPU) of a checkpoint, without building the network.

    Raises UnreadableFile for missing, damaged or headerless files; UntrustedFile for files that
    could run code or exhaust memory.
    """
    path = Path(path)
    with opened(path) as (header, source):
        if header is None:
            raise headerless(path, source)
        return header, own_tensors(source)


@checked
def build(header: Header, state_dict: Mapping[str, Tensor], *, trusted_name: bool = False) -> nn.Module:
    """The network a header describes, with these weights, in eval mode.

    Only registered architectures are built from a header's word; ``module:factory`` names are
    imported with ``trusted_name`` alone, as importing runs code. Raises UntrustedFile for such
    names, ArchitectureMismatch when weights and architecture differ in any name, shape or type,
    InvalidModel for weights that are NaN or infinite.
    """
    shapes = {"num_classes": header.num_classes, "input_shape": header.input_shape}
    model = assemble(
        header.architecture, header.arguments, state_dict, offered=shapes, trusted_name=trusted_name,
        group=registry.DENOISERS if header.task == "denoising" else registry.GROUP,
    )  # fmt: skip
    model.certify_header = header  # type: ignore[assignment]
    model.certify_loaded = Loaded("", converted=converted(state_dict, model.state_dict()))  # type: ignore[assignment]
    return model


@checked
def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    arch: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: Dataset | None = None,
    entry: str | None = None,
    trust_model_file: bool = False,
) -> nn.Module:
    """A network ready to certify: eval mode, on ``device``, its header as ``.certify_header``.

    ``path``: a ``.pt``, ``.pth``, ``.th``, ``.ckpt`` or ``.safetensors`` file of torch of any age, an ONNX
    file, or a folder as Hugging Face writes it.

    A checkpoint with a header needs nothing else. ``arch`` ("module:factory" or a registered name)
    names the network of a bare state dict, called with ``arguments``, or confirms a
    ``module:factory`` that the header names. ``data`` completes a bare state dict: it gives the factory
    ``num_classes`` and ``input_shape`` (where it takes them), and the network a header.
    ``trust_model_file`` opens TorchScript and torch.export
    files, which can run code, and believes any architecture name in the header; ``.certify_header`` is
    None where there is no header. ONNX files (``.onnx``) run by onnxruntime, and have none.

    A bare state dict is looked for in all of the file: under any entry, with any one prefix before its names,
    among parts that belong to training; every name and shape must fit. ``entry`` names the one to take where
    several fit with other weights; of raw weights and their running average the raw ones are taken. What
    was taken and what was left is ``.certify_loaded`` (``certify.checkpoints.Loaded``); a choice between
    weights, and weights that were left, are warned about. Floating-point weights of any width become the
    network's own type, each rounded to the nearest number of it.

    Raises as ``read`` and ``build``; InvalidSetting for an entry that is not there.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        _refuse_options(path, arch, arguments)
        return load_onnx(path, device)
    if path.is_dir():
        path = weights_file(path)
    program = None if is_safetensors(path) else program_kind(path)
    if program is not None:
        if not trust_model_file:
            raise refuse_program(path, program)
        model = load_program(path, program, device)
        object.__setattr__(model, "certify_header", None)
        return model
    with opened(path) as (header, source):
        if header is None:
            if arch is None:
                raise headerless(path, source)
            return _completed(arch, dict(arguments or {}), source, data, entry).to(device)
        tensors = own_tensors(source)
    _refuse_entry(path, entry)
    _check_overrides(path, header, arch, arguments)
    return build(header, tensors, trusted_name=arch is not None or trust_model_file).to(device)


@checked
def model_digest(model: nn.Module) -> str:
    """What names a network in a run: its weights (``tensor_digest``), or an ONNX file's own SHA-256.

    A network with ONNX files among its parts has the SHA-256 of both, in order; one behind a denoiser also
    of the denoiser's kind, settings and level (``certify.denoising``), which need not show in any weight.
    """
    if isinstance(model, OnnxModel):
        return model.file_digest
    files = [part.file_digest for part in model.modules() if isinstance(part, OnnxModel)]
    forms = [part.form for part in model.modules() if isinstance(part, Denoised)]
    digest = tensor_digest(model.state_dict())
    parts = [digest, *files, *forms]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if len(parts) > 1 else digest


def _completed(
    arch: str, arguments: dict[str, Any], source: Source, data: Dataset | None, entry: str | None
) -> nn.Module:
    """The network of a bare state dict; with ``data``, described by a header as if saved with one."""
    shapes = {} if data is None else {"num_classes": data.num_classes, "input_shape": data.input_shape}
    model, loaded = assemble_found(arch, arguments, source, offered=shapes, entry=entry)
    if loaded.doubtful and entry is None:
        warnings.warn(f"{source.path}: {'; '.join(loaded.lines())}", LeftOut, stacklevel=3)
    header = None
    if data is not None:
        classes = measured_classes(model, data)
        facts = (
            classes,
            data.input_shape,
            data.low,
            data.high,
            data.grid,
            {"name": data.name},
            {},
            data.task,
        )
        header = Header(arch, arguments, *facts)
    model.certify_header = header  # type: ignore[assignment]
    model.certify_loaded = loaded  # type: ignore[assignment]
    return model


def _refuse_options(path: Path, arch: str | None, arguments: Mapping[str, Any] | None) -> None:
    if arch is not None or arguments:
        raise ArchitectureMismatch(
            f"{path} needs no architecture",
            why="an ONNX file holds the whole network, not only its weights",
            remedy="leave --arch and --arch-args out",
        )


def _refuse_entry(path: Path, entry: str | None) -> None:
    if entry is not None:
        raise InvalidSetting(
            f"{path} has no entries to choose from",
            why="it describes itself, and holds the weights of one network",
            remedy="leave --entry out",
        )


def _check_overrides(
    path: Path, header: Header, arch: str | None, arguments: Mapping[str, Any] | None
) -> None:
    given = json.dumps(dict(arguments or {}), sort_keys=True, default=str)
    own = json.dumps(header.arguments, sort_keys=True)
    if arch not in (None, header.architecture) or (arguments and given != own):
        raise ArchitectureMismatch(
            f"{os.fspath(path)} describes another network than the one asked for",
            why=f"its header says {header.architecture} with {own}, "
            f"the call says {arch or header.architecture} with {given}",
            remedy=f"confirm the network it names, without arguments: --arch {header.architecture}"
            if ":" in header.architecture
            else "leave arch and arguments out: the checkpoint describes itself",
        )
