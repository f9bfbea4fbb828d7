"""What every verb shares: options, error exits, opening checkpoints and data, printing results."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from certify.data import Dataset

P = ParamSpec("P")
R = TypeVar("R")

Model = Annotated[
    Path,
    typer.Option("--model", "-m", help="Checkpoint (.pt, .safetensors) or ONNX file.", show_default=False),
]
Sigma = Annotated[
    float | None,
    typer.Option("--sigma", "-s", help="Standard deviation of the noise. Default: that of the training."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Name, .npz file or image folder. Default: the checkpoint's data set."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder of the data sets. Default: $CERTIFY_DATA, then ~/.cache/certify."
    ),
]
Split = Annotated[str, typer.Option("--split", help="Split of the data set.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N inputs.")]
Skip = Annotated[int, typer.Option("--skip", min=0, help="Leave out the first K inputs.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the run; any whole number.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Arch = Annotated[
    str | None,
    typer.Option("--arch", help="Network of a bare state dict, or one of your own: module:factory."),
]
ArchArgs = Annotated[
    str | None,
    typer.Option("--arch-args", help="JSON object of arguments for --arch, such as '{\"width\": 64}'."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust-model-file", help="Open .pt2 and TorchScript files, which can run code."),
]
RunDir = Annotated[Path, typer.Argument(help="Run directory, such as runs/demo.", show_default=False)]


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """Turn a known error into its message on stderr and its exit code."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from certify import siblings
        from certify.errors import CertifyError
        from certify.files.safe import refuse_unsafe_environment

        try:
            refuse_unsafe_environment()
            siblings.check()
            return verb(*args, **kwargs)
        except CertifyError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return run


def pick_device(name: str) -> str:
    """``auto`` becomes cuda where there is one; cuda without a GPU is an error."""
    import torch

    from certify.errors import InvalidSetting

    found = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if found else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise InvalidSetting(
            f"device {name!r} is unknown", why="a model runs on cpu or cuda", remedy="use --device auto"
        )
    if name.startswith("cuda") and not found:
        raise InvalidSetting(
            f"device {name!r} is not available",
            why="this torch build sees no CUDA device",
            remedy="use --device cpu, or install a CUDA build of torch on a machine with a GPU",
        )
    return name


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """The JSON object given to ``option``, or an error that shows the form."""
    from certify.errors import InvalidSetting

    if text is None:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        value = error
    if not isinstance(value, dict):
        raise InvalidSetting(
            f"{option} {text!r} is not a JSON object",
            why=str(value) if isinstance(value, Exception) else f"it is a {type(value).__name__}",
            remedy=f"""write it like {option} '{{"width": 64}}'""",
        )
    return value


def open_model(
    path: Path,
    *,
    data: str | None,
    split: str,
    root: Path | None,
    limit: int | None = None,
    skip: int = 0,
    device: str = "auto",
    arch: str | None = None,
    arch_args: str | None = None,
    trust: bool = False,
    pixels: bool = False,
) -> tuple[Any, Dataset]:
    """The network in ``path`` and the data set asked for, or the one that its header names.

    A network named with --arch and a data set named with --data complete each other: classes and
    shape of the data build the network. Only a verb that knows ``pixels`` gets a segmenter.
    """
    import certify

    arguments = json_object(arch_args, "--arch-args")
    where = "cpu" if path.suffix == ".onnx" and device == "auto" else pick_device(device)
    part: dict[str, Any] = {"split": split, "root": root, "limit": limit, "skip": skip}
    found = open_data(None, data, **part) if arch is not None and data is not None else None
    network = certify.load(
        path, device=where, arch=arch, arguments=arguments, data=found, trust_model_file=trust
    )
    header = getattr(network, "certify_header", None)
    dataset = check_fit(found, header, data) if found is not None else open_data(header, data, **part)
    refuse_segmenter(header, dataset, pixels=pixels)
    return network, dataset


