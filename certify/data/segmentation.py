"""Segmentation sets from their standard folders: Cityscapes, white blood cells, 2018 Data Science Bowl.

References: Cordts et al., "The Cityscapes Dataset", CVPR 2016; Zheng et al., "Fast and robust
segmentation of white blood cell images by self-supervised learning", Micron 2018; Caicedo et al., "Nucleus
segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from certify.contract import IGNORE
from certify.data.dataset import Dataset
from certify.data.pixels import Size, image_files, read_image, stack_images, stack_labels, subfolders
from certify.data.roots import not_found
from certify.errors import UnreadableFile

#: Cityscapes' nineteen evaluated classes: label id in the files -> (class index, name).
_CITY = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
#: Images of the bowl have many sizes; without another wish they are brought to this one.
BOWL_SIZE = (256, 256)


@dataclass(frozen=True)
class _Pairs:
    """Where a set's images and label maps lie, and how a label map is read."""

    images: list[Path]
    labels: list[Path]
    read: Callable[[Path, Size | None], np.ndarray]
    classes: tuple[str, ...]


def segmentation(
    name: str, split: str, root: Path, *, size: Size | None = None, limit: int | None = None, skip: int = 0
) -> Dataset:
    """RGB images in [0, 1] with step 1/255 and label maps (n, height, width).

    ``name`` is "cityscapes" (test: the val folder, as the labels of its test folder are not public;
    classes outside the nineteen evaluated ones become IGNORE), "wbc" (background, cytoplasm,
    nucleus) or "dsb2018" (background, nucleus; rescaled to 256x256 unless ``size`` says otherwise).
    Where the set has no official split, one image in five is the test split, by a hash of its position.

    Raises DataNotFound naming the expected layout; UnreadableFile for images without label map.
    """
    pairs = _SETS[name](root, split)
    if name == "dsb2018":
        size = size or BOWL_SIZE
    label = name if size is None else f"{name}@{size[0]}x{size[1]}"
    part = slice(skip, None if limit is None else skip + limit)
    images, maps = pairs.images[part], pairs.labels[part]
    if images:
        x = stack_images(images, label, size)
        y = stack_labels(maps, label, size, lambda path: pairs.read(path, size))
        if x.shape[2:] != y.shape[1:]:
            raise UnreadableFile(
                f"the label maps of {name} do not have the size of its images",
                why=f"images are {tuple(x.shape[2:])}, label maps {tuple(y.shape[1:])}",
                remedy="fetch images and label maps from the same release",
            )
    else:
        x, y = torch.empty(0, 3, 1, 1), torch.empty(0, 1, 1, dtype=torch.int64)
    ids = torch.arange(skip, skip + len(images))
    classes = pairs.classes
    return Dataset(label, split, x, y, len(classes), 0.0, 1.0, 1 / 255, ids, classes, task="segmentation")


def _cityscapes(root: Path, split: str) -> _Pairs:
    folder = "train" if split == "train" else "val"
    home = _first_folder(root, ("cityscapes", "Cityscapes", "."), f"leftImg8bit/{folder}")
    ending = "_leftImg8bit.png"
    layout = (
        f"cityscapes/leftImg8bit/{folder}/CITY/*{ending} "
        f"and cityscapes/gtFine/{folder}/CITY/*_gtFine_labelIds.png"
    )
    if home is None:
        raise not_found("cityscapes", root, layout)
    images = [
        f
        for city in subfolders(home / "leftImg8bit" / folder)
        for f in image_files(city)
        if f.name.endswith(ending)
    ]
    labels = [
        home / "gtFine" / folder / f.parent.name / f.name.replace(ending, "_gtFine_labelIds.png")
        for f in images
    ]
    _require(images, labels, "cityscapes", root, layout)
    return _Pairs(images, labels, _city_labels, tuple(_CITY.values()))


