"""``certify train --denoiser``: learn a denoiser, or match the numbers of a classical one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from certify.data import Dataset
    from pdenets.denoisers.training import DenoiserResult


@dataclass(frozen=True)
class Wanted:
    """What the options ask for; None where an option was left out."""

    denoiser: str
    out: Path
    data: str
    sigmas: tuple[float, ...]
    arguments: dict[str, Any]
    classifier: Path | None
    loss: str | None
    start: Path | None
    query_access: bool
    surrogate: str | None
    arch: str | None
    arch_args: str | None
    #: Epochs, learning rate, batch size, schedule, augmentation: passed on where they were given.
    training: dict[str, Any]
    limit: int | None
    root: Path | None
    download: bool
    seed: int
    device: str


def run(wanted: Wanted, *, as_json: bool) -> None:
    """Train or match, write the checkpoint, and print what came out."""
    from certify import data as datasets
    from certify import registry
    from pdenets.denoisers.building import is_learned

    factory = registry.denoiser(wanted.denoiser)
    part: dict[str, Any] = {"root": wanted.root, "download": wanted.download, "limit": wanted.limit}
    dataset = datasets.load(wanted.data, split="train", seed=wanted.seed, **part)
    if is_learned(factory):
        _learn(wanted, dataset, as_json=as_json)
    else:
        _match(wanted, dataset, as_json=as_json)


def sigma_list(sigma: float, sigmas: str | None) -> tuple[float, ...]:
    """The noise levels of one network: those of --sigmas, else the one of --sigma."""
    from certify.errors import InvalidSetting

    if sigmas is None:
        return (sigma,)
    try:
        return tuple(float(text) for text in sigmas.split(","))
    except ValueError:
        raise InvalidSetting(
            f"--sigmas {sigmas!r} is no list of noise levels",
            why="it holds standard deviations, separated by commas",
            remedy="write --sigmas 0.12,0.25,0.5, or --sigma 0.25 for one level",
        ) from None


def data_of(data: str, classifier: Path | None, *, typed: bool) -> str:
    """The data set: as written, else the one that the classifier was trained on."""
    from certify.checkpoints import read
    from certify.errors import CertifyError

    if typed or classifier is None or classifier.suffix == ".onnx":
        return data
    try:
        return read(classifier)[0].dataset.get("name") or data
    except CertifyError:
        return data


def _learn(wanted: Wanted, dataset: Dataset, *, as_json: bool) -> None:
    from certify import checkpoints
    from certify.errors import InvalidSetting
    from pdenets.denoisers.surrogate import surrogate_for
    from pdenets.denoisers.training import train_denoiser
    from pdenets.distributed import leads
    from pdenets.progress import progress_bar

    if wanted.classifier is None and (wanted.query_access or wanted.surrogate):
        raise InvalidSetting(
            "--query-access and --surrogate have no meaning without a classifier",
            why="they say how the classifier that the denoiser serves is asked",
            remedy="name it: --for clean.pt, or leave them out",
        )
    if wanted.surrogate and not wanted.query_access:
        raise InvalidSetting(
            "--surrogate has no meaning without --query-access",
            why="where the classifier gives gradients, nothing has to stand in for it",
            remedy="add --query-access, or leave it out",
        )
    device = common.pick_device(wanted.device)
    classifier, judge, record = None, None, {}
    stand_in = wanted.out.with_name(wanted.out.name + ".surrogate.pt")
    start = None if wanted.start is None else checkpoints.read(wanted.start)[1]
    if wanted.classifier is not None:
        classifier = judge = _classifier(wanted, dataset, device)
        record = {"for": checkpoints.model_digest(classifier), "access": "full"}
    if classifier is not None and wanted.query_access and wanted.loss != "mse":
        with progress_bar(title="teaching a surrogate") as report:
            taught = surrogate_for(
                classifier, dataset, out=stand_in, arch=wanted.surrogate, seed=wanted.seed, device=device,
                progress=report,
            )  # fmt: skip
        classifier = taught.network
        record |= {
            "access": "labels",
            "queries": taught.queries,
            "surrogate": {"architecture": taught.architecture, "agreement": taught.agreement},
        }
    with progress_bar(title=f"training {wanted.denoiser}") as report:
        result = train_denoiser(
            dataset, denoiser=wanted.denoiser, out=wanted.out, sigmas=wanted.sigmas,
            arguments=wanted.arguments, classifier=classifier, judge=judge, loss=wanted.loss, start=start,
            record=record, seed=wanted.seed, device=device, progress=report, **wanted.training,
        )  # fmt: skip
    if leads():
        stand_in.unlink(missing_ok=True)
        _print(result, wanted, as_json=as_json)


def _classifier(wanted: Wanted, dataset: Dataset, device: str) -> Any:
    """The classifier to serve, whose inputs must be those of the data."""
    import certify

    path = wanted.classifier
    assert path is not None
    found = certify.load(
        path,
        device="cpu" if path.suffix == ".onnx" else device,
        arch=wanted.arch,
        arguments=common.json_object(wanted.arch_args, "--arch-args"),
        data=dataset if wanted.arch is not None else None,
    )
    common.check_fit(dataset, getattr(found, "certify_header", None), wanted.data)
    return found


def _match(wanted: Wanted, dataset: Dataset, *, as_json: bool) -> None:
    from certify import checkpoints
    from certify.errors import InvalidSetting
    from pdenets.denoisers.matching import match_denoiser

    given = {"--for": wanted.classifier, "--loss": wanted.loss, "--start": wanted.start,
             "--query-access": wanted.query_access or None, "--surrogate": wanted.surrogate,
             **{f"--{name.replace('_', '-')}": value for name, value in wanted.training.items()}}  # fmt: skip
    stray = [option for option, value in given.items() if value is not None]
    if stray or len(wanted.sigmas) != 1:
        raise InvalidSetting(
            f"{stray[0] if stray else '--sigmas'} has no meaning for {wanted.denoiser}",
            why="it has no weights: its few numbers are matched to one noise level, by squared error",
            remedy="leave it out, or train dncnn or unet",
        )
    (sigma,) = wanted.sigmas
    found = match_denoiser(
        wanted.denoiser, dataset, sigma=sigma, arguments=wanted.arguments, seed=wanted.seed
    )
    checkpoints.save(wanted.out, found.denoiser, found.header)
    if as_json:
        tried = [list(row) for row in found.tried]
        common.print_json({"path": str(wanted.out), "denoiser": wanted.denoiser, "arguments": found.arguments,
                           "sigma": sigma, "psnr": found.psnr, "tried": tried})  # fmt: skip
        return
    numbers = ", ".join(f"{name} {value:g}" for name, value in found.arguments.items()) or "no numbers"
    print(f"{wanted.denoiser}: {numbers}; {found.psnr:.2f} dB at sigma {sigma:g} on held-out images, "
          f"the best of {len(found.tried)}; wrote {wanted.out}")  # fmt: skip
    _say_next(wanted)


def _print(result: DenoiserResult, wanted: Wanted, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        common.print_json(asdict(result))
        return
    from rich.table import Table

    console = common.tables()
    table = Table(title=f"{result.denoiser}, {result.parameters:,} parameters", title_justify="left")
    for heading in ("held-out inputs", "epoch", "sigma", "restored, dB", "answers kept", "on clean inputs"):
        table.add_column(heading, justify="left" if heading == "held-out inputs" else "right")
    stages = {metrics.stage: metrics for metrics in result.history}
    for stage, metrics in stages.items():
        for sigma, psnr in metrics.psnr.items():
            kept = "" if metrics.agreement is None else f"{metrics.agreement[sigma]:.4f}"
            clean = "" if metrics.clean_agreement is None else f"{metrics.clean_agreement:.4f}"
            table.add_row(f"after {stage}", str(metrics.epoch), sigma, f"{psnr:.2f}", kept, clean)
    console.print(table)
    console.print(
        f"{result.seconds:.0f} s, {result.skipped_steps} non-finite steps skipped; wrote {result.path}"
    )
    _say_next(wanted)


def _say_next(wanted: Wanted) -> None:
    model = wanted.classifier or "clean.pt"
    common.say_next(
        f"certify radius --model {model} --denoiser {wanted.out} --sigma {wanted.sigmas[-1]:g}"
        f"{common.own_network(wanted.arch)}"
    )