def refuse_segmenter(header: Any, dataset: Dataset, *, pixels: bool) -> None:
    """Raise InvalidSetting where one class per input is needed, or model and data do not agree on it."""
    from certify.errors import InvalidSetting

    task = dataset.task if header is None else header.task
    if task != dataset.task:
        raise InvalidSetting(
            f"data set {dataset.name!r} does not fit the model",
            why=f"the data are for {dataset.task}, the model is for {task}",
            remedy="use the data set the model was trained on, or another model",
        )
    if task == "segmentation" and not pixels:
        raise InvalidSetting(
            "this is not available for a segmentation model",
            why="it needs one class per input; a segmenter gives one to every pixel",
            remedy="certify its pixels with `certify radius`, then `certify verify` and `certify report`",
        )


def open_data(
    header: Any,
    name: str | None,
    *,
    split: str,
    root: Path | None,
    limit: int | None,
    skip: int,
    download: bool = False,
) -> Dataset:
    """The data set asked for, or the one the checkpoint's header names; its shape must fit the model."""
    from certify import data
    from certify.errors import InvalidSetting

    if name is None:
        name = header.dataset.get("name") if header is not None else None
    if name is None:
        raise InvalidSetting(
            "no data set given",
            why="the model file names none",
            remedy="add --data NAME or --data FILE.npz",
        )
    found = data.load(name, split=split, root=root, limit=limit, skip=skip, download=download)
    return check_fit(found, header, name)


def check_fit(found: Dataset, header: Any, name: str | None) -> Dataset:
    """``found`` itself if its inputs have the shape that the model takes; InvalidInput otherwise."""
    from certify.errors import InvalidInput

    if header is not None and tuple(found.x.shape[1:]) != tuple(header.input_shape):
        raise InvalidInput(
            f"data set {name!r} does not fit the model",
            why=f"its inputs are {tuple(found.x.shape[1:])}, the model takes {tuple(header.input_shape)}",
            remedy="use the data set the model was trained on, or another checkpoint",
        )
    return found


def shard_of(dataset: Dataset, shard: str | None) -> Dataset:
    """Shard i/n of a data set: inputs i-1, i-1+n, ... so that every shard sees the same mix."""
    import re
    from dataclasses import replace

    from certify.errors import InvalidSetting

    if shard is None:
        return dataset
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    i, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= i <= n <= len(dataset):
        raise InvalidSetting(
            f"--shard {shard!r} is not a shard",
            why=f"it must be i/n with 1 <= i <= n <= {len(dataset)}, the number of inputs",
            remedy="use --shard 1/4 to --shard 4/4 on four machines, then certify merge",
        )
    return replace(dataset, x=dataset.x[i - 1 :: n], y=dataset.y[i - 1 :: n], ids=dataset.ids[i - 1 :: n])


def refuse_other_directories(run: Path) -> None:
    """Raise UnreadableFile, saying what a run directory is, where ``run`` is none."""
    from certify.errors import UnreadableFile

    if not (run / "records.sqlite").is_file():
        raise UnreadableFile(
            f"{run} is not a run directory",
            why="it is a file" if run.is_file() else "it holds no records.sqlite",
            remedy="give the directory that `certify radius` wrote (its --out, or the path it printed)"
            + (f"; a checkpoint is named with --model {run}" if run.is_file() else ""),
        )


def run_directory(run: Path):
    """A stored run, or an error that says what a run directory is."""
    from certify.store import read_run

    refuse_other_directories(run)
    return read_run(run)


def tables():
    """The console for results (stdout)."""
    from rich.console import Console

    return Console(highlight=False)


@contextmanager
def progress(description: str, total: int | None):
    """A progress bar on stderr with rate and time left; yields ``advance(n, **fields)``.

    Shown only where stderr is a terminal: logs stay readable.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(n: float = 1, *, note: str | None = None) -> None:
            fields: dict[str, Any] = {} if note is None else {"note": note}
            bar.update(task, advance=n, **fields)

        yield advance


def own_network(arch: str | None) -> str:
    """`` --arch module:factory`` for a network of the user's own: nothing but their word imports it."""
    return f" --arch {arch}" if arch and ":" in arch else ""


def say_next(command: str) -> None:
    """The next step, as a command that can be copied whole."""
    tables().print(f"next: {command}", soft_wrap=True, markup=False)


def print_json(value: Any) -> None:
    """One JSON object on stdout; an infinite number (JSON has none) is null."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command_line() -> str:
    """The command as typed, to be stored with the run."""
    import shlex

    return shlex.join(["certify", *sys.argv[1:]])
