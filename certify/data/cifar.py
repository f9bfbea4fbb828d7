"""CIFAR-10 and CIFAR-100, from the binary files or the Python batches.

Reference: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from certify.data.cifar_pickle import read_batch
from certify.data.dataset import Dataset
from certify.data.download import FILES, fetch
from certify.data.roots import find_file, not_found
from certify.errors import CertifyError, UnreadableFile
from certify.files.safe import atomic_write, open_regular, unreadable

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """Folder, files per split, and label bytes per record, of one of the two sets."""

    binary_folder: str
    python_folder: str
    binary: dict[str, tuple[str, ...]]
    python: dict[str, tuple[str, ...]]
    label_bytes: int
    label_key: str
    num_classes: int
    archive: str
    names_file: str


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-bin", "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)},
        {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
        1, "labels", 10, "cifar-10-binary.tar.gz", "batches.meta.txt",
    ),
    "cifar100": _Layout(
        "cifar-100-binary", "cifar-100-python",
        {"train": ("train.bin",), "test": ("test.bin",)},
        {"train": ("train",), "test": ("test",)},
        2, "fine_labels", 100, "cifar-100-binary.tar.gz", "fine_label_names.txt",
    ),
}  # fmt: skip
NAMES = tuple(_LAYOUTS)


def cifar(
    name: str, split: str, root: Path, *, limit: int | None = None, skip: int = 0, download: bool = False
) -> Dataset:
    """32x32 colour images as (n, 3, 32, 32) in [0, 1], step 1/255; CIFAR-100 with its fine labels.

    The binary version is preferred; the Python batches are read without unpickling.
    Raises DataNotFound naming the expected layout, UnreadableFile and UntrustedFile for bad files.
    """
    layout = _LAYOUTS[name]
    folders = [root / name, root]
    files = _files(folders, layout.binary_folder, layout.binary[split])
    if files:
        parts = [_binary(path, layout) for path in files]
    elif files := _files(folders, layout.python_folder, layout.python[split]):
        parts = [read_batch(path, layout.label_key) for path in files]
    else:
        archive = find_file(folders, [layout.archive])
        if archive is None and download:
            archive = fetch(FILES[name][layout.archive], root / name / layout.archive)
        if archive is None:
            expected = (
                f"{name}/{layout.binary_folder}/{layout.binary[split][0]} (binary version), "
                f"{name}/{layout.python_folder}/{layout.python[split][0]} or {name}/{layout.archive}"
            )
            raise not_found(name, root, expected, download=True)
        unpack(
            archive,
            layout.binary_folder,
            [*layout.binary["train"], *layout.binary["test"], layout.names_file],
        )
        files = _files([archive.parent], layout.binary_folder, layout.binary[split])
        parts = [_binary(path, layout) for path in files]
    images = np.concatenate([p[0] for p in parts])[skip:][:limit]
    labels = np.concatenate([p[1] for p in parts])[skip:][:limit]
    if labels.size and labels.max() >= layout.num_classes:
        raise UnreadableFile(
            f"{files[0].parent} holds the label {labels.max()}",
            why=f"{name} has the classes 0 to {layout.num_classes - 1}",
            remedy="check that these are the files of this data set",
        )
    x = torch.from_numpy(images).to(torch.float32).div_(255).reshape(-1, 3, 32, 32)
    y = torch.from_numpy(labels.astype(np.int64))
    ids = torch.arange(skip, skip + len(y))
    classes = _class_names(files[0].parent / layout.names_file, layout.num_classes)
    return Dataset(name, split, x, y, layout.num_classes, 0.0, 1.0, 1 / 255, ids, classes)


def unpack(archive: Path, folder: str, members: Iterable[str], *, max_bytes: int = 2**28) -> None:
    """Copy the named members of ``folder`` out of a tar.gz, beside it; nothing else is written.

    Member names are compared, never used as paths, and links are refused, so that the archive cannot
    write elsewhere. Raises UnreadableFile when one is missing, too large or damaged.
    """
    target = archive.parent / folder
    wanted = {f"{folder}/{name}": name for name in members}
    try:
        with (
            open_regular(archive, "tar.gz archive") as file,
            tarfile.open(fileobj=file, mode="r:gz") as content,
        ):
            for member in content:
                name = wanted.get(member.name.removeprefix("./"))
                stream = content.extractfile(member) if name is not None and member.isfile() else None
                if name is None or stream is None:
                    continue
                if member.size > max_bytes:
                    raise unreadable(archive, "tar.gz archive", f"{member.name} claims {member.size} bytes")
                target.mkdir(exist_ok=True)
                with atomic_write(target / name) as copy:
                    while block := stream.read(2**20):
                        copy.write(block)
                del wanted[member.name.removeprefix("./")]
    except CertifyError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise unreadable(archive, "tar.gz archive", f"it could not be unpacked ({error})") from error
    missing = [name for name in wanted.values() if not name.endswith(".txt")]
    if missing:
        raise unreadable(archive, "tar.gz archive", f"it does not contain {folder}/{missing[0]}")


def _files(folders: list[Path], inside: str, names: tuple[str, ...]) -> list[Path]:
    for folder in folders:
        paths = [folder / inside / name for name in names]
        if all(path.is_file() for path in paths):
            return paths
    return []


def _binary(path: Path, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    record = layout.label_bytes + _PIXELS
    with open_regular(path, "CIFAR file") as file:
        size = os.fstat(file.fileno()).st_size
        if size % record or size > 2**28:
            raise unreadable(
                path, "CIFAR file", f"its {size} bytes are no whole number of {record}-byte records"
            )
        rows = np.frombuffer(file.read(), dtype=np.uint8).reshape(-1, record)
    return rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1]


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    if path.is_file() and path.stat().st_size < 2**16:
        names = tuple(line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip())
        if len(names) == count:
            return names
    return tuple(str(k) for k in range(count))
