"""Checkpoints that describe themselves, in formats that cannot run code.

``save`` writes a network with its ``Header``; ``load`` gives it back ready to certify. Both formats,
``.safetensors`` and weights-only ``.pt``, carry the same header.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.arguments import measured_classes
from certify.checkpoints.assembly import assemble
from certify.checkpoints.header import Header, decode, encode
from certify.checkpoints.onnx_file import OnnxModel, load_onnx
from certify.checkpoints.tensor_files import read_safetensors, to_bytes
from certify.checkpoints.torch_archive import load_program, program_kind, read_archive, refuse_program
from certify.data.dataset import Dataset
from certify.errors import ArchitectureMismatch, InvalidSetting, UnreadableFile
from certify.files.safe import atomic_write, open_regular

__all__ = ["Header", "build", "load", "model_digest", "read", "save", "tensor_digest"]

FORMAT = "certify-checkpoint"
VERSION = 1


def save(path: str | Path, model: nn.Module | Mapping[str, Tensor], header: Header) -> None:
    """Write a network (or its state dict) with its header; the file is wholly there or not at all.

    ``path`` ends in ``.pt`` or ``.safetensors``. Raises InvalidSetting for another ending,
    UnreadableFile when the place cannot be written or the header is not plain JSON.
    """
    path = Path(path)
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = encode(header)
    checksum = _checksum(header, tensors)
    if path.suffix == ".safetensors":
        metadata = {"format": FORMAT, "version": str(VERSION), "header": text, "checksum": checksum}
        with atomic_write(path) as file:
            file.write(to_bytes(tensors, metadata))
    elif path.suffix == ".pt":
        content = {"format": FORMAT, "version": VERSION, "header": json.loads(text), "state_dict": tensors}
        content["checksum"] = checksum
        with atomic_write(path) as file:
            torch.save(content, file)
    else:
        raise InvalidSetting(
            f"{path.name} has no known checkpoint ending",
            why="the ending decides the format",
            remedy="name it .pt or .safetensors",
        )


def read(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors (on the CPU) of a checkpoint, without building the network.

    Raises UnreadableFile for missing, damaged or headerless files; UntrustedFile for files that
    could run code or exhaust memory.
    """
    path = Path(path)
    header, tensors = _content(path)
    if header is None:
        raise UnreadableFile(
            f"{path} has weights but no header",
            why="it is a bare state dict: it does not say which network it belongs to",
            remedy="name the network: --arch module:factory (or certify.load(path, arch=...))",
        )
    return header, tensors


def build(header: Header, state_dict: Mapping[str, Tensor], *, trusted_name: bool = False) -> nn.Module:
    """The network a header describes, with these weights, in eval mode.

    Only registered architectures are built from a header's word; ``module:factory`` names are
    imported with ``trusted_name`` alone, as importing runs code. Raises UntrustedFile for such
    names, ArchitectureMismatch when weights and architecture differ in any name, shape or type,
    InvalidModel for weights that are NaN or infinite.
    """
    shapes = {"num_classes": header.num_classes, "input_shape": header.input_shape}
    model = assemble(
        header.architecture, header.arguments, state_dict, offered=shapes, trusted_name=trusted_name
    )
    model.certify_header = header  # type: ignore[assignment]
    return model


