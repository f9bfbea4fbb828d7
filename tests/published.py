"""A published checkpoint and a folder of pictures, made as their owners would have made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def weights(depth: int = 20, *, layout: str = "akamaster", seed: int = 0) -> dict[str, Tensor]:
    """A state dict under the names of the layout, with random values."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, size: int = 3) -> None:
        scale = (2 / (inputs * size**2)) ** 0.5
        found[f"{name}.weight"] = torch.randn(outputs, inputs, size, size, generator=draw) * scale

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"] = torch.rand(width, generator=draw) + 0.5
        found[f"{name}.bias"] = torch.randn(width, generator=draw) / 10
        found[f"{name}.running_mean"] = torch.randn(width, generator=draw) / 10
        found[f"{name}.running_var"] = torch.rand(width, generator=draw) + 0.5
        found[f"{name}.num_batches_tracked"] = torch.tensor(100)

    conv("conv1", 3, 16)
    norm("bn1", 16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", inputs, width)
            norm(f"{name}.bn1", width)
            conv(f"{name}.conv2", width, width)
            norm(f"{name}.bn2", width)
            if layout == "cohen" and inputs != width:
                conv(f"{name}.downsample.0", inputs, width, 1)
                norm(f"{name}.downsample.1", width)
            inputs = width
    last = "linear" if layout == "akamaster" else "fc"
    found[f"{last}.weight"] = torch.randn(10, 64, generator=draw) / 8
    found[f"{last}.bias"] = torch.randn(10, generator=draw) / 10
    return found


def logits(state: dict[str, Tensor], x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The network's answer worked out from its state dict, as the paper describes it."""

    def norm(name: str, z: Tensor) -> Tensor:
        rows = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(z, *rows)

    z = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    z = F.relu(norm("bn1", F.conv2d(z, state["conv1.weight"], padding=1)))
    for name in sorted({k.split(".conv1")[0] for k in state if k.startswith("layer") and ".conv1" in k},
                       key=lambda n: (int(n[5]), int(n.split(".")[1]))):  # fmt: skip
        first = state[f"{name}.conv1.weight"]
        stride = 2 if first.shape[0] != first.shape[1] else 1
        a = F.relu(norm(f"{name}.bn1", F.conv2d(z, first, stride=stride, padding=1)))
        a = norm(f"{name}.bn2", F.conv2d(a, state[f"{name}.conv2.weight"], padding=1))
        if f"{name}.downsample.0.weight" in state:
            z = norm(f"{name}.downsample.1", F.conv2d(z, state[f"{name}.downsample.0.weight"], stride=2))
        elif stride == 2:
            z = torch.cat(
                [
                    torch.zeros_like(z[:, ::2, ::2, ::2]),
                    z[:, :, ::2, ::2],
                    torch.zeros_like(z[:, ::2, ::2, ::2]),
                ],
                1,
            )
        z = F.relu(a + z)
    last = "linear" if "linear.weight" in state else "fc"
    return z.mean((2, 3)) @ state[f"{last}.weight"].T + state[f"{last}.bias"]


def checkpoint(path: Path) -> None:
    """``resnet20.th``: parallel names, an accuracy beside the weights, the format of torch before 1.6."""
    content = {"state_dict": {f"module.{k}": v for k, v in weights().items()}, "best_prec1": 91.73}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def photos(folder: Path, *, each: int = 1) -> None:
    """32x32 pictures, ``each`` of every class of CIFAR-10, in one sub-folder per class."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = draw.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:04d}.png")
