"""``load``: one name or path in, one split of a data set out."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from certify.calls import checked
from certify.data import builtin, cifar, files, segmentation, shapes, tables
from certify.data.dataset import Dataset
from certify.data.image_folder import image_folder
from certify.data.mnist import mnist
from certify.data.pixels import Size
from certify.data.roots import data_root
from certify.errors import DataNotFound, InvalidSetting

SPLITS = ("train", "test")
_GENERATED = ("digits", "moons", "shapes", "shapes-noisy")
_GREY = ("mnist", "fashion-mnist")
_TABLE = re.compile(r"(?P<file>.+\.(?:csv|tsv|CSV|TSV)):(?P<label>[^/\\]+)")
_SIZED = re.compile(r"(?P<name>.+)@(?P<height>[1-9][0-9]{0,3})x(?P<width>[1-9][0-9]{0,3})")


@checked
def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return tuple(sorted((*_GENERATED, *_GREY, *cifar.NAMES, *segmentation.NAMES)))


@checked
def load(
    name_or_path: str | Path,
    *,
    split: str = "test",
    root: str | Path | None = None,
    limit: int | None = None,
    skip: int = 0,
    download: bool = False,
    seed: int = 0,
    label: str | None = None,
) -> Dataset:
    """One split of a data set known by name, of a file of arrays, of a table, or of a folder of images.

    Files: ``.npz``, ``.npy`` (labels in a file beside it), tensors in ``.pt`` or ``.safetensors``,
    ``.csv`` with a header line, whose label column is ``label`` (or "FILE.csv:COLUMN" as the name).

    ``root`` holds one folder per data set (default: the variable CERTIFY_DATA, then
    ~/.cache/certify). Sets of photographs may carry the size to rescale to in their name:
    "cityscapes@128x256", "my/folder@64x64" (height x width). ``skip`` and ``limit`` keep a part of the
    split; the ids of its inputs stay what they are in the whole. ``download`` fetches public sets that
    are missing. ``seed`` draws synthetic sets.

    Raises InvalidSetting for an unknown split, a negative skip, a limit below 1, or a part that
    is empty; DataNotFound for an unknown name or missing files; UnreadableFile and
    UntrustedFile for files that are damaged or dangerous; InvalidInput for values no certificate
    can speak about.
    """
    _check(split, limit, skip)
    name, size = _split_size(_with_label(str(name_or_path), label))
    dataset = _whole_or_part(name, size, split, data_root(root), limit, skip, download, seed)
    if len(dataset) == 0:
        raise InvalidSetting(
            f"no inputs are left of {name!r}, split {split!r}",
            why=f"skip = {skip} is beyond its end",
            remedy="give a smaller --skip",
        )
    return dataset


def _whole_or_part(
    name: str,
    size: Size | None,
    split: str,
    root: Path,
    limit: int | None,
    skip: int,
    download: bool,
    seed: int,
) -> Dataset:
    if name in segmentation.NAMES:
        return segmentation.segmentation(name, split, root, size=size, limit=limit, skip=skip)
    file, column = _split_label(name)
    path = Path(file).expanduser()
    known = name in names()
    ending = path.suffix.lower()
    plain = ending in (*files.ENDINGS, *tables.ENDINGS)
    if not known and not plain and path.is_dir():
        label = name if size is None else f"{name}@{size[0]}x{size[1]}"
        return image_folder(path, split, name=label, size=size, limit=limit, skip=skip)
    if size is not None and (known or plain):
        raise InvalidSetting(
            f"{name!r} cannot be rescaled to {size[0]}x{size[1]}",
            why="its inputs have one fixed size",
            remedy=f"use {name!r} without a size",
        )
    if name in _GREY:
        return mnist(name, split, root, limit=limit, skip=skip, download=download)
    if name in cifar.NAMES:
        return cifar.cifar(name, split, root, limit=limit, skip=skip, download=download)
    if name == "digits":
        whole = builtin.digits(split)
    elif name == "moons":
        whole = builtin.moons(split, seed=seed)
    elif name in _GENERATED:
        whole = shapes.shapes(split, seed=seed, noisy=name == "shapes-noisy")
    elif ending in files.ENDINGS:
        whole = files.array_file(path, split)
    elif ending in tables.ENDINGS:
        whole = tables.table(path, split, label=column, name=name)
    else:
        raise _unknown(name)
    return whole.part(skip, limit)


def _split_size(name: str) -> tuple[str, Size | None]:
    match = _SIZED.fullmatch(name)
    if match is None:
        return name, None
    return match["name"], (int(match["height"]), int(match["width"]))


def _split_label(name: str) -> tuple[str, str | None]:
    """A table's file and its label column, from FILE.csv:COLUMN."""
    match = _TABLE.fullmatch(name)
    return (name, None) if match is None else (match["file"], match["label"])


def _with_label(name: str, label: str | None) -> str:
    """The name of a table with its label column in it, so that the name alone finds the same data again."""
    if label is None:
        return name
    if Path(name).suffix.lower() not in tables.ENDINGS or name in names():
        raise InvalidSetting(
            f"--label has no meaning for {name!r}",
            why="only tables have columns to choose from; this is none, or names its label column already",
            remedy="leave --label out",
        )
    return f"{name}:{label}"


def _unknown(name: str) -> DataNotFound:
    near = difflib.get_close_matches(name.lower(), names(), n=1)
    return DataNotFound(
        f"there is no data set {name!r}",
        why="it is neither a known name, nor a file of a known ending, nor a folder here",
        remedy=(f"did you mean {near[0]!r}? " if near else "")
        + f"use one of {', '.join(names())}, a file (.npz with x and y, .npy, .csv, .pt), "
        "or a folder with one sub-folder of images per class",
    )


def _check(split: str, limit: int | None, skip: int) -> None:
    if split not in SPLITS:
        raise InvalidSetting(
            f"there is no split {split!r}",
            why="data sets are read one split at a time",
            remedy=f"use {' or '.join(SPLITS)}",
        )
    whole = all(hasattr(n, "__index__") for n in (skip, 1 if limit is None else limit))
    if not whole or skip < 0 or (limit is not None and limit < 1):
        raise InvalidSetting(
            f"skip = {skip!r}, limit = {limit!r} is no part of a data set",
            why="skip is a whole number of at least 0, limit one of at least 1",
            remedy="leave limit out to use the whole split",
        )
