"""``certify attack``: try to break what was certified, or a model itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import attack_tool, common, completion, denoisers, models, pixel_attack
from certify_cli.attack_summary import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attacks import AttackOutcome, AttackRun

EPILOG = (
    "Example: certify attack runs/demo\n\n"
    "the base model alone: certify attack --model ckpt.pt --norm inf --eps 0.1 --preset standard"
)


def register(app: typer.Typer) -> None:
    app.command("attack", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(attack))


def attack(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run directory: its smoothed classifier is attacked.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", help="Checkpoint: its base model is attacked. With a run, if it moved."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="quick, standard, thorough, minimal, all-targets or black-box; smoothed for a run "
            "(its default). Default for a base model: standard, without --eps minimal.",
            autocompletion=completion.one_of(*completion.PRESETS),
        ),
    ] = None,
    norm: Annotated[str, typer.Option("--norm", help="1, 2 or inf.")] = "2",
    eps: Annotated[
        float | None, typer.Option("--eps", help="Size of the ball. Default: search the distance.")
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option("--grid", help="With --model: what is found lies on multiples of this step (1/255)."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="With --model: .npy file of 0 and 1, which coordinates may move."),
    ] = None,
    target: Annotated[
        int | None,
        typer.Option("--target", help="With --model: the class that inputs must become. Default: any other."),
    ] = None,
    with_: attack_tool.With = None,
    with_args: attack_tool.WithArgs = None,
    base: Annotated[
        bool, typer.Option("--base", help="With a run: attack the base model, not the smoothed.")
    ] = False,
    denoiser: denoisers.Denoiser = None,
    denoiser_args: denoisers.DenoiserArgs = None,
    data: common.Data = None,
    label: common.Label = None,
    split: common.Split = "test",
    limit: common.Limit = None,
    skip: common.Skip = 0,
    data_root: common.DataRoot = None,
    arch: common.Arch = None,
    arch_args: common.ArchArgs = None,
    trust: common.Trust = False,
    entry: models.Entry = None,
    mean: models.Mean = None,
    std: models.Std = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="With --model: .npz file for what is found (segmentation: maps, images)."),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Search for inputs on which the class changes; every hit is confirmed before it counts.

    On a segmentation every pixel is judged by itself.

    With a run directory the outcomes are stored in it, and one inside a certified ball is a
    contradiction (exit 1).
    """
    from attacks import Threat, save
    from attacks.presets import preset_named
    from attacks.saved import check_ending
    from certify.errors import InvalidSetting

    if run is None and model is None:
        raise InvalidSetting(
            "it is not clear what to attack",
            why="neither a run directory nor --model was given",
            remedy="certify attack runs/NAME, or certify attack --model ckpt.pt --norm inf --eps 0.1",
        )
    front = denoisers.Asked(denoiser, denoiser_args, data_root)
    if run is not None:
        models.refuse_for_a_run(entry=entry, mean=mean, std=std)
        _refuse_front(front)
    if run is not None:
        _refuse_restrictions(grid, mask, "with a run")
        attack_tool.refuse(with_, with_args, "with a run", target=target)
    if run is not None and _certified_pixels(run):
        _refuse_out(out)
        if pixel_attack.attack_run(
            run, model=model, preset=preset, norm=norm, eps=eps, base=base, limit=limit, data_root=data_root,
            seed=seed, device=device, as_json=as_json, arch=arch, trust=trust, data=data,
        ):  # fmt: skip
            raise typer.Exit(1)
        return
    if run is not None:
        _refuse_out(out)
        outcomes, hits = _attack_run(
            run, model, preset, norm, eps, base, limit, data_root, seed, device, arch=arch, trust=trust,
            data=data,
        )  # fmt: skip
        show(outcomes, as_json=as_json, hits=hits)
        if not as_json:
            common.say_next(f"certify {'verify' if hits else 'bounds'} {run}{common.own_network(arch)}")
        if hits:
            raise typer.Exit(1)
        return
    assert model is not None
    network, dataset = common.open_model(
        model, data=data, split=split, root=data_root, limit=limit, skip=skip,
        device=device, arch=arch, arch_args=arch_args, trust=trust, pixels=True,
        entry=entry, mean=mean, std=std, label=label,
    )  # fmt: skip
    network, _ = denoisers.with_denoiser(network, dataset, None, front)
    if dataset.task == "segmentation":
        _refuse_restrictions(grid, mask, "for a segmentation model")
        attack_tool.refuse(with_, with_args, "for a segmentation model", target=target)
        pixel_attack.attack_network(
            network, dataset, norm=norm, eps=eps, preset=preset, seed=seed, out=out, as_json=as_json
        )
        return
    threat = Threat(norm, eps, dataset.bounds, mask=_mask(mask), grid=grid)
    chosen = preset_named(preset or ("standard" if eps is not None else "minimal"))
    if out is not None:
        check_ending(out)
    tool = attack_tool.built(with_, with_args, network, threat, preset=preset)
    found = _run(network, dataset, threat, chosen, seed, with_=tool, target=target)
    if out is not None:
        save(found, out)
    show(found, as_json=as_json, hits=[])
    if not as_json:
        again = f"{common.own_network(arch)}{denoisers.repeat(front)}"
        common.say_next(f"certify radius --model {model}{again}")


