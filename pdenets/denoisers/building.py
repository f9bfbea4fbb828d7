"""A denoiser by its registered name.

A class that is registered says by attributes what has to be done before it is of use: ``learned`` if it has
weights to train, ``matched`` for numbers that are matched to the noise (name, values to try).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from certify import registry
from certify.checkpoints.header import Header
from certify.data.dataset import Dataset
from certify.errors import ArchitectureMismatch, CertifyError


def build_denoiser(name: str, arguments: Mapping[str, Any], input_shape: tuple[int, ...]) -> nn.Module:
    """A new denoiser, in training mode, its weights from the torch stream as it stands.

    Raises ArchitectureMismatch for an unknown name or arguments that it does not take, InvalidSetting for
    values it cannot have.
    """
    factory = registry.denoiser(name)
    try:
        found = factory(**registry.accepted(factory, {"input_shape": tuple(input_shape)}) | dict(arguments))
    except CertifyError:
        raise
    except Exception as cause:
        raise ArchitectureMismatch(
            f"the denoiser {name!r} could not be built",
            why=f"{type(cause).__name__}: {cause}",
            remedy="check --denoiser-args; the factory's docstring names its arguments",
        ) from cause
    # What a run keeps to build it again, where there is no checkpoint.
    found.registered = {"architecture": name, "arguments": dict(arguments)}
    return found


def is_learned(factory: Any) -> bool:
    """Whether a denoiser's weights have to be trained."""
    return bool(getattr(factory, "learned", False))


def described(
    name: str, arguments: Mapping[str, Any], data: Dataset, record: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Header]:
    """A denoiser without weights to train, in eval mode, and its header, as if it came from a checkpoint."""
    denoiser = build_denoiser(name, arguments, data.input_shape).eval()
    header = denoiser_header(name, arguments, data, record or {})
    denoiser.certify_header = header  # type: ignore[assignment]
    return denoiser, header


def denoiser_header(
    name: str, arguments: Mapping[str, Any], data: Dataset, record: Mapping[str, Any]
) -> Header:
    """What the checkpoint of a denoiser for ``data`` says about itself."""
    return Header(
        architecture=name, arguments=dict(arguments), num_classes=data.num_classes,
        input_shape=data.input_shape, low=data.low, high=data.high, grid=data.grid,
        dataset={"name": data.name}, training=dict(record), task="denoising",
    )  # fmt: skip
