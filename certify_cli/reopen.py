"""From a run directory back to the model, the data and the smoothed classifier it speaks about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common, denoisers, models
from certify_cli.at_hand import refuse_other_model

#: What a run must say for its smoothed classifier to be made again.
_NEEDED = ("noise", "noise_settings", "norm", "num_classes", "input_shape", "dim", "dtype", "compiled")

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset
    from certify.inputs import Rows
    from certify.store import StoredRun


@dataclass(frozen=True)
class Reopened:
    """A stored run beside the very model (by all that decides its answers) and the inputs it certified."""

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
    data: str | None = None,
    denoiser: Path | None = None,
) -> Reopened:
    """Open a run again; ``arch`` confirms a network of the user's own (module:factory).

    ``model``, ``denoiser`` and ``data`` stand for what the run names, where that lies elsewhere now.
    Raises EvidenceFails when the model or the data are not the certified ones, UnreadableFile or
    DataNotFound where they are not there, InvalidSetting for a segmentation run where the caller knows no
    ``pixels``.
    """
    from certify.errors import EvidenceFails, UnreadableFile

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
        raise UnreadableFile(
            f"{run} does not say where its checkpoint is",
            why="it was written from Python, without a checkpoint file",
            remedy="give the checkpoint with --model",
        )
    path = model or Path(described["path_name"])
    dataset = certified_part(stored, data, data_root, limit)
    network = network_of(stored, path, device, arch=arch, trust=trust, named=model is not None)
    network = denoisers.again(network, stored.settings, denoiser)
    smoothed = smoothed_like(stored, network)
    refuse_other_model(stored, smoothed, path)
    return Reopened(stored, smoothed, dataset)


def network_of(
    stored: StoredRun, path: Path, device: str, *, arch: str | None, trust: bool, named: bool = True
) -> Any:
    """The network in ``path``, built as the run says where the file does not. Raises as ``certify.load``.

    It is taken from the same entry of the file, and put behind the same normalisation. ``named``: the user
    gave the path; otherwise it is the run's, which may be that of another machine.
    """
    from certify.errors import InvalidSetting, UnreadableFile

    where = "cpu" if path.suffix == ".onnx" and device == "auto" else common.pick_device(device)
    told = stored.settings.get("model")
    described = told if isinstance(told, dict) else {}
    normalise, loaded = described.get("normalise"), described.get("loaded")
    try:
        found = architecture(path, stored.settings, arch)
        options: dict[str, Any] = {"device": where, "data": None, "trust": trust, "quiet": True, **found}
        options["normalise"] = normalise if isinstance(normalise, dict) else None
        entry = loaded.get("choice") if isinstance(loaded, dict) and "arguments" in found else None
        try:
            return models.load(path, entry=entry if isinstance(entry, str) and entry else None, **options)
        except InvalidSetting:
            if not entry:
                raise
            return models.load(path, **options)  # another file with, it may be, the same weights
    except UnreadableFile as error:
        if named:
            raise
        raise UnreadableFile(
            error.what,
            why=f"{error.why}; {stored.path} was made where this was its checkpoint",
            remedy="give the checkpoint with --model",
        ) from error


def smoothed_like(stored: StoredRun, network: Any) -> Smoothed:
    """The smoothed classifier (or segmentation) with exactly the run's settings."""
    import certify
    from certify.dense.run import is_segmentation
    from certify.store.typed import need

    settings = stored.settings
    need(settings, _NEEDED, stored.path)
    kind: Any = certify.SmoothedSegmentation if is_segmentation(settings) else certify.Smoothed
    bounds = None if settings.get("bounds") is None else tuple(settings["bounds"])
    if settings["noise"] == "internal":
        from certify.inside.internal_noise import SmoothedInside

        return SmoothedInside(network, num_classes=settings["num_classes"], bounds=bounds)
    return kind(
        network,
        settings["noise_settings"].get("sigma", settings["sigma"]),
        num_classes=settings["num_classes"],
        noise=settings["noise"],
        norm=settings["norm"],
        grid=settings.get("grid"),
        bounds=bounds,
        dtype=settings["dtype"],
        compiled=settings["compiled"],
    )


