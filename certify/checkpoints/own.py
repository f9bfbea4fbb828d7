"""Saving a network of one's own so that the file alone is enough to certify it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import check_output
from certify.arguments import measured_classes
from certify.calls import checked
from certify.checkpoints import build, save
from certify.checkpoints.header import Header
from certify.contract import check_model
from certify.data.dataset import Dataset
from certify.data.loading import load as load_data
from certify.denoising import Denoised
from certify.errors import ArchitectureMismatch, InvalidSetting


@checked
def save_own(
    model: nn.Module,
    path: str | Path,
    *,
    architecture: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data: Dataset | str | Path | None = None,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    bounds: tuple[float, float] | None = None,
    grid: float | None = None,
    sigma: float | None = None,
) -> Header:
    """Write ``model`` with all that ``certify radius --model PATH`` needs to know; returns the header.

    ``path`` ends in .pt or .safetensors. ``architecture``: who builds the network, "module:factory" or
    a registered name (default: the model's own class); called with ``arguments``, and with ``num_classes``
    and ``input_shape`` if it takes them. ``data``: a data set or its name, which gives classes, shape,
    range and grid; else ``num_classes``, ``input_shape`` and, unless inputs are in [0, 1], ``bounds``.
    ``sigma``: the noise the network was trained under, the default when it is certified.

    The network is built again from what will be written and must answer as ``model`` does in eval mode;
    nothing is written otherwise. Raises InvalidSetting, InvalidModel, ArchitectureMismatch, and as
    ``certify.checkpoints.save``.
    """
    if isinstance(model, Denoised):
        raise InvalidSetting(
            "a classifier behind a denoiser is not one checkpoint",
            why="it has two parts, each of which describes itself and is of use alone",
            remedy="save both, and put them together again: certify.denoised(certify.load(classifier), "
            "certify.load(denoiser)), or --model and --denoiser",
        )
    fixed = copy.deepcopy(model).eval()
    check_model(fixed)
    facts = _facts(fixed, data, num_classes, input_shape, bounds, grid)
    header = Header(
        architecture or _own_name(model),
        dict(arguments or {}),
        training={} if sigma is None else {"sigma": float(sigma)},
        **facts,
    )
    _check_rebuilt(fixed, header)
    save(path, model, header)
    return header


def _facts(
    model: nn.Module,
    data: Dataset | str | Path | None,
    num_classes: int | None,
    input_shape: Sequence[int] | None,
    bounds: tuple[float, float] | None,
    grid: float | None,
) -> dict[str, Any]:
    if isinstance(data, str | Path):
        data = load_data(str(data))
    if data is not None:
        model = model.cpu()
        num_classes = num_classes or measured_classes(model, data)
        input_shape, bounds = input_shape or data.input_shape, bounds or data.bounds
        grid = grid if grid is not None else data.grid
    if num_classes is None or input_shape is None:
        raise InvalidSetting(
            "the checkpoint could not say what the network is for",
            why=f"{'num_classes' if num_classes is None else 'input_shape'} is missing",
            remedy="pass data=..., or num_classes=10, input_shape=(3, 32, 32) and the bounds of the inputs",
        )
    low, high = bounds or (0.0, 1.0)
    return {
        "num_classes": int(num_classes),
        "input_shape": tuple(int(n) for n in input_shape),
        "low": float(low),
        "high": float(high),
        "grid": None if grid is None else float(grid),
        "dataset": {} if data is None else {"name": data.name},
        "task": "classification" if data is None else data.task,
    }


def _own_name(model: nn.Module) -> str:
    kind = type(model)
    of_torch = kind.__module__.split(".")[0] == "torch"
    if of_torch or kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise InvalidSetting(
            f"{kind.__qualname__} cannot be built again by another program",
            why="its layers are not part of its name"
            if of_torch
            else "it is defined in a script or inside a function",
            remedy="put the class, or a function that returns the network, into a file such as mynet.py, "
            "import it from there, and pass architecture='mynet:Net'",
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def _check_rebuilt(model: nn.Module, header: Header) -> None:
    """What will be loaded is what was saved: weights by name, and answers on a few inputs."""
    model = model.cpu()
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    rebuilt = build(header, state, trusted_name=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *header.input_shape, generator=generator) * (header.high - header.low) + header.low
    with torch.inference_mode():
        ours, theirs = model(x.clone()), rebuilt(x.clone())
    spatial = header.input_shape[1:] if header.task == "segmentation" else None
    check_output(ours, batch=4, num_classes=header.num_classes, spatial=spatial)
    same = isinstance(theirs, Tensor) and torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    if not same:
        raise ArchitectureMismatch(
            f"{header.architecture} builds another network than the one given",
            why="it takes the same weights but answers differently",
            remedy="name the function that built this network, with the same arguments",
        )
