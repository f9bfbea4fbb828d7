"""A denoiser in front of the model, as the verbs' options ask for it: a checkpoint, or one by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, completion

if TYPE_CHECKING:
    from certify.data import Dataset

Denoiser = Annotated[
    str | None,
    typer.Option(
        "--denoiser",
        help="Put a denoiser in front: a checkpoint, or heat, tv, perona-malik, identity. Several, separated "
        "by commas, need --pilot.",
        autocompletion=completion.denoisers,
    ),
]
DenoiserFile = Annotated[
    Path | None,
    typer.Option("--denoiser", help="Checkpoint of the run's denoiser, where it has moved."),
]
DenoiserArgs = Annotated[
    str | None,
    typer.Option(
        "--denoiser-args",
        help="JSON object of its numbers, such as '{\"time\": 0.4}'; what is left out is matched on the "
        'training split. "sigma": the level it is told. Default: --sigma.',
    ),
]


@dataclass(frozen=True)
class Asked:
    """What the options say; ``root`` is the folder of the data sets."""

    denoiser: str | None
    arguments: str | None = None
    root: Path | None = None

    def names(self) -> tuple[str, ...]:
        """The candidates: one path or name, or several separated by commas. Raises InvalidSetting."""
        from certify.errors import InvalidSetting

        if self.denoiser is None:
            if self.arguments is not None:
                raise InvalidSetting(
                    "--denoiser-args has no meaning without a denoiser",
                    why="it holds the denoiser's numbers",
                    remedy="add --denoiser NAME, or leave it out",
                )
            return ()
        if Path(self.denoiser).exists():
            return (self.denoiser,)
        found = tuple(name.strip() for name in self.denoiser.split(","))
        if not all(found) or len(set(found)) < len(found):
            raise InvalidSetting(
                f"--denoiser {self.denoiser!r} names nothing, or one thing twice",
                why="it is one checkpoint or name, or several different ones separated by commas",
                remedy="write --denoiser den.pt, --denoiser heat, or --denoiser heat,tv,den.pt --pilot 0.1",
            )
        if len(found) > 1 and self.arguments is not None:
            raise InvalidSetting(
                "--denoiser-args cannot be shared by several denoisers",
                why="each has numbers of its own, which are matched to the noise",
                remedy="leave it out, or match each with certify train and name the checkpoints",
            )
        return found

    def single(self) -> str | None:
        """The one denoiser asked for, or None. Raises InvalidSetting for several."""
        from certify.errors import InvalidSetting

        names = self.names()
        if len(names) > 1:
            raise InvalidSetting(
                f"{len(names)} denoisers were given where one is used",
                why="choosing among them costs inputs, which only `certify radius` accounts for",
                remedy="name one, or use `certify radius --denoiser "
                + ",".join(names)
                + " --pilot 0.1`, whose pilot inputs are not certified",
            )
        return names[0] if names else None


def with_denoiser(
    network: Any, dataset: Dataset, sigma: float | None, asked: Asked
) -> tuple[Any, float | None]:
    """``network`` behind the one denoiser asked for (or as it is), and the sigma to smooth with."""
    name = asked.single()
    return (network, sigma) if name is None else behind(network, name, dataset, sigma, asked)


def behind(
    network: Any, name: str, dataset: Dataset, sigma: float | None, asked: Asked
) -> tuple[Any, float | None]:
    """``network`` behind the denoiser ``name``; sigma as given, else the one level it was trained for."""
    import certify
    from certify.denoising import levels

    arguments = common.json_object(asked.arguments, "--denoiser-args")
    told, place = _number(arguments.pop("sigma", None)), _device_of(network)
    if is_file(name):
        denoiser = open_denoiser(Path(name), place, arguments)
    else:
        denoiser = _by_name(name, arguments, dataset, sigma, asked.root).to(place)
    _refuse_other_data(denoiser, dataset, name)
    known = levels(denoiser) or _matched_for(denoiser)
    if sigma is None and len(known) == 1:
        sigma = known[0]
    found = certify.denoised(network, denoiser, sigma=told or sigma)
    found.certify_source = name if is_file(name) else None
    return found, sigma


def repeat(asked: Asked) -> str:
    """The options again, for a command to be copied."""
    import shlex

    found = "" if asked.denoiser is None else f" --denoiser {shlex.quote(asked.denoiser)}"
    return found + ("" if asked.arguments is None else f" --denoiser-args {shlex.quote(asked.arguments)}")


def is_file(name: str) -> bool:
    """Whether a denoiser is a checkpoint rather than a registered name."""
    return Path(name).suffix in (".pt", ".safetensors", ".pth", ".onnx") or Path(name).exists()


def open_denoiser(path: Path, place: Any, arguments: dict[str, Any] | None = None) -> Any:
    """The denoiser in a checkpoint. Raises InvalidSetting for another kind of model."""
    import certify
    from certify.errors import InvalidSetting

    if arguments:
        raise InvalidSetting(
            f"--denoiser-args {sorted(arguments)[0]!r} has no meaning for {path}",
            why="a checkpoint holds its own numbers; only the level it is told (sigma) is free",
            remedy="leave it out",
        )
    denoiser = certify.load(path, device=place)
    header = getattr(denoiser, "certify_header", None)
    if header is None or header.task != "denoising":
        task = "an ONNX or program file" if header is None else f"for {header.task}"
        raise InvalidSetting(
            f"{path} is no denoiser",
            why=f"it is {task}",
            remedy="name the classifier with --model, and a denoiser that `certify train --denoiser` wrote",
        )
    return denoiser


def _by_name(
    name: str, arguments: dict[str, Any], dataset: Dataset, sigma: float | None, root: Path | None
) -> Any:
    """A denoiser without weights to learn, with its open numbers matched on training images."""
    from certify import registry
    from certify.errors import InvalidSetting
    from pdenets.denoisers.building import described, is_learned
    from pdenets.denoisers.matching import match_denoiser, open_values

    factory = registry.denoiser(name)
    if is_learned(factory):
        raise InvalidSetting(
            f"the denoiser {name!r} has to be trained first",
            why="its weights would be random",
            remedy=f"certify train --denoiser {name} --data {dataset.name} --sigma 0.25 --out den.pt, then "
            "--denoiser den.pt",
        )
    if not open_values(name, arguments):
        return described(name, arguments, dataset)[0]
    if sigma is None:
        raise InvalidSetting(
            "the noise level is missing",
            why=f"the numbers of {name} are matched to it",
            remedy="add --sigma 0.25",
        )
    images = _training_images(name, dataset, root)
    return match_denoiser(name, images, sigma=sigma, arguments=arguments).denoiser


def _training_images(name: str, dataset: Dataset, root: Path | None) -> Dataset:
    """The training split beside the inputs at hand, which must not be these inputs themselves."""
    import torch

    from certify import data
    from certify.errors import CertifyError, InvalidSetting

    try:
        found = data.load(dataset.name, split="train", root=root)
        same = dataset.split == "train" or bool(torch.equal(found.x[: len(dataset)], dataset.x))
    except CertifyError:
        found, same = None, True
    if found is None or same:
        raise InvalidSetting(
            f"the numbers of {name} cannot be matched here",
            why=f"{dataset.name!r} has no training split beside the inputs at hand, and what is chosen on "
            "inputs that are certified makes their accuracy an optimistic estimate",
            remedy=f"match it on other data: certify train --denoiser {name} --data TRAIN --sigma 0.25 --out "
            f"{name}.pt; or give its numbers with --denoiser-args",
        )
    return found


def again(network: Any, settings: dict[str, Any], moved: Path | None = None) -> Any:
    """``network`` as a run certified it: behind the denoiser its settings name, or as it is.

    ``moved``: where the denoiser's checkpoint lies now. A checkpoint speaks for itself; a denoiser without
    one is built from its registered name and its numbers, and nothing else is believed.
    """
    import certify
    from certify import registry
    from certify.errors import EvidenceFails, InvalidSetting

    model = settings.get("model") or {}
    row = model.get("denoiser")
    if row is None:
        if moved is not None:
            raise InvalidSetting(
                f"there is no use for the denoiser {moved}",
                why="the run certified its model without one",
                remedy="leave --denoiser out",
            )
        return network
    path = moved or (Path(model["denoiser_path"]) if "denoiser_path" in model else None)
    if path is not None:
        denoiser = open_denoiser(path, _device_of(network))
    elif row.get("architecture") in registry.names(registry.DENOISERS):
        from pdenets.denoisers.building import build_denoiser

        shape = tuple(settings["input_shape"])
        denoiser = build_denoiser(row["architecture"], row.get("arguments") or {}, shape).eval()
        denoiser = denoiser.to(_device_of(network))
    else:
        raise EvidenceFails(
            "the run does not say where its denoiser is",
            why="it was written from Python, without a checkpoint file",
            remedy="open it from Python, with the same denoiser",
        )
    return certify.denoised(network, denoiser, sigma=row.get("sigma"))


def _device_of(network: Any) -> Any:
    """Where the classifier's weights are; the CPU for what has none."""
    from itertools import chain

    import torch
    from torch import nn

    tensors = chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _refuse_other_data(denoiser: Any, dataset: Dataset, name: str) -> None:
    from certify.errors import InvalidInput

    header = getattr(denoiser, "certify_header", None)
    if header is None:
        return
    if tuple(header.input_shape) != tuple(dataset.input_shape):
        raise InvalidInput(
            f"the denoiser {name} does not fit the data",
            why=f"it takes inputs of shape {tuple(header.input_shape)}, {dataset.name!r} has "
            f"{dataset.input_shape}",
            remedy="use a denoiser for inputs of this shape",
        )
    if (header.low, header.high) != (dataset.low, dataset.high):
        raise InvalidInput(
            f"the denoiser {name} does not fit the data",
            why=f"it was made for inputs in [{header.low:g}, {header.high:g}], {dataset.name!r} is declared "
            f"in [{dataset.low:g}, {dataset.high:g}]: its sigma is in other units",
            remedy="train one on this data, or bring the data to the range it knows",
        )


def _matched_for(denoiser: Any) -> tuple[float, ...]:
    """The level that a classical denoiser was matched to, where it says so."""
    header = getattr(denoiser, "certify_header", None)
    sigma = None if header is None else header.training.get("sigma")
    return () if sigma is None else (float(sigma),)


def _number(value: Any) -> float | None:
    from certify.errors import InvalidSetting

    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidSetting(
        f'"sigma": {value!r} in --denoiser-args is no number',
        why="it is the noise level that the denoiser is told",
        remedy="write --denoiser-args '{\"sigma\": 0.25}'",
    )
