"""MNIST and Fashion-MNIST from their IDX files, in the layouts people have on disk.

References: LeCun et al., "Gradient-based learning applied to document recognition", 1998;
Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from certify.data.dataset import Dataset
from certify.data.download import FILES, fetch
from certify.data.idx import read_idx
from certify.data.roots import find_file, not_found
from certify.errors import UnreadableFile

_FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "MNIST", "."),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
}
_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip


def mnist(
    name: str, split: str, root: Path, *, limit: int | None = None, skip: int = 0, download: bool = False
) -> Dataset:
    """28x28 grey images as (n, 1, 28, 28) in [0, 1], step 1/255; 60,000 for training, 10,000 for test.

    Raises DataNotFound naming the expected layout, UnreadableFile for damaged files.
    """
    images_file, labels_file = _find(name, split, root, download)
    images = read_idx(images_file, 3, limit=limit, skip=skip)
    labels = read_idx(labels_file, 1, limit=limit, skip=skip)
    if len(images) != len(labels):
        raise UnreadableFile(
            f"{images_file.name} and {labels_file.name} do not belong together",
            why="they hold different numbers of images and labels",
            remedy="fetch both files again from the same source",
        )
    if labels.size and labels.max() > 9:
        raise UnreadableFile(
            f"{labels_file} holds the label {labels.max()}",
            why=f"{name} has the classes 0 to 9",
            remedy="check that the file is the label file of this data set",
        )
    x = torch.from_numpy(images.astype(np.float32)).div_(255).unsqueeze(1)
    y = torch.from_numpy(labels.astype(np.int64))
    ids = torch.arange(skip, skip + len(y))
    return Dataset(name, split, x, y, 10, 0.0, 1.0, 1 / 255, ids, _CLASSES[name])


def _find(name: str, split: str, root: Path, download: bool) -> tuple[Path, Path]:
    prefix = "train" if split == "train" else "t10k"
    folders = [root / folder for folder in _FOLDERS[name]]
    found = []
    for part in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        stem = f"{prefix}-{part}"
        dotted = stem.replace("-idx", ".idx")
        names = [stem, f"{stem}.gz", dotted, f"{dotted}.gz"]
        path = find_file(folders, names)
        if path is None and download:
            path = fetch(FILES[name][f"{stem}.gz"], root / name / f"{stem}.gz")
        if path is None:
            layout = f"{name}/{stem}.gz (IDX; unpacked, or in {_FOLDERS[name][1]}/, is fine too)"
            raise not_found(name, root, layout, download=True)
        found.append(path)
    return found[0], found[1]
