"""A folder of images: one sub-folder per class, as torchvision's ImageFolder reads it, or images alone."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from certify.data.dataset import Dataset
from certify.data.pixels import Size, image_files, stack_images, subfolders
from certify.data.tables import ENDINGS, parsed_table
from certify.errors import DataNotFound, UnreadableFile
from certify.labels import IGNORE, Numbered, largest_label

LAYOUT = (
    "FOLDER/CLASS/IMAGE.png, FOLDER/train/CLASS/... with FOLDER/test/CLASS/... (or val), or "
    "FOLDER/IMAGE.png with FOLDER/labels.csv (columns file and label)"
)
#: More rows than a list of labels for images in memory has.
_MOST_ROWS = 2**22


def image_folder(
    path: Path, split: str, *, name: str, size: Size | None, limit: int | None = None, skip: int = 0
) -> Dataset:
    """RGB images in [0, 1] with step 1/255; classes are the folders' names in sorted order.

    With ``train`` and ``test`` (or ``val``) folders the split picks one; otherwise the folder is
    one split. Images are taken from the classes in turn, so that the first ``limit`` of them cover all
    classes. A folder of images alone takes their labels from the table in it, and has none without one.
    Raises DataNotFound for another layout, InvalidInput for images of different sizes when no size is given.
    """
    folder = _split_folder(path, split)
    classes = subfolders(folder)
    if not classes and (images := image_files(folder)):
        return _flat(folder, images, split, name=name, size=size, limit=limit, skip=skip)
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
    notes = ()
    if all(n.isdecimal() for n in names) and list(names) != sorted(names, key=int):
        notes = (
            f"classes in the order of their folders' names as text, as torchvision has it: "
            f"{', '.join(names[:4])}, ...",
        )
    return Dataset(name, split, x, y, len(classes), 0.0, 1.0, 1 / 255, ids, names, notes=notes)


def _flat(
    folder: Path,
    images: list[Path],
    split: str,
    *,
    name: str,
    size: Size | None,
    limit: int | None,
    skip: int,
) -> Dataset:
    """Images that lie side by side, with the labels of the table beside them, if there is one."""
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
    if len(tables) > 1:
        tables = [p for p in tables if p.stem == "labels"] or tables
    if len(tables) > 1:
        raise _other_layout(
            folder, f"the labels of its images may be in {' or in '.join(p.name for p in tables)}"
        )
    labels = _labels_by_file(tables[0]) if tables else {}
    part = images[skip:][:limit]
    x = stack_images(part, name, size) if part else torch.empty(0, 3, 1, 1)
    if not tables:
        y, count = torch.full((len(part),), IGNORE, dtype=torch.int64), 2
        notes = ("the images have no labels: no class folders, no labels.csv",)
    else:
        found = [labels.get(image.name, labels.get(image.stem)) for image in images]
        missing = [image.name for image, label in zip(images, found, strict=True) if label is None]
        if missing:
            raise _other_layout(
                folder, f"{tables[0].name} has no row for {missing[0]} ({len(missing)} are missing)"
            )
        numbers = np.array(found, dtype=np.int64)
        y, count = torch.from_numpy(numbers[skip:][:limit]), max(largest_label(numbers) + 1, 2)
        notes = (f"labels from {tables[0].name}",)
    ids = torch.arange(skip, skip + len(part))
    classes = Numbered(count)
    return Dataset(name, split, x, y, count, 0.0, 1.0, 1 / 255, ids, classes, counted=True, notes=notes)


def _labels_by_file(path: Path) -> dict[str, int]:
    """Class index by file name, from a table of two columns."""
    frame = parsed_table(path)
    text = [c for c in frame.columns if getattr(frame[c].dtype, "kind", "O") not in "iu"]
    whole = [c for c in frame.columns if c not in text]
    named = [c for c in text if str(c).lower() in ("file", "filename", "image", "name", "path", "id")] or text
    if not text and len(whole) == 2:  # files called 1.png, 2.png, ...
        named, whole = whole[:1], whole[1:]
    if len(named) != 1 or len(whole) != 1 or len(frame) > _MOST_ROWS:
        raise UnreadableFile(
            f"{path} does not say which image has which label",
            why=f"its columns are {', '.join(map(str, frame.columns))}; "
            "one must hold file names and one class indices",
            remedy="write the columns file and label, the label as a number: 0, 1, 2, ..., in the order of "
            "the model's outputs",
        )
    files, labels = frame[named[0]].astype(str), frame[whole[0]]
    if files.duplicated().any():
        raise UnreadableFile(
            f"{path} has two rows for {files[files.duplicated()].iloc[0]!r}",
            why="an image has one label", remedy="remove one of them",
        )  # fmt: skip
    return {Path(file).name: int(label) for file, label in zip(files, labels, strict=True)}


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
