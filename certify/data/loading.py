"""``load``: one name or path in, one split of a data set out."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from certify.data import builtin, cifar, segmentation, shapes
from certify.data.dataset import Dataset
from certify.data.image_folder import image_folder
from certify.data.mnist import mnist
from certify.data.npz import npz
from certify.data.pixels import Size
from certify.data.roots import data_root
from certify.errors import DataNotFound, InvalidSetting

SPLITS = ("train", "test")
_GENERATED = ("digits", "moons", "shapes", "shapes-noisy")
_GREY = ("mnist", "fashion-mnist")
_SIZED = re.compile(r"(?P<name>.+)@(?P<height>[1-9]\d{0,3})x(?P<width>[1-9]\d{0,3})")


def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return tuple(sorted((*_GENERATED, *_GREY, *cifar.NAMES, *segmentation.NAMES)))


def load(
    name_or_path: str | Path,
    *,
    split: str = "test",
    root: str | Path | None = None,
    limit: int | None = None,
    skip: int = 0,
    download: bool = False,
    seed: int = 0,
) -> Dataset:
    """One split of a data set known by name, of an ``.npz`` file, or of a folder of images per class.

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
    name, size = _split_size(str(name_or_path))
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
    path = Path(name).expanduser()
    known = name in names()
    if not known and path.suffix != ".npz" and path.is_dir():
        label = name if size is None else f"{name}@{size[0]}x{size[1]}"
        return image_folder(path, split, name=label, size=size, limit=limit, skip=skip)
    if size is not None and (known or path.suffix == ".npz"):
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
    elif path.suffix == ".npz":
        whole = npz(path, split)
    else:
        raise _unknown(name)
    return whole.part(skip, limit)


def _split_size(name: str) -> tuple[str, Size | None]:
    match = _SIZED.fullmatch(name)
    if match is None:
        return name, None
    return match["name"], (int(match["height"]), int(match["width"]))


def _unknown(name: str) -> DataNotFound:
    near = difflib.get_close_matches(name.lower(), names(), n=1)
    return DataNotFound(
        f"there is no data set {name!r}",
        why="it is neither a known name, nor an .npz file, nor a folder",
        remedy=(f"did you mean {near[0]!r}? " if near else "")
        + f"use one of {', '.join(names())}, a file written with numpy.savez(path, x=x, y=y), "
        "or a folder with one sub-folder of images per class",
    )


def _check(split: str, limit: int | None, skip: int) -> None:
    if split not in SPLITS:
        raise InvalidSetting(
            f"there is no split {split!r}",
            why="data sets are read one split at a time",
            remedy=f"use {' or '.join(SPLITS)}",
        )
    if skip < 0 or (limit is not None and limit < 1):
        raise InvalidSetting(
            f"skip = {skip}, limit = {limit} is no part of a data set",
            why="skip must be at least 0 and limit at least 1",
            remedy="leave limit out to use the whole split",
        )