def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    arch: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: Dataset | None = None,
    trust_model_file: bool = False,
) -> nn.Module:
    """A network ready to certify: eval mode, on ``device``, its header as ``.certify_header``.

    A checkpoint with a header needs nothing else. ``arch`` ("module:factory" or a registered name)
    names the network of a bare state dict, called with ``arguments``, or confirms a
    ``module:factory`` that the header names. ``data`` completes a bare state dict: it gives the factory
    ``num_classes`` and ``input_shape`` (where it takes them), and the network a header.
    ``trust_model_file`` opens TorchScript and torch.export
    files, which can run code, and believes any architecture name in the header; ``.certify_header`` is
    None where there is no header. ONNX files (``.onnx``) run by onnxruntime, and have none.

    Raises as ``read`` and ``build``.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        _refuse_options(path, arch, arguments)
        return load_onnx(path, device)
    program = None if _is_safetensors(path) else program_kind(path)
    if program is not None:
        if not trust_model_file:
            raise refuse_program(path, program)
        model = load_program(path, program, device)
        object.__setattr__(model, "certify_header", None)
        return model
    header, tensors = _content(path)
    if header is None:
        if arch is None:
            read(path)
        return _completed(arch or "", dict(arguments or {}), tensors, data).to(device)
    _check_overrides(path, header, arch, arguments)
    return build(header, tensors, trusted_name=arch is not None or trust_model_file).to(device)


def model_digest(model: nn.Module) -> str:
    """What names a network in a run: its weights (``tensor_digest``), or an ONNX file's own SHA-256.

    A network with ONNX files among its parts has the SHA-256 of both, in order.
    """
    if isinstance(model, OnnxModel):
        return model.file_digest
    files = [part.file_digest for part in model.modules() if isinstance(part, OnnxModel)]
    digest = tensor_digest(model.state_dict())
    return hashlib.sha256("\n".join([digest, *files]).encode()).hexdigest() if files else digest


def tensor_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights themselves: sorted name, type, shape, bytes (little-endian).

    Equal weights give equal digests in any file format, under any file name.
    """
    sha = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        sha.update(f"{json.dumps(name)} {kind} {list(tensor.shape)}\n".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _completed(
    arch: str, arguments: dict[str, Any], tensors: Mapping[str, Tensor], data: Dataset | None
) -> nn.Module:
    """The network of a bare state dict; with ``data``, described by a header as if saved with one."""
    shapes = {} if data is None else {"num_classes": data.num_classes, "input_shape": data.input_shape}
    model = assemble(arch, arguments, tensors, offered=shapes, trusted_name=True)
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
    return model


def _refuse_options(path: Path, arch: str | None, arguments: Mapping[str, Any] | None) -> None:
    if arch is not None or arguments:
        raise ArchitectureMismatch(
            f"{path} needs no architecture",
            why="an ONNX file holds the whole network, not only its weights",
            remedy="leave --arch and --arch-args out",
        )


def _content(path: Path) -> tuple[Header | None, dict[str, Tensor]]:
    if _is_safetensors(path):
        metadata, tensors = read_safetensors(path)
        if metadata.get("format") != FORMAT:
            return None, tensors
        _check_version(path, metadata.get("version"))
        header = decode(metadata.get("header", ""), str(path))
        _verify(path, header, tensors, metadata.get("checksum"))
        return header, tensors
    program = program_kind(path)
    if program is not None:
        raise refuse_program(path, program)
    content = read_archive(path)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        _check_version(path, content.get("version"))
        header = Header.from_json(content.get("header"), str(path))
        tensors = _state_dict(content.get("state_dict"), path)
        _verify(path, header, tensors, content.get("checksum"))
        return header, tensors
    return None, _state_dict(content, path)


def _checksum(header: Header, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{encode(header)}\n{tensor_digest(tensors)}".encode()).hexdigest()


def _verify(path: Path, header: Header, tensors: Mapping[str, Tensor], recorded: Any) -> None:
    # A flipped bit in a weight or in the grid would change every radius without any other sign.
    found = _checksum(header, tensors)
    if found != recorded:
        raise UnreadableFile(
            f"{path} is damaged or was edited",
            why=f"its header and weights hash to {found[:16]}..., its checksum is {str(recorded)[:16]}...",
            remedy="copy it again from an intact source; to change a header, read the file and save it anew",
        )


def _is_safetensors(path: Path) -> bool:
    with open_regular(path, "checkpoint") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (start[:2] != b"PK" and start[8:9] == b"{")


def _check_version(path: Path, version: Any) -> None:
    if str(version) != str(VERSION):
        raise UnreadableFile(
            f"{path} has checkpoint version {version}",
            why=f"this release reads version {VERSION}",
            remedy="install the release that wrote it, or a newer one",
        )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, also one level down or saved from a parallel wrapper."""
    if isinstance(content, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise UnreadableFile(
            f"{path} holds no state dict",
            why=f"it contains {'nothing' if content == {} else 'a ' + type(content).__name__}",
            remedy="write it with certify.save, or torch.save(model.state_dict(), path)",
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UnreadableFile(
                f"{path} holds no state dict",
                why=f"its entry {name!r} is a {type(value).__name__}, not a tensor",
                remedy="save the network's own weights: torch.save(model.state_dict(), path)",
            )
    wrapped = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if wrapped else name: value for name, value in content.items()}


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