def refuse_pixels(stored: StoredRun) -> None:
    """Raise InvalidSetting for a run of pixels or of a population: this needs a certificate per input."""
    from certify.dense.run import refuse_segmentation
    from certify.population.statements import refuse_population

    refuse_segmentation(
        stored.settings, "this is not available",
        "use certify verify, report, export and merge; its maps are certify.SegmentationRun.open(RUN)",
    )  # fmt: skip
    refuse_population(stored.settings, "this is not available")


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


def certified_part(
    stored: StoredRun, name: str | None, root: Path | None, limit: int | None = None
) -> Dataset:
    """The data set's rows that the run has records of, in record order. ``name``: where they lie now.

    Raises EvidenceFails where an input or a label is not the one of its record, DataNotFound where one is
    missing or the run does not name its data.
    """
    from certify.inputs import Rows

    records = stored.run[:limit]
    found = named_rows(stored, [r.index for r in records], name, root)
    Rows.of(found.ids, found.x, found.labels).refuse_other(records, stored.path, resuming=False)
    return found


def named_rows(stored: StoredRun, ids: Sequence[int], name: str | None, root: Path | None) -> Dataset:
    """The rows ``ids`` of the data set that the run names (or ``name``), in that order, as they are now."""
    from dataclasses import replace

    import torch

    from certify import data
    from certify.errors import DataNotFound, EvidenceFails, UnreadableFile
    from certify.population.statements import is_population

    told = stored.settings.get("data")
    described = told if isinstance(told, dict) else {}
    chosen = name or described.get("path") or described.get("name")
    if not chosen:
        raise DataNotFound(
            f"{stored.path} does not say on which data it was made",
            why="it was imported, or written from Python without a data set's name",
            remedy="name the data set or file with --data",
        )
    split, last = described.get("split") or "test", max(ids, default=0) + 1
    counted = is_population(stored.settings)
    try:
        whole = data.load(chosen, split=split, root=root, limit=None if counted else last)
    except UnreadableFile as error:
        raise DataNotFound(error.what, why=error.why, remedy="name the data with --data") from error
    if counted and len(whole) != stored.settings["mode_options"]["of"]:
        raise EvidenceFails(
            f"{stored.path} drew its inputs from {stored.settings['mode_options']['of']} inputs",
            why=f"{chosen} ({split}) has {len(whole)}: the seed would have drawn others",
            remedy="name the data of the run with --data",
        )
    place = {int(id): i for i, id in enumerate(whole.ids)}
    if missing := [i for i in ids if i not in place]:
        raise DataNotFound(
            f"input {missing[0]} of the run is not in {chosen} ({split})",
            why="the data set on this machine is not the one that was certified",
            remedy="name the data of the run with --data, or point --data-root at its folder",
        )
    shape = stored.settings.get("input_shape")
    if shape is not None and list(whole.x.shape[1:]) != list(shape):
        raise EvidenceFails(
            f"{chosen} is not the data that {stored.path} certified",
            why=f"its inputs have the shape {tuple(whole.x.shape[1:])}, those of the run {tuple(shape)}",
            remedy="name the data of the run with --data",
        )
    rows = torch.tensor([place[i] for i in ids], dtype=torch.int64)
    return replace(whole, x=whole.x[rows], y=whole.y[rows], ids=whole.ids[rows])


def rows_of(run: Path, name: str | None, root: Path | None) -> Callable[[Iterable[int]], Rows]:
    """Opens the data set that the run names (or ``name``), as hashes of inputs and labels by id."""

    def rows(ids: Iterable[int]) -> Rows:
        from certify.inputs import Rows

        found = named_rows(common.run_directory(run), list(ids), name, root)
        return Rows.of(found.ids, found.x, found.labels)

    return rows
