"""The array files of a run: read only as far as a run of this kind can have them.

A few kilobytes of zip can claim gigabytes. How large the maps and images of a run may be follows from
its inputs' shape and their number; and nothing is unpacked that its own bytes do not cover.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify.errors import UnreadableFile, UntrustedFile
from certify.files.members import open_member, sha256_of
from certify.store.damage import corrupt

if TYPE_CHECKING:
    import numpy as np

#: Bytes that any array file may unpack to; beyond them ``RATIO`` times its own.
FREE, RATIO = 1 << 26, 20
#: What names, headers and the zip table take at most.
_FRAME = 1 << 16
#: Bytes per coordinate of an input: of the maps of one image; of an input and its adversarial example.
_PER_PIXEL, _PER_PAIR = 80, 16
ADVERSARIAL = "adversarial"
#: The maps of a segmented image and of an attack on it: type and smallest value; the largest is given below.
_MAPS = {
    "selected": ("<u2", 0), "votes": ("<u4", 0), "certified": ("|u1", 0), "radius": ("<f8", 0),
    "plain": ("<i4", -1), "target": ("<i4", 0),
}  # fmt: skip
_ATTACKED = {"label": ("<i4", 0), "clean": ("<i4", -1), "attacked": ("<i4", -1), "found": ("<i4", -1),
             "by": ("<i2", -1)}  # fmt: skip
#: Value of a pixel without a true class, and the maps that may hold it.
_NONE, _WITH_NONE = -100, ("target", "label", "clean", "attacked")


def load_arrays(
    path: Path,
    name: str,
    hashes: Mapping[str, tuple[str | None, str | None]],
    settings: Mapping[str, Any],
    *,
    inputs: int,
) -> dict[str, np.ndarray] | None:
    """``NAME.npz`` after its hash was checked; never unpickles. None if it was never stored.

    ``settings`` and ``inputs`` (their number) say what arrays the run can have. Raises CorruptRun.
    """
    from certify.files.npz import unpacked

    expected, pending = hashes.get(name, (None, None))
    file = path / f"{name}.npz"
    if name not in hashes or (expected is None and not os.path.lexists(file)):
        return None
    most = limit(name, settings, inputs)
    try:
        with open_member(file, "array file") as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > most + _FRAME:
                corrupt(path, f"{file.name} has {size:,} bytes, this run's need {most:,} at most")
            if sha256_of(handle) not in (expected, pending):
                corrupt(path, f"{file.name} is not the file that was stored")
            arrays = unpacked(handle, file, "array file", most=min(most, allowed(size)))
    except (UnreadableFile, UntrustedFile) as cause:
        corrupt(path, f"{file.name} cannot be read: {cause.why}", cause)
    if fault := arrays_fault(name, arrays, settings):
        corrupt(path, f"{file.name} is not what a run holds: {fault}")
    return arrays


def packed(arrays: Mapping[str, Any]) -> bytes:
    """The arrays as the bytes of an .npz file that ``load_arrays`` reads: compressed where it may be."""
    import numpy as np

    named: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **named)
    if sum(v.nbytes for v in named.values()) + _FRAME > allowed(len(buffer.getvalue())):
        buffer = io.BytesIO()
        np.savez(buffer, **named)  # so even that its bytes would not cover it
    return buffer.getvalue()


def allowed(size: int) -> int:
    """Bytes that a file of ``size`` bytes may unpack to."""
    return max(FREE, RATIO * size)


def limit(name: str, settings: Mapping[str, Any], inputs: int) -> int:
    """Bytes that the arrays called ``name`` take at most, in a run of so many inputs."""
    shape = settings.get("input_shape")
    if not shape:
        return FREE
    each = math.prod(shape)
    return _FRAME + (inputs * (8 + _PER_PAIR * each) if name == ADVERSARIAL else _PER_PIXEL * each)


def arrays_fault(name: str, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> str | None:
    """What arrays of this name and run cannot be, or None; None for names that no reader takes apart."""
    shape = tuple(settings.get("input_shape") or ())
    if name == ADVERSARIAL:
        return _adversarial_fault(arrays, shape)
    if settings.get("task") == "segmentation" and name.startswith(("pixels-", "attacked-")):
        return _maps_fault(arrays, shape, settings, attacked=name.startswith("attacked-"))
    return None


def _adversarial_fault(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> str | None:
    import numpy as np

    if set(arrays) != {"index", "x", "x_adv"}:
        return f"it has {', '.join(sorted(arrays)) or 'nothing'} instead of index, x and x_adv"
    index, x, moved = (arrays[k] for k in ("index", "x", "x_adv"))
    if index.ndim != 1 or index.dtype.kind != "i":
        return "its index is no list of whole numbers"
    for values in (x, moved):
        if values.shape != x.shape or len(values) != len(index) or (shape and values.shape[1:] != shape):
            return f"its inputs have the shape {values.shape}, the run's {shape}"
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            return "its inputs are no finite numbers"
    return None


def _maps_fault(
    arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], settings: Mapping[str, Any], *, attacked: bool
) -> str | None:
    classes, kinds = int(settings["num_classes"]), _ATTACKED if attacked else _MAPS
    beside = "x_adv" if attacked else "preview"
    needed = set(kinds) - {"target"} | (set() if attacked else {beside})
    if not needed <= set(arrays) <= set(kinds) | {beside}:
        return f"it has {', '.join(sorted(arrays)) or 'nothing'}; a map is missing or is none"
    largest = {"votes": 2**32, "certified": 1, "radius": sys.float_info.max, "by": 2**15}
    for name, (kind, least) in kinds.items():
        if name in arrays:
            values = arrays[name]
            if values.dtype.str != kind or values.shape != shape[1:]:
                return f"its map {name} has the type {values.dtype} and shape {values.shape}"
            known = values[values != _NONE] if name in _WITH_NONE else values
            if known.size and not (least <= known.min() and known.max() <= largest.get(name, classes - 1)):
                return f"its map {name} holds {known.min()} to {known.max()}"
    if not attacked:
        seen = arrays["preview"]
        if seen.dtype.str != "|u1" or seen.ndim != 3 or max(seen.shape) > 1 << 16:
            return "its preview is no picture"
    elif "x_adv" in arrays and (arrays["x_adv"].shape != shape or arrays["x_adv"].dtype.kind != "f"):
        return f"its image has the shape {arrays['x_adv'].shape}, the run's {shape}"
    return None
