"""From a run directory back to the model, the data and the smoothed classifier it speaks about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset
    from certify.store import StoredRun


@dataclass(frozen=True)
class Reopened:
    """A stored run beside the very model (same weights, by digest) and the inputs it certified."""

    stored: StoredRun
    smoothed: Smoothed
    dataset: Dataset


def reopen(
    run: Path,
    *,
    model: Path | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    limit: int | None = None,
    arch: str | None = None,
    trust: bool = False,
    pixels: bool = False,
) -> Reopened:
    """Open a run again; ``arch`` confirms a network of the user's own (module:factory).

    Raises EvidenceFails when the checkpoint is not the certified one, InvalidSetting for a
    segmentation run where the caller knows no ``pixels``.
    """
    import certify
    from certify.checkpoints import model_digest
    from certify.errors import EvidenceFails

    stored = common.run_directory(run)
    if not pixels:
        refuse_pixels(stored)
    described = stored.settings.get("model")
    if not described:
        raise EvidenceFails(
            f"{run} does not say which model it certified",
            why="it was imported from a log, or written without the command's settings",
            remedy="certify the model again with `certify radius --model`",
        )
    if model is None and "path_name" not in described:
        raise EvidenceFails(
            f"{run} does not say where its checkpoint is",
            why="it was written from Python, without a checkpoint file",
            remedy="give the checkpoint with --model",
        )
    path = model or Path(described["path_name"])
    dataset = _certified_part(stored, data_root, limit)
    network = certify.load(
        path,
        device="cpu" if path.suffix == ".onnx" and device == "auto" else common.pick_device(device),
        data=dataset,
        trust_model_file=trust,
        **architecture(path, stored.settings, arch),
    )
    digest = model_digest(network)
    if digest != described["digest"]:
        raise EvidenceFails(
            f"{path} is not the model that {run} certified",
            why=f"its weights hash to {digest[:16]}..., the run's to {described['digest'][:16]}...",
            remedy="give the certified checkpoint with --model, or certify this one into another directory",
        )
    return Reopened(stored, smoothed_like(stored, network, dataset), dataset)


def smoothed_like(stored: StoredRun, network: Any, dataset: Dataset) -> Smoothed:
    """The smoothed classifier (or segmentation) with exactly the run's settings."""
    import certify
    from certify.dense.run import is_segmentation

    settings = stored.settings
    kind: Any = certify.SmoothedSegmentation if is_segmentation(settings) else certify.Smoothed
    if settings["noise"] == "internal":
        from certify.inside.internal_noise import SmoothedInside

        bounds = None if settings["bounds"] is None else tuple(settings["bounds"])
        return SmoothedInside(network, num_classes=settings["num_classes"], bounds=bounds)
    return kind(
        network,
        settings["noise_settings"].get("sigma", settings["sigma"]),
        num_classes=settings["num_classes"],
        noise=settings["noise"],
        norm=settings["norm"],
        grid=settings["grid"],
        bounds=None if settings["bounds"] is None else tuple(settings["bounds"]),
        dtype=settings["dtype"],
        compiled=settings["compiled"],
    )


def refuse_pixels(stored: StoredRun) -> None:
    """Raise InvalidSetting for a segmentation run: this needs one class per input."""
    from certify.dense.run import refuse_segmentation

    refuse_segmentation(
        stored.settings, "this is not available",
        "use certify verify, report, export and merge; its maps are certify.SegmentationRun.open(RUN)",
    )  # fmt: skip


def architecture(path: Path, settings: dict[str, Any], arch: str | None = None) -> dict[str, Any]:
    """Which network the weights in ``path`` belong to, as far as the file does not say so itself.

    What a run directory says may have been written by anyone, and importing a module runs its code: a
    ``module:factory`` is imported only if the user repeats it as ``arch``.
    """
    from certify import registry
    from certify.checkpoints import read
    from certify.errors import CertifyError, UntrustedFile

    described = settings.get("model") or {}
    if path.suffix == ".onnx":
        return {}
    try:
        read(path)
    except CertifyError:
        named = arch or described.get("architecture")
        if not named:
            return {}
        if ":" in named and arch is None:
            raise UntrustedFile(
                f"the run names its network as {named!r}",
                why="importing that module runs its code, on nothing but the run's word",
                remedy=f"if you know this module, confirm it: --arch {named}",
            ) from None
        shapes = {key: settings[key] for key in ("num_classes", "input_shape") if key in settings}
        taken = registry.accepted(registry.architecture(named), shapes)
        return {"arch": named, "arguments": taken | (described.get("arguments") or {})}
    return {} if arch is None else {"arch": arch}


def _certified_part(stored: StoredRun, root: Path | None, limit: int | None) -> Dataset:
    """The data set's rows that the run has records of, in record order."""
    from dataclasses import replace

    import torch

    from certify import data
    from certify.errors import DataNotFound
    from certify.inputs import refuse_other_inputs

    described = stored.settings["data"]
    whole = data.load(described.get("path") or described["name"], split=described["split"], root=root)
    wanted = [r.index for r in stored.run][:limit]
    place = {int(id): i for i, id in enumerate(whole.ids)}
    if missing := [i for i in wanted if i not in place]:
        raise DataNotFound(
            f"input {missing[0]} of the run is not in {described['name']} ({described['split']})",
            why="the data set on this machine is not the one that was certified",
            remedy="point --data-root at the folder the run was made with",
        )
    rows = torch.tensor([place[i] for i in wanted], dtype=torch.int64)
    refuse_other_inputs(stored.run, {i: whole.x[place[i]] for i in wanted}, stored.path)
    return replace(whole, x=whole.x[rows], y=whole.y[rows], ids=whole.ids[rows])
