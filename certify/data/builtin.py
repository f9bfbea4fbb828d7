"""Data sets that need no file: scikit-learn's digits and the two half-moons."""

from __future__ import annotations

import numpy as np
import torch

from certify.data.dataset import Dataset, whole_split

#: Range and lattice step of the half-moons: |coordinate| stays below 4 with noise 0.1.
MOONS_RANGE = (-4.0, 4.0)
MOONS_GRID = 2.0**-10
MOONS_SIZE = {"train": 400, "test": 2000}


def digits(split: str) -> Dataset:
    """scikit-learn's 1797 handwritten digits as (1, 8, 8) images in [0, 1] with step 1/16.

    One image in five is the test split, chosen by a multiplicative hash of its position:
    fixed for ever, without a random stream, and spread over all writers and classes.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    held_out = (np.arange(len(labels), dtype=np.uint64) * 2654435761) % 2**32 < 2**32 // 5
    keep = held_out if split == "test" else ~held_out
    x = torch.from_numpy(images[keep].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels[keep].astype(np.int64))
    names = tuple(str(k) for k in range(10))
    return Dataset("digits", split, x, y, 10, 0.0, 1.0, 1 / 16, whole_split(len(y)), names)


def moons(split: str, *, seed: int) -> Dataset:
    """Two interleaved half-circles with Gaussian noise 0.1, rounded to steps of 2**-10.

    400 training and 2000 test points; ``seed`` draws other points, and the two splits never
    share a stream.
    """
    from sklearn.datasets import make_moons

    stream = (2 * seed + (split == "test")) % 2**32
    points, labels = (np.asarray(a) for a in make_moons(MOONS_SIZE[split], noise=0.1, random_state=stream))
    points = np.clip(np.round(points / MOONS_GRID) * MOONS_GRID, *MOONS_RANGE)
    x = torch.from_numpy(points.astype(np.float32))
    y = torch.from_numpy(labels.astype(np.int64))
    return Dataset(
        "moons", split, x, y, 2, *MOONS_RANGE, MOONS_GRID, whole_split(len(y)), ("upper moon", "lower moon")
    )