def _certified_pixels(run: Path) -> bool:
    from certify.dense.run import is_segmentation

    return is_segmentation(common.run_directory(run).settings)


def _refuse_front(front: denoisers.Asked) -> None:
    from certify.errors import InvalidSetting

    if front.denoiser is not None or front.arguments is not None:
        raise InvalidSetting(
            "--denoiser has no meaning with a run",
            why="what is attacked is what the run certified, with the denoiser it had or without one",
            remedy="leave it out, or attack a model: --model clean.pt --denoiser den.pt",
        )


def _refuse_restrictions(grid: float | None, mask: Path | None, where: str) -> None:
    from certify.errors import InvalidSetting

    for option, value in (("--grid", grid), ("--mask", mask)):
        if value is not None:
            raise InvalidSetting(
                f"{option} has no meaning {where}",
                why="it restricts a search on the inputs of one base classifier",
                remedy="leave it out, or attack that model: certify attack --model ckpt.pt",
            )


def _mask(path: Path | None) -> Any:
    if path is None:
        return None
    from certify.files.npz import read_npy

    return read_npy(path)


def _refuse_out(out: Path | None) -> None:
    from certify.errors import InvalidSetting

    if out is not None:
        raise InvalidSetting(
            "--out has no meaning here",
            why="it keeps what an attack on a checkpoint found; a run directory keeps its own outcomes",
            remedy="leave it out, or use --json",
        )


def _attack_run(
    run: Path,
    model: Path | None,
    preset: str | None,
    norm: str,
    eps: float | None,
    base: bool,
    limit: int | None,
    data_root: Path | None,
    seed: int,
    device: str,
    **confirmed: Any,
) -> tuple[AttackRun, list[Any]]:
    from attacks import AttackOutcome, Threat
    from attacks.presets import preset_named
    from certify.errors import InvalidSetting
    from certify.interruption import telling
    from certify.store import open_run
    from certify_cli.reopen import reopen

    opened = reopen(run, model=model, data_root=data_root, device=device, limit=limit, **confirmed)
    stored, dataset = opened.stored, opened.dataset
    scores = stored.settings.get("scores", "votes")
    if not base and scores != "votes":
        raise InvalidSetting(
            "this run certified averaged scores, which an attack on votes cannot contradict",
            why=f"its scores are {scores}",
            remedy="attack its base model with --base, or certify with --scores votes",
        )
    threat = Threat(norm=norm, eps=eps, bounds=dataset.bounds)
    chosen = (
        preset_named(preset)
        if preset
        else ("smoothed" if not base else "standard" if eps is not None else "minimal")
    )
    target = opened.smoothed.model if base else opened.smoothed

    found: list[AttackOutcome] = []

    def keep(outcome: AttackOutcome) -> None:
        store.add_attack(outcome.to_json())
        found.append(outcome)

    with (
        telling(lambda: common.ATTACKS_KEPT.format(place=run)),
        open_run(run, stored.settings, stored.guarantee) as store,
    ):
        known = {
            row["index"]: AttackOutcome.from_json(row)
            for row in stored.attacks
            if (row["smoothed"], row["norm"], row["eps"], row["preset"], row["seed"])
            == (not base, threat.norm_name, eps, chosen, seed)
        }
        try:
            outcomes = _run(target, dataset, threat, chosen, seed, known=known, on_outcome=keep)
        finally:  # an interrupted attack keeps what it found with what it says of it
            if not base:
                _keep_adversarials(store, stored, found, dataset)
        hits = [] if base else stored.run.contradictions(outcomes)
        store.put_document(
            "contradictions",
            {"checked": len(outcomes), "hits": [o.to_json() for o in hits], "norm": threat.norm_name},
        )
    return outcomes, hits


