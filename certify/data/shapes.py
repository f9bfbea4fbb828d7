"""Synthetic segmentation: discs and rectangles on a noisy ground, with clean or spoilt labels.

The task on which label noise and its remedies can be measured in a minute: few small images, three
classes, shapes that cover each other, and noise in the images too.
"""

from __future__ import annotations

import numpy as np
import torch

from certify.data.dataset import Dataset, whole_split

SIZE = 32
COUNT = {"train": 24, "test": 96}
#: Side of the square blocks that label noise acts on, and the share of them that it relabels.
BLOCK = 2
NOISE_SHARE = 0.4
_CLASSES = ("ground", "disc", "rectangle")


def shapes(split: str, *, seed: int, noisy: bool) -> Dataset:
    """Grey images (n, 1, 32, 32) with step 1/255, labels (n, 32, 32): ground, disc, rectangle.

    24 training and 96 test images. With ``noisy``, 40 % of the 2x2 blocks of every *training* label
    map are given one random class each; test labels are always clean. The same ``seed`` gives the
    same images with and without noise.
    """
    rng = np.random.Generator(np.random.PCG64([seed, split == "test"]))
    pairs = [_scene(rng) for _ in range(COUNT[split])]
    images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    if noisy and split == "train":
        labels = relabel_blocks(labels, seed=seed)
    grey = np.clip(np.round(images * 255), 0, 255).astype(np.float32) / np.float32(255)
    x = torch.from_numpy(grey).unsqueeze(1)
    y = torch.from_numpy(labels.astype(np.int64))
    name = "shapes-noisy" if noisy else "shapes"
    return Dataset(
        name, split, x, y, 3, 0.0, 1.0, 1 / 255, whole_split(len(y)), _CLASSES, task="segmentation"
    )


def relabel_blocks(
    labels: np.ndarray, *, seed: int, share: float = NOISE_SHARE, num_classes: int = 3
) -> np.ndarray:
    """Give ``share`` of each map's blocks one class each, drawn from all classes alike.

    ``labels``: (n, height, width) class indices, height and width multiples of the block side 2.
    By chance one block in ``num_classes`` keeps its class.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    spoilt = labels.copy()
    rows, columns = labels.shape[1] // BLOCK, labels.shape[2] // BLOCK
    for mask in spoilt:
        for block in rng.permutation(rows * columns)[: round(share * rows * columns)]:
            top, left = BLOCK * (block // columns), BLOCK * (block % columns)
            mask[top : top + BLOCK, left : left + BLOCK] = rng.integers(num_classes)
    return spoilt


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image in real grey values and its labels: one to three discs, one to three rectangles."""
    row, column = np.mgrid[:SIZE, :SIZE]
    label = np.zeros((SIZE, SIZE), dtype=np.int64)
    image = np.full((SIZE, SIZE), rng.uniform(0.15, 0.3))
    for kind in rng.permutation([*rng.choice([1, 2], size=2).tolist(), 1, 2]):
        centre = rng.uniform(6, SIZE - 6, size=2)
        if kind == 1:
            inside = np.hypot(row - centre[0], column - centre[1]) <= rng.uniform(4, 7)
            brightness = rng.uniform(0.45, 0.6)
        else:
            half = rng.uniform(3, 7, size=2)
            inside = (abs(row - centre[0]) <= half[0]) & (abs(column - centre[1]) <= half[1])
            brightness = rng.uniform(0.7, 0.85)
        label[inside] = kind
        image[inside] = brightness
    return image + rng.normal(0, 0.1, size=image.shape), label
