"""``load``: one name or path in, one split of a data set out."""

from __future__ import annotations

from pathlib import Path

from certify.data.builtin import digits, moons
from certify.data.dataset import Dataset
from certify.data.mnist import mnist
from certify.data.npz import npz
from certify.data.roots import data_root
from certify.errors import DataNotFound, InvalidSetting

SPLITS = ("train", "test")
_NAMES = ("digits", "fashion-mnist", "mnist", "moons")


def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return _NAMES


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
    """One split of a data set known by name, or of a file or folder.

    ``root`` holds one folder per data set (default: the variable CERTIFY_DATA, then
    ~/.cache/certify). ``skip`` and ``limit`` keep a part of the split; the ids of its inputs stay
    what they are in the whole. ``download`` fetches public sets that are missing. ``seed`` draws
    synthetic sets.

    Raises InvalidSetting for an unknown split, a negative skip or a limit below 1, or a part
    that is empty; DataNotFound for an unknown name or missing files; UnreadableFile and
    UntrustedFile for files that are damaged or dangerous.
    """
    _check(split, limit, skip)
    name = str(name_or_path)
    folder = data_root(root)
    if name == "digits":
        dataset = digits(split).part(skip, limit)
    elif name == "moons":
        dataset = moons(split, seed=seed).part(skip, limit)
    elif name in ("mnist", "fashion-mnist"):
        dataset = mnist(name, split, folder, limit=limit, skip=skip, download=download)
    elif Path(name).suffix == ".npz":
        dataset = npz(Path(name).expanduser(), split).part(skip, limit)
    else:
        raise DataNotFound(
            f"there is no data set {name!r}",
            why="it is neither a known name nor a .npz file",
            remedy=f"use one of {', '.join(_NAMES)}, or a file written with numpy.savez(path, x=x, y=y)",
        )
    if len(dataset) == 0:
        raise InvalidSetting(
            f"no inputs are left of {name!r}, split {split!r}",
            why=f"skip = {skip} is beyond its end",
            remedy="give a smaller --skip",
        )
    return dataset


def _check(split: str, limit: int | None, skip: int) -> None:
    if split not in SPLITS:
        raise InvalidSetting(
            f"there is no split {split!r}", why="data sets are read one split at a time",
            remedy=f"use {' or '.join(SPLITS)}",
        )  # fmt: skip
    if skip < 0 or (limit is not None and limit < 1):
        raise InvalidSetting(
            f"skip = {skip}, limit = {limit} is no part of a data set",
            why="skip must be at least 0 and limit at least 1",
            remedy="leave limit out to use the whole split",
        )
