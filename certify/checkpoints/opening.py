"""Opening a checkpoint of any kind: its header, where it has one, and its tensors, not yet read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certify.checkpoints.assembly import Source, no_weights
from certify.checkpoints.candidates import candidates
from certify.checkpoints.folder import INDEX, read_parts, weights_file
from certify.checkpoints.header import Header, decode, encode
from certify.errors import UnreadableFile, UntrustedFile
from certify.files.pickle_plan import TensorPlan
from certify.files.safe import open_regular
from certify.files.tensor_files import read_safetensors
from certify.files.torch_archive import open_archive, program_kind, refuse_program

FORMAT = "certify-checkpoint"
VERSION = 1


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Header | None, Source]]:
    """The header of a file, if it has one, and its content, whose tensors are read when asked for."""
    if path.is_dir():
        path = weights_file(path)
    if path.name == INDEX:
        yield None, Source(path, read_parts(path), _as_it_is)
        return
    if is_safetensors(path):
        metadata, tensors = read_safetensors(path)
        source = Source(path, tensors, _as_it_is)
        if metadata.get("format") != FORMAT:
            yield None, source
            return
        _check_version(path, metadata.get("version"))
        header = decode(metadata.get("header", ""), str(path))
        _verify(path, header, tensors, metadata.get("checksum"))
        yield header, source
        return
    program = program_kind(path)
    if program is not None:
        raise refuse_program(path, program)
    with open_archive(path) as stored:
        content = stored.content
        source = Source(path, content, stored.read, stored.note)
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            yield None, source
            return
        _check_version(path, content.get("version"))
        header = Header.from_json(content.get("header"), str(path))
        source = Source(path, content.get("state_dict"), stored.read)
        _verify(path, header, own_tensors(source), content.get("checksum"))
        yield header, source


def _as_it_is(leaf: Any) -> Tensor:
    return leaf


def own_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a checkpoint of this package, which holds nothing else in their place."""
    content = source.content
    named = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(leaf, Tensor | TensorPlan) for name, leaf in content.items()
    )
    if not named:
        raise UnreadableFile(
            f"{source.path} holds no state dict",
            why="its entry 'state_dict' is no table of tensors",
            remedy="write it again with certify.save",
        )
    return {name: source.tensor(leaf) for name, leaf in content.items()}


def headerless(path: Path, source: Source) -> UnreadableFile | UntrustedFile:
    """The error for weights without a word about their network: what is there, and how to go on."""
    found = candidates(source.content)
    if not found:
        return no_weights(source)
    places = ", ".join(
        f"{len(c.leaves)} tensors" + (f" under {c.name!r}" if c.name else "") for c in found[:4]
    )
    first = ", ".join(ascii(name)[1:-1][:60] for name in list(found[0].leaves)[:2])
    return UnreadableFile(
        f"{path} has weights but no header",
        why=f"it holds {places} ({first}, ...) and does not say which network they belong to",
        remedy="name the network: --arch module:factory (or certify.load(path, arch=...))",
    )


def checksum(header: Header, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{encode(header)}\n{tensor_digest(tensors)}".encode()).hexdigest()


def _verify(path: Path, header: Header, tensors: Mapping[str, Tensor], recorded: Any) -> None:
    # A flipped bit in a weight or in the grid would change every radius without any other sign.
    found = checksum(header, tensors)
    if found != recorded:
        raise UnreadableFile(
            f"{path} is damaged or was edited",
            why=f"its header and weights hash to {found[:16]}..., its checksum is {str(recorded)[:16]}...",
            remedy="copy it again from an intact source; to change a header, read the file and save it anew",
        )


def is_safetensors(path: Path) -> bool:
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