def _city_labels(path: Path, size: Size | None) -> np.ndarray:
    table = np.full(256, IGNORE, dtype=np.int64)
    table[list(_CITY)] = range(len(_CITY))
    return table[read_image(path, "index", size, nearest=True)]


def _wbc(root: Path, split: str) -> _Pairs:
    layout = "wbc/Dataset 1/001.bmp (image) beside wbc/Dataset 1/001.png (label map)"
    places = ("wbc", "WBC", "segmentation_WBC-master", "segmentation_WBC", ".")
    home = _first_folder(root, places, "Dataset 1") or _first_folder(root, places, "Dataset1")
    if home is None:
        raise not_found("wbc", root, layout)
    folder = home / "Dataset 1" if (home / "Dataset 1").is_dir() else home / "Dataset1"
    images = [f for f in image_files(folder) if f.suffix.lower() == ".bmp"]
    labels = [f.with_suffix(".png") for f in images]
    _require(images, labels, "wbc", root, layout)
    keep = _held_out(len(images), split)
    kept = [images[i] for i in keep], [labels[i] for i in keep]
    return _Pairs(*kept, _wbc_labels, ("background", "cytoplasm", "nucleus"))


def _wbc_labels(path: Path, size: Size | None) -> np.ndarray:
    # Black, grey and white mark background, cytoplasm and nucleus; the thresholds absorb odd shades.
    return np.digitize(read_image(path, "L", size, nearest=True), (64, 192))


def _dsb2018(root: Path, split: str) -> _Pairs:
    layout = (
        "dsb2018/stage1_train/ID/images/ID.png with dsb2018/stage1_train/ID/masks/*.png (one per nucleus)"
    )
    home = _first_folder(root, ("dsb2018", "data-science-bowl-2018", "DSB2018", "."), "stage1_train")
    if home is None:
        raise not_found("dsb2018", root, layout)
    cases = subfolders(home / "stage1_train")
    images = [f for case in cases if (case / "images").is_dir() for f in image_files(case / "images")[:1]]
    labels = [f.parent.parent / "masks" for f in images]
    _require(images, labels, "dsb2018", root, layout)
    keep = _held_out(len(images), split)
    kept = [images[i] for i in keep], [labels[i] for i in keep]
    return _Pairs(*kept, _bowl_labels, ("background", "nucleus"))


def _bowl_labels(folder: Path, size: Size | None) -> np.ndarray:
    masks = image_files(folder)
    if not masks:
        raise UnreadableFile(
            f"{folder} holds no mask", why="every image of the bowl has at least one nucleus",
            remedy="unpack stage1_train.zip again",
        )  # fmt: skip
    union = np.zeros((1, 1), dtype=bool)
    for mask in masks:
        union = union | (read_image(mask, "L", size, nearest=True) > 0)
    return union.astype(np.uint8)


def _first_folder(root: Path, places: tuple[str, ...], inside: str) -> Path | None:
    return next((root / place for place in places if (root / place / inside).is_dir()), None)


def _held_out(count: int, split: str) -> list[int]:
    """Positions of a split where none is official: every fifth by a multiplicative hash, fixed for ever."""
    return [i for i in range(count) if ((i * 2654435761) % 2**32 < 2**32 // 5) == (split == "test")]


def _require(images: list[Path], labels: list[Path], name: str, root: Path, layout: str) -> None:
    if not images:
        raise not_found(name, root, layout)
    missing = [path for path in labels if not path.exists()]
    if missing:
        raise UnreadableFile(
            f"{len(missing)} of {len(images)} images of {name} have no label map",
            why=f"the first one missing is {missing[0]}",
            remedy=f"expected {layout}; unpack the label archive too",
        )


_SETS: dict[str, Callable[[Path, str], _Pairs]] = {
    "cityscapes": _cityscapes,
    "wbc": _wbc,
    "dsb2018": _dsb2018,
}
NAMES = tuple(_SETS)
