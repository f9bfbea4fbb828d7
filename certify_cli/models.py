"""Networks as the command opens them: what was taken from a file is printed, normalisation goes in front."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from certify.data import Dataset

Entry = Annotated[
    str | None,
    typer.Option("--entry", help="Which weights of a file that holds several, such as ema."),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", help="The model sees (x - mean) / std: one number, or one per channel or feature."
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", help="See --mean: 0.229,0.224,0.225 or one number, in units of the data."),
]


def load(
    path: Path,
    *,
    device: str,
    data: Dataset | None,
    entry: str | None = None,
    normalise: Mapping[str, Any] | None = None,
    trust: bool = False,
    quiet: bool = False,
    **named: Any,
) -> Any:
    """The network in ``path``, behind its normalisation; what was taken is printed, unless ``quiet``."""
    import certify
    from certify.checkpoints import LeftOut
    from certify.files.text import printable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOut)  # printed below, in full
        network = certify.load(path, device=device, data=data, entry=entry, trust_model_file=trust, **named)
    loaded = getattr(network, "certify_loaded", None)
    if loaded is not None and not quiet:
        for line in loaded.lines():
            print(printable(line), file=sys.stderr)
    return network if not normalise else behind(network, normalise)


def behind(network: Any, normalise: Mapping[str, Any]) -> Any:
    """The network behind (x - mean) / std; it keeps what its checkpoint said of it."""
    import certify

    wrapped: Any = certify.wrap(network, mean=normalise.get("mean"), std=normalise.get("std"))
    for name in ("certify_header", "certify_loaded"):
        if hasattr(network, name):
            setattr(wrapped, name, getattr(network, name))
    wrapped.certify_normalise = dict(normalise)
    return wrapped


def refuse_for_a_run(**given: str | None) -> None:
    """Raise InvalidSetting for options about a model file where a run directory says what its model is."""
    from certify.errors import InvalidSetting

    for name, value in given.items():
        if value is not None:
            raise InvalidSetting(
                f"--{name} has no meaning with a run directory",
                why="the run says which weights and which normalisation it certified",
                remedy=f"leave --{name} out, or name the checkpoint with --model alone",
            )


def normalisation(mean: str | None, std: str | None) -> dict[str, list[float]]:
    """The numbers given with --mean and --std; {} for none."""
    return {
        name: _numbers(text, f"--{name}") for name, text in (("mean", mean), ("std", std)) if text is not None
    }


def _numbers(text: str, option: str) -> list[float]:
    from certify.errors import InvalidSetting

    try:
        return [float(part) for part in text.strip("[]() ").replace(",", " ").split()] or [float("nan")]
    except ValueError as error:
        raise InvalidSetting(
            f"{option} {text!r} is no list of numbers",
            why=str(error),
            remedy=f"write one number, or one per channel: {option} 0.485,0.456,0.406",
        ) from error