def challenge(smoothed: Any, run: Any, dataset: Any, place: Path, *, seed: int) -> None:
    """Attack inside every certified ball of ``run`` and store it; EvidenceFails on a confirmed hit."""
    import sys

    from attacks import challenge as run_challenge
    from certify.errors import EvidenceFails
    from certify.interruption import telling
    from certify.store import open_run

    claims = [r for r in run if r.certified and r.radius > 0]
    if run.settings["scores"] != "votes":
        print("challenge: attacks confirm votes, this run certified averaged scores", file=sys.stderr)
        return
    if not claims:
        print("challenge: nothing was certified, so there is no ball to attack", file=sys.stderr)
        return
    with (
        telling(lambda: f"the run in {place} is complete; its challenge begins again with the same command"),
        open_run(place, run.settings, run.guarantee) as store,
    ):

        def keep(outcome: Any) -> None:
            store.add_attack(outcome.to_json())

        outcomes = run_challenge(
            smoothed, run, dataset.x, ids=dataset.ids.tolist(), seed=seed, on_outcome=keep, progress=True
        )
        hits = run.contradictions(outcomes)
        store.put_document(
            "contradictions",
            {"checked": len(outcomes), "hits": [o.to_json() for o in hits], "norm": run.settings["norm"]},
        )
    if hits:
        raise EvidenceFails(
            f"{len(hits)} confirmed attacks lie inside certified balls, the first on input {hits[0].index}",
            why="a certificate and a confirmed counterexample cannot both be right",
            remedy="keep the run directory and report it: the model is no fixed function, or this is a bug",
        )
    print(f"challenge: {len(outcomes)} certified balls attacked, no contradiction", file=sys.stderr)


def _keep_adversarials(store: Any, stored: Any, outcomes: Sequence[AttackOutcome], dataset: Any) -> None:
    """Store the new adversarial inputs beside those of an earlier, interrupted attack."""
    import numpy as np

    clean = {int(i): x.numpy() for i, x in zip(dataset.ids, dataset.x, strict=True)}
    found = {
        o.index: (clean[o.index], np.asarray(o.adversarial)) for o in outcomes if o.adversarial is not None
    }
    if not found:
        return
    earlier = stored.arrays("adversarial")
    if earlier is not None:
        kept = zip(earlier["index"].tolist(), earlier["x"], earlier["x_adv"], strict=True)
        found = {i: (x, adv) for i, x, adv in kept} | found
    order = sorted(found)
    arrays = {
        "index": np.array(order),
        "x": np.stack([found[i][0] for i in order]),
        "x_adv": np.stack([found[i][1] for i in order]),
    }
    store.put_arrays("adversarial", arrays)


def _run(attacked: Any, dataset: Any, threat: Any, preset: str, seed: int, **resume: Any) -> AttackRun:
    from attacks import attack as run_attack

    return run_attack(
        attacked,
        dataset.x,
        dataset.labels,
        threat=threat,
        preset=preset,
        seed=seed,
        ids=dataset.ids.tolist(),
        progress=True,
        **resume,
    )
