"""``certify bounds``: complexities and generalization bounds for a model and its data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, models

if TYPE_CHECKING:
    from certify.data import Dataset

#: Inputs on which a residual gap is measured.
_GAP_INPUTS = 50

EPILOG = "Example: certify bounds runs/demo\n\nof a class alone: certify bounds --data mnist -W 2"


def register(app: typer.Typer) -> None:
    app.command("bounds", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(bounds))


def bounds(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run directory: its model; the result is stored.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Checkpoint, with a run if it moved.")
    ] = None,
    data: common.Data = None,
    data_root: common.DataRoot = None,
    arch: common.Arch = None,
    arch_args: common.ArchArgs = None,
    entry: models.Entry = None,
    mean: models.Mean = None,
    std: models.Std = None,
    weight_radius: Annotated[
        float, typer.Option("--weight-radius", "-W", help="Norm bound of the linear class.")
    ] = 1.0,
    points: Annotated[int, typer.Option("--points", min=2, help="Most training inputs used.")] = 1000,
    draws: Annotated[int, typer.Option("--draws", min=2, help="Draws of the Monte Carlo estimates.")] = 300,
    delta: Annotated[float, typer.Option("--delta", help="Probability that one bound is wrong.")] = 0.05,
    pac_bayes: Annotated[
        bool, typer.Option("--pac-bayes", help="Train a posterior on its own bound, too (minutes).")
    ] = False,
    seed: common.Seed = 0,
    as_json: common.AsJson = False,
) -> None:
    """Bound a model's risk by every theorem at hand, each beside the risk measured for the same predictor.

    With a run, --data names what the model was trained on; the held-out points are those of the run's data.
    With --data alone: the Rademacher complexity of linear classes and the bounds on it.
    """
    from certify.errors import InvalidSetting

    if run is not None:
        models.refuse_for_a_run(entry=entry, mean=mean, std=std)
    if run is not None or model is not None:
        taken = {"arch_args": arch_args, "entry": entry, "mean": mean, "std": std}
        document = _model_bounds(
            run, model, data, data_root, arch, taken, weight_radius=weight_radius, points=points,
            draws=draws, delta=delta, pac_bayes=pac_bayes, seed=seed,
        )  # fmt: skip
    elif data is not None:
        document = _class_bounds(data, data_root, weight_radius, points, draws, delta, seed)
    else:
        raise InvalidSetting(
            "there is nothing to bound",
            why="a bound is about a model or a class of functions on a sample",
            remedy="give a run directory, --model ckpt.pt, or --data NAME",
        )
    if as_json:
        common.print_json(document)
        return
    _print(document)
    if run is not None:
        common.say_next(f"certify compare {run}")


def _model_bounds(
    run: Path | None,
    model: Path | None,
    data: str | None,
    root: Path | None,
    arch: str | None,
    taken: dict[str, Any],
    *,
    weight_radius: float,
    points: int,
    draws: int,
    delta: float,
    pac_bayes: bool,
    seed: int,
) -> dict[str, Any]:
    import analysis
    from certify.store import open_run
    from certify_cli.points import samples
    from certify_cli.reopen import reopen

    opened = reopen(run, model=model, data_root=root, arch=arch) if run is not None else None
    if opened is not None:
        network: Any = opened.smoothed.model
    else:
        place: dict[str, Any] = {"data": data, "split": "train", "root": root, "limit": 1}
        network, _ = common.open_model(Path(model or ""), **place, device="cpu", arch=arch, **taken)
    if pac_bayes:
        _refuse_denoised(network)
    header = getattr(network, "certify_header", None)
    found = samples(header, data, None if opened is None else opened.dataset, root, points)
    train, test, certified = found.train, found.test, found.certified
    rows = analysis.all_bounds(
        network,
        train,
        test,
        delta=delta,
        run=None if opened is None or not certified else opened.stored.run,
        certified=certified or None,
        weight_radius=weight_radius,
        factory=_factory(header, train) if pac_bayes else None,
        fresh=_fresh(header, train),
        limit=points,
        draws=draws,
        seed=seed,
    )
    gap = None if test is None else analysis.deterministic_gap(network, train, test, delta)
    document = analysis.bounds_document(rows, gap)
    document |= {"data": train.name, "points": len(train), "weight_radius": weight_radius, "delta": delta}
    left_out = []
    if test is None:
        left_out.append(f"bounds from held-out points, since {found.why}")
    elif opened is not None and not certified:
        left_out.append("the risk at a radius, since the certified inputs occur among the training rows")
    if test is not None:
        document["held_out"] = test.to_json()
    if learned := analysis.hidden_state(network, _fresh(header, train)).learned:
        left_out.append(
            f"PAC-Bayes around the trained weights: {', '.join(learned[:3])} were learned, too, and are "
            "no weights; --pac-bayes trains a posterior without them"
        )
    if left_out:
        document["left_out"] = "; ".join(left_out)
    if run is not None and opened is not None:
        residual = _residual_gap(opened, network, seed)
        with open_run(run, opened.stored.settings, opened.stored.guarantee) as store:
            store.put_document("bounds", document)
            if residual is not None:
                store.put_document("residual_gap", residual)
        document |= {} if residual is None else {"residual_gap": residual}
    return document


def _residual_gap(opened: Any, network: Any, seed: int) -> dict[str, Any] | None:
    """Of a network with a diffusion phase: how far it is from the smoothed one, on data and attacks."""
    import torch

    import analysis

    settings = opened.stored.settings
    if not hasattr(network, "horizon") or settings["noise"] not in ("lattice", "gaussian"):
        return None
    found = opened.stored.arrays("adversarial")
    path = None
    if found is not None and len(found["x"]):
        x, moved = (torch.as_tensor(found[k][:_GAP_INPUTS]) for k in ("x", "x_adv"))
        path = torch.cat([x + share * (moved - x) for share in (0.5, 1.0)])
    return analysis.gap_document(
        network, opened.dataset.x[:_GAP_INPUTS], sigma=settings["sigma"], path=path, seed=seed
    )


def _fresh(header: Any, train: Dataset) -> Any:
    """An untrained network of the checkpoint's architecture; None where that is not known."""
    import torch

    from certify.errors import CertifyError

    with torch.random.fork_rng(devices=[]):
        try:
            return None if header is None else _factory(header, train)()
        except CertifyError:
            return None


