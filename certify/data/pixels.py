"""Reading image files into arrays: known formats only, sizes checked before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.errors import InvalidInput, InvalidSetting, MissingExtra, UntrustedFile
from certify.files.safe import open_regular, unreadable

#: Decoders that are plain Python or plain C without a language inside (EPS would start a program).
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
#: Pixels of one image: a 33-megapixel photograph. A few kilobytes of PNG can claim a thousand times more.
MAX_PIXELS = 2**25
#: Bytes of all images together, as float32.
MAX_BYTES = 2**33
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

Size = tuple[int, int]


def read_image(path: Path, mode: str, size: Size | None = None, *, nearest: bool = False) -> np.ndarray:
    """One image as uint8: (height, width, 3) for mode "RGB", (height, width) for "L" and "index".

    "L" gives grey values, "index" the stored numbers of a label map. ``size`` = (height, width)
    rescales: bilinear (still 8 bits), or taking the ``nearest`` pixel, as label maps need. Raises
    UnreadableFile for damaged files, other formats and more than 8 bits per channel, UntrustedFile
    for giants.
    """
    image_module = _pillow()
    kind = "image"
    with open_regular(path, kind) as file:
        try:
            image = image_module.open(file, formats=FORMATS)
        except image_module.DecompressionBombError as error:
            raise _giant(path, str(error)) from error
        except (OSError, ValueError, SyntaxError) as error:
            raise unreadable(path, kind, f"it is no image of a known format, or damaged ({error})") from error
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _giant(path, f"it claims {width} x {height} pixels")
        if image.mode not in _EIGHT_BIT:
            raise unreadable(
                path, kind, f"its pixels are of type {image.mode}, not of 8 bits", "save it with 8 bits"
            )
        try:
            image.load()
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise unreadable(path, kind, f"it is damaged or cut off ({error})") from error
        if mode != "index":
            image = image.convert(mode)
        elif image.mode not in ("L", "P"):
            image = image.convert("L")
        if size is not None and (height, width) != size:
            method = image_module.Resampling.NEAREST if nearest else image_module.Resampling.BILINEAR
            image = image.resize((size[1], size[0]), method)
        return np.array(image, dtype=np.uint8)


def stack_images(paths: Sequence[Path], name: str, size: Size | None) -> Tensor:
    """RGB images as (n, 3, height, width) float32 in [0, 1] with step 1/255.

    Raises InvalidInput when their sizes differ and none was asked for, InvalidSetting when
    they would not fit into memory.
    """
    arrays = _stack(paths, name, size, lambda p: read_image(p, "RGB", size), bytes_per_pixel=18)
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)


def stack_labels(
    paths: Sequence[Path], name: str, size: Size | None, read: Callable[[Path], np.ndarray]
) -> Tensor:
    """Label maps read by ``read``, each (height, width), as (n, height, width) int64."""
    maps = _stack(paths, name, size, read, bytes_per_pixel=16)
    return torch.from_numpy(maps.astype(np.int64, copy=False))


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name (as text, in any locale)."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith("."))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name; hidden ones left out. Empty when it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _stack(
    paths: Sequence[Path],
    name: str,
    size: Size | None,
    read: Callable[[Path], np.ndarray],
    bytes_per_pixel: int,
) -> np.ndarray:
    first = read(paths[0])
    whole: Any = None
    for place, path in enumerate(paths):
        array = first if place == 0 else read(path)
        if array.shape != first.shape:
            raise InvalidInput(
                f"the images of {name!r} have different sizes",
                why=f"{paths[0].name} is {_size(first)}, {path.name} is {_size(array)}",
                remedy=f"a model takes one shape; name the one to rescale to: {name}@{_size(first)}",
            )
        if whole is None:
            _check_memory(len(paths) * first.shape[0] * first.shape[1] * bytes_per_pixel, name, first)
            whole = np.empty((len(paths), *first.shape), dtype=first.dtype)
        whole[place] = array
    return whole


def _check_memory(needed: int, name: str, first: np.ndarray) -> None:
    if needed > MAX_BYTES:
        raise InvalidSetting(
            f"{name!r} would take {needed / 2**30:.1f} GiB of memory",
            why=f"images of {_size(first)} are held as float32, all of the part that was asked for",
            remedy=f"take fewer with --limit, or smaller ones: {name.split('@')[0]}@HEIGHTxWIDTH",
        )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"


def _giant(path: Path, claim: str) -> UntrustedFile:
    return UntrustedFile(
        f"{path} was not opened",
        why=f"{claim}; decoding it could exhaust memory",
        remedy="shrink or remove this image",
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra(
            "images cannot be read",
            why="the package pillow is not installed",
            remedy="pip install pillow",
        ) from error
    return Image
