"""What is kept of one segmented image: the evidence and the claims, pixel by pixel. No torch needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from certify.errors import CorruptRun

#: True class of a pixel that has none; the value of ``certify.contract.IGNORE``, which needs torch.
IGNORE = -100
#: The class of a pixel where nothing was proved.
ABSTAIN = -1
#: Most classes that the stored maps can tell apart (16 bits per pixel), and most votes (32 bits).
MOST_CLASSES, MOST_VOTES = 1 << 16, (1 << 32) - 1
#: Largest side of the picture that is kept for reports.
PREVIEW_SIDE = 256
#: Under which name a run keeps an image's maps, and the key of their hash among a record's details.
DIGEST = "maps"


def arrays_name(index: int) -> str:
    """The name of an image's arrays in its run directory."""
    return f"pixels-{index}"


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """One image, all maps of shape (height, width).

    ``selected``: the class chosen on the selection samples. ``votes``: how many of the n fresh samples
    gave it to the pixel. ``certified``: whether it was proved. ``radius``: within which distance (in
    the run's norm, over the whole image) the pixel keeps it, rounded down; 0 where it was not proved.
    Descriptive only: ``plain``, the base model's class on the image without noise (-1: none);
    ``target``, the true class (``IGNORE``: none; the map is None where no labels were given); and
    ``preview``, the image as (channels, h, w) uint8 with sides of at most 256.
    """

    selected: np.ndarray
    votes: np.ndarray
    certified: np.ndarray
    radius: np.ndarray
    plain: np.ndarray
    target: np.ndarray | None
    preview: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The certified class of every pixel, ``ABSTAIN`` where nothing was proved; int64."""
        return np.where(self.certified, self.selected.astype(np.int64), ABSTAIN)

    @property
    def known(self) -> np.ndarray:
        """Pixels that have a true class."""
        if self.target is None:
            return np.zeros(self.selected.shape, dtype=bool)
        return self.target != IGNORE

    @property
    def correct(self) -> np.ndarray:
        """Pixels proved to have their true class."""
        if self.target is None:
            return np.zeros(self.selected.shape, dtype=bool)
        return self.known & (self.classes == self.target)

    def arrays(self) -> dict[str, np.ndarray]:
        """The maps by name, in the types they are stored in."""
        kinds = {
            "selected": np.uint16, "votes": np.uint32, "certified": np.uint8, "radius": np.float64,
            "plain": np.int32, "target": np.int32, "preview": np.uint8,
        }  # fmt: skip
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: np.ascontiguousarray(v, dtype=kinds[k]) for k, v in found.items() if v is not None}

    @classmethod
    def of(cls, arrays: Mapping[str, Any], where: object = "the run") -> PixelMaps:
        """From what ``arrays`` returned. Raises CorruptRun for maps that are missing or do not fit."""
        needed = {f.name for f in fields(cls)} - {"target"}
        shapes = {np.shape(arrays[k]) for k in (needed | {"target"}) & set(arrays) if k != "preview"}
        if not needed <= set(arrays) or len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise CorruptRun(
                f"{where} does not hold an image's maps",
                why=f"it has {', '.join(sorted(arrays)) or 'nothing'}; all must have one height and width",
                remedy="restore the directory from a copy, or run again into another one with --out",
            )
        values = {k: np.asarray(arrays[k]) for k in needed}
        values["certified"] = values["certified"].astype(bool)
        return cls(**values, target=np.asarray(arrays["target"]) if "target" in arrays else None)

    def digest(self) -> str:
        """SHA-256 over the maps' names, types, shapes and bytes: what a record vouches for."""
        return arrays_digest(self.arrays())


def arrays_digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over named arrays in name order: name, type, shape, bytes."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def preview(image: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    """An image (channels, height, width) as uint8, every k-th pixel so that no side exceeds 256."""
    low, high = bounds if bounds is not None else (float(image.min()), float(image.max()))
    every = -(-max(image.shape[1:]) // PREVIEW_SIDE)
    unit = (image[:, ::every, ::every].astype(np.float64) - low) / max(high - low, 1e-12)
    return np.round(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)
