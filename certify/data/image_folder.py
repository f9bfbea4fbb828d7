"""A folder with one sub-folder of images per class, as torchvision's ImageFolder reads it."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch

from certify.data.dataset import Dataset
from certify.data.pixels import Size, image_files, stack_images, subfolders
from certify.errors import DataNotFound

LAYOUT = "FOLDER/CLASS/IMAGE.png, or FOLDER/train/CLASS/... with FOLDER/test/CLASS/... (or val)"


def image_folder(
    path: Path, split: str, *, name: str, size: Size | None, limit: int | None = None, skip: int = 0
) -> Dataset:
    """RGB images in [0, 1] with step 1/255; classes are the folders' names in sorted order.

    With ``train`` and ``test`` (or ``val``) folders the split picks one; otherwise the folder is
    one split. Images are taken from the classes in turn, so that the first ``limit`` of them cover all
    classes. Raises DataNotFound for another layout, InvalidInput for images of different
    sizes when no size is given.
    """
    folder = _split_folder(path, split)
    classes = subfolders(folder)
    per_class = [image_files(c) for c in classes]
    if len(classes) < 2 or not all(per_class):
        empty = [c.name for c, files in zip(classes, per_class, strict=True) if not files]
        detail = f"it holds {len(classes)} folders" + (
            f", without images: {', '.join(empty)}" if empty else ""
        )
        raise _other_layout(folder, detail)
    order = [
        (file, label)
        for turn in zip_longest(*per_class)
        for label, file in enumerate(turn)
        if file is not None
    ]
    part = order[skip:][:limit]
    x = stack_images([f for f, _ in part], name, size) if part else torch.empty(0, 3, 1, 1)
    y = torch.tensor([label for _, label in part], dtype=torch.int64)
    ids = torch.arange(skip, skip + len(part))
    names = tuple(c.name for c in classes)
    return Dataset(name, split, x, y, len(classes), 0.0, 1.0, 1 / 255, ids, names)


def _split_folder(path: Path, split: str) -> Path:
    candidates = {"train": ("train",), "test": ("test", "val", "valid")}
    for name in candidates[split]:
        if subfolders(path / name):
            return path / name
    if any((path / name).is_dir() for part in candidates.values() for name in part):
        raise _other_layout(path, f"it has no folder {' or '.join(candidates[split])} for this split")
    return path


def _other_layout(folder: Path, why: str) -> DataNotFound:
    return DataNotFound(
        f"{folder} is no folder of labelled images",
        why=why,
        remedy=f"arrange the images as {LAYOUT}",
    )