def _refuse_denoised(network: Any) -> None:
    from certify.denoising import behind_denoiser
    from certify.errors import InvalidSetting

    if behind_denoiser(network) is not None:
        raise InvalidSetting(
            "--pac-bayes has no form for a classifier behind a denoiser",
            why="it trains fresh networks of one architecture, and the denoiser in front was fitted to data",
            remedy="leave it out, or bound the classifier alone: certify bounds --model CLASSIFIER",
        )


def _factory(header: Any, train: Dataset):
    """Fresh networks of the checkpoint's architecture."""
    from certify import registry
    from certify.errors import InvalidSetting

    if header is None:
        raise InvalidSetting(
            "--pac-bayes needs to know the architecture",
            why="it trains fresh networks, and this checkpoint has no header",
            remedy="use a checkpoint that `certify train` wrote",
        )
    build = registry.architecture(header.architecture)
    shapes = {"num_classes": train.num_classes, "input_shape": train.input_shape}
    return lambda: build(**registry.accepted(build, shapes) | header.arguments)


def _class_bounds(
    data: str, root: Path | None, weight_radius: float, points: int, draws: int, delta: float, seed: int
) -> dict[str, Any]:
    import analysis
    from analysis.streams import stream
    from certify import data as datasets

    sample = datasets.load(data, split="train", root=root, limit=points)
    rows = []
    for norm in (1, 2, math.inf):
        cls = analysis.Linear(norm=norm, radius=weight_radius)
        generator = stream(seed, f"class of norm {norm}")
        rows.append(
            analysis.empirical_rademacher(cls, sample.x, draws=draws, delta=delta, generator=generator)
        )
        rows += analysis.linear_bounds(cls, sample.x)
    return {
        "results": [r.to_json() for r in rows],
        "data": sample.name,
        "points": len(sample),
        "weight_radius": weight_radius,
        "delta": delta,
    }


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{document['data']}, N = {document['points']}, |w| <= {document['weight_radius']:g}"
    table = Table(
        "of", "estimate or bound", "value", "measured", "validity", title=title, title_justify="left"
    )
    for r in document["results"]:
        measured = r["terms"].get("measured_risk")
        if r["side"] == "estimate":
            beside = f"{r['low']:.4g} to {r['high']:.4g}"
        else:
            beside = "" if measured is None else f"{measured:.4g}"
        table.add_row(
            r["predictor"].removeprefix("class: "), r["name"], f"{r['value']:.4g}", beside, r["validity"]
        )
    common.tables().print(table)
    if says := document.get("held_out", {}).get("says"):
        print(f"test points: {says}")
    if "left_out" in document:
        common.say(f"left out: {document['left_out']}")
    if gap := document.get("residual_gap"):
        along = gap.get("attack_path", {}).get("largest")
        print(
            f"residual gap |u(x, T) - E u(x + sigma Z, T-1)|: median {gap['median']:.3g}, largest "
            f"{gap['largest']:.3g} (+- {gap['half_width']:.2g}) on {gap['inputs']} inputs"
            + ("" if along is None else f", {along:.3g} along attack paths")
        )
