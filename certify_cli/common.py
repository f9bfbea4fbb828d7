"""What every verb shares: options, error exits, opening checkpoints and data, printing results."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from certify_cli import completion
from certify_cli.main import INTERRUPTED

if TYPE_CHECKING:
    from certify.data import Dataset

#: Where a verb writes nothing before its end, or its files whole or not at all.
ATTACKS_KEPT = "what was attacked so far is stored in {place}; the same command goes on from there"
AGAIN = "nothing half done was kept; the same command begins again"

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
    typer.Option("--data", help="Name, file or image folder. Default: the checkpoint's data set."),
]
Label = Annotated[
    str | None,
    typer.Option("--label", help="Label column of a .csv file; FILE.csv:COLUMN says the same."),
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
RunSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        show_default=False,
        help="Seed of the noise. Default: 128 random bits, drawn and recorded; a run that goes on keeps its.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="Network of a bare state dict, or one of your own: module:factory.",
        autocompletion=completion.architectures,
    ),
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


def guarded(verb: Callable[P, R], *, kept: str = AGAIN) -> Callable[P, R]:
    """Turn a known error, and Ctrl-C, into its message on stderr and its exit code.

    ``kept``: what an interrupted verb leaves and how to go on, where it does not say so itself
    (``certify.interruption``).
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return _explained(verb, *args, **kwargs)
        except KeyboardInterrupt as stopped:
            print(f"\ninterrupted: {getattr(stopped, 'kept', kept)}", file=sys.stderr)
            end = typer.Exit(INTERRUPTED)
            end.told = True  # type: ignore[attr-defined]  # read by certify_cli.main
            raise end from None

    return run


def _explained(verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    from certify import siblings
    from certify.errors import CertifyError
    from certify.files.safe import refuse_unsafe_environment
    from certify.files.text import printable

    try:
        refuse_unsafe_environment()
        siblings.check()
        return verb(*args, **kwargs)
    except CertifyError as error:
        what, why, remedy = (printable(part) for part in (error.what, error.why, error.remedy))
        print(f"{type(error).__name__}: {what}\n  why: {why}\n  do:  {remedy}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


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
    entry: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    label: str | None = None,
    pixels: bool = False,
) -> tuple[Any, Dataset]:
    """The network in ``path`` and the data set asked for, or the one that its header names.

    A network named with --arch and a data set named with --data complete each other: classes and
    shape of the data build the network. ``mean`` and ``std`` put normalisation in front of it. Only a verb
    that knows ``pixels`` gets a segmenter.
    """
    from certify_cli import models

    normalise = models.normalisation(mean, std)
    arguments = json_object(arch_args, "--arch-args")
    where = "cpu" if path.suffix == ".onnx" and device == "auto" else pick_device(device)
    part: dict[str, Any] = {"split": split, "root": root, "limit": limit, "skip": skip, "label": label}
    found = open_data(None, data, **part) if arch is not None and data is not None else None
    network = models.load(
        path, device=where, data=found, entry=entry, normalise=normalise, trust=trust,
        arch=arch, arguments=arguments,
    )  # fmt: skip
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
    label: str | None = None,
    download: bool = False,
) -> Dataset:
    """The data set asked for, or the one the checkpoint's header names; its shape must fit the model.

    What its reader decided is printed on stderr.
    """
    from certify import data
    from certify.errors import InvalidSetting
    from certify.files.text import printable

    if name is None:
        name = header.dataset.get("name") if header is not None else None
    if name is None:
        raise InvalidSetting(
            "no data set given",
            why="the model file names none",
            remedy="add --data NAME, --data FILE or --data FOLDER",
        )
    found = data.load(name, split=split, root=root, limit=limit, skip=skip, download=download, label=label)
    for note in found.notes:
        print(f"data: {printable(note)}", file=sys.stderr)
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
    found = re.fullmatch(r"([0-9]{1,18})/([0-9]{1,18})", shard)
    i, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= i <= n <= len(dataset):
        raise InvalidSetting(
            f"--shard {shard!r} is not a shard",
            why=f"it must be i/n in the digits 0 to 9, 1 <= i <= n <= {len(dataset)}, the number of inputs",
            remedy="use --shard 1/4 to --shard 4/4 on four machines, then certify merge",
        )
    return replace(dataset, x=dataset.x[i - 1 :: n], y=dataset.y[i - 1 :: n], ids=dataset.ids[i - 1 :: n])


def refuse_unseeded(shard: str | None, seed: int | None, place: Path) -> None:
    """Raise InvalidSetting for a shard that would draw a seed of its own: all shards of a run share one."""
    from certify.errors import InvalidSetting
    from certify.seeds import drawn

    alone = shard is None or shard.rpartition("/")[2].lstrip("0") == "1"
    if seed is None and not alone and not (place / "records.sqlite").is_file():
        raise InvalidSetting(
            f"--shard {shard} needs --seed",
            why="all shards of one run draw their noise from one seed, and each of them would draw another",
            remedy=f"give every shard the same random number, for example this one: --seed {drawn().value}",
        )


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


def tables(*, markup: bool = False):
    """The console for results (stdout). What it is given is shown, not obeyed, unless it is ``markup``.

    Names of data, classes and runs may be a stranger's: brackets in them are no styles, control characters
    stand as their codes.
    """
    from rich.console import Console

    from certify.files.text import printable

    class Plain(Console):
        def render_str(self, text: str, **how: Any):
            lines = "\n".join(printable(line) for line in text.split("\n"))
            return super().render_str(lines, **how)

    return Console(highlight=False) if markup else Plain(highlight=False, markup=False, emoji=False)


def say(text: str, *, error: bool = False) -> None:
    """One line on stdout (or stderr): what a stranger wrote in it is shown, not obeyed."""
    from certify.files.text import printable

    print(printable(text), file=sys.stderr if error else sys.stdout)


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
