"""Where the sampling of a run takes place: in this process, or on a Ray cluster."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer

Engine = Annotated[str, typer.Option("--engine", help="local or ray. The records are the same.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="ray: worker processes. Default: one per CPU or GPU.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="ray: HOST:PORT of a running cluster. Default: one on this machine."),
]


def pick(name: str, workers: int | None, address: str | None) -> Any:
    """The engine called ``name``; options of the other one are an error, not ignored."""
    from certify.errors import InvalidSetting

    if name == "ray":
        from certify.sampling.ray import RayEngine

        return RayEngine(workers=workers, address=address)
    if name != "local":
        raise InvalidSetting(
            f"engine {name!r} is unknown",
            why="samples are drawn in this process or by Ray workers",
            remedy="use --engine local or --engine ray",
        )
    if workers is not None or address is not None:
        raise InvalidSetting(
            f"--{'workers' if workers is not None else 'address'} has no meaning for the local engine",
            why="it draws all samples in this process",
            remedy="add --engine ray",
        )
    return nullcontext
