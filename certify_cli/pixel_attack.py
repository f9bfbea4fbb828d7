"""``certify attack`` and ``certify radius --challenge`` on segmentations: pixels instead of one class."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common
from certify_cli.common import ATTACKS_KEPT

if TYPE_CHECKING:
    from attacks.dense import PixelAttack, SegmentationAttackRun
    from certify.data import Dataset
    from certify.dense.run import PixelContradiction


def attack_network(
    network: Any, dataset: Dataset, *, norm: str, eps: float | None, preset: str | None, seed: int,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Attack the pixels of a base network; ``out`` keeps the maps and the images found."""
    found = _run(network, dataset, _threat(norm, eps, dataset), preset or "standard", seed)
    if out is not None:
        _write(out, found, dataset)
    show(found, as_json=as_json, hits=[])


def attack_run(
    run: Path, *, model: Path | None, preset: str | None, norm: str, eps: float | None, base: bool,
    limit: int | None, data_root: Path | None, seed: int, device: str, as_json: bool, **confirmed: Any,
) -> list[PixelContradiction]:  # fmt: skip
    """Attack the images of a stored run, keep the outcomes in it, and return the contradictions."""
    from certify.dense.run import SegmentationRun
    from certify.interruption import telling
    from certify.store import open_run
    from certify_cli.reopen import reopen

    opened = reopen(
        run, model=model, data_root=data_root, device=device, limit=limit, pixels=True, **confirmed
    )
    stored, dataset = opened.stored, opened.dataset
    tested = stored.settings["mode_options"].get("radius")
    threat = _threat(norm, eps if eps is not None or base else tested, dataset)
    chosen = preset or ("standard" if base else "smoothed")
    target: Any = opened.smoothed.model if base else opened.smoothed
    known = _stored_outcomes(stored, not base, threat.norm_name, threat.eps, chosen, seed)
    with (
        telling(lambda: ATTACKS_KEPT.format(place=run)),
        open_run(run, stored.settings, stored.guarantee) as store,
    ):
        found = _run(target, dataset, threat, chosen, seed, known=known, on_outcome=lambda o: _keep(store, o))
        hits = [] if base else SegmentationRun.of(stored).contradictions(found)
        if not base:
            _note(store, found, hits)
    show(found, as_json=as_json, hits=hits)
    return hits


def challenge(smoothed: Any, run: Any, dataset: Dataset, place: Path, *, seed: int) -> None:
    """Attack certified pixels of ``run`` inside their balls and store it; EvidenceFails on a hit."""
    from attacks.dense import challenge_segmentation
    from certify.errors import EvidenceFails
    from certify.interruption import telling
    from certify.progress import progress
    from certify.store import open_run

    if not any(r.certified and r.radius > 0 for r in run.run):
        print("challenge: nothing was certified, so there is no ball to attack", file=sys.stderr)
        return
    with (
        telling(lambda: ATTACKS_KEPT.format(place=place)),
        open_run(place, run.settings, run.guarantee) as store,
        progress("challenging pixels", len(run)) as advance,
    ):

        def keep(outcome: PixelAttack) -> None:
            _keep(store, outcome)
            advance(1)

        found = challenge_segmentation(
            smoothed, run, dataset.x, ids=dataset.ids.tolist(), seed=seed, on_outcome=keep
        )
        hits = run.contradictions(found)
        _note(store, found, hits)
    if hits:
        first = hits[0]
        raise EvidenceFails(
            f"{len(hits)} certified pixels were confirmed to change their class within their radius, the "
            f"first at image {first.index}, row {first.row}, column {first.column}",
            why="a certificate and a confirmed counterexample cannot both be right",
            remedy="keep the run directory and report it: the model is no fixed function, or this is a bug",
        )
    pixels = found.pixels()["stake"]
    print(
        f"challenge: {pixels:,} certified pixels of {len(found)} images attacked, no contradiction",
        file=sys.stderr,
    )


def show(found: SegmentationAttackRun, *, as_json: bool, hits: list[PixelContradiction]) -> None:
    """What was found, as a few lines or one JSON object."""
    result = summarize(found, hits)
    if as_json:
        common.print_json(result)
        return
    console = common.tables()
    at, alive = result["accuracy"], result["survived"]
    console.print(
        f"preset {result['preset']}, l_{result['norm']} within {result['eps']:g}, {result['inputs']} images, "
        f"{result['pixels']['stake']:,} labelled pixels"
    )
    console.print(
        f"one perturbation per image: pixel accuracy {result['clean_accuracy']:.4f} -> {at['value']:.4f} "
        f"({at['level']:.0%} interval over images {at['low']:.3f} to {at['high']:.3f}), "
        f"mean IoU {result['clean_mean_iou']:.4f} -> {result['mean_iou']:.4f}"
    )
    console.print(
        f"each pixel by itself: {alive['value']:.4f} of them right and changed by no perturbation tried "
        f"({alive['low']:.3f} to {alive['high']:.3f})"
    )
    if hits:
        console.print(
            f"CONTRADICTION: {len(hits)} certified pixels changed within their radius; the run is invalid"
        )


def summarize(found: SegmentationAttackRun, hits: list[PixelContradiction]) -> dict[str, Any]:
    """One JSON object: the attack, pixels and scores before and under it, contradictions."""
    from dataclasses import asdict

    return {
        "task": "segmentation",
        "preset": found.preset,
        "norm": found.threat.norm_name,
        "eps": found.threat.eps,
        "inputs": len(found),
        "counts": found.counts(),
        "pixels": found.pixels(),
        "clean_accuracy": found.clean_accuracy(),
        "accuracy": asdict(found.accuracy()),
        "survived": asdict(found.survived()),
        "clean_mean_iou": found.clean_mean_iou(),
        "mean_iou": found.mean_iou(),
        "contradictions": [hit.to_json() for hit in hits],
    }


def _threat(norm: str, eps: float | None, dataset: Dataset) -> Any:
    from attacks import Threat

    return Threat(norm=norm, eps=eps, bounds=dataset.bounds)


def _run(
    target: Any, dataset: Dataset, threat: Any, preset: str, seed: int, *, known: Any = None,
    on_outcome: Any = None,
) -> SegmentationAttackRun:  # fmt: skip
    from attacks.dense import attack_segmentation
    from certify.progress import progress

    with progress("attacking pixels", len(dataset.x) - len(known or {})) as advance:

        def keep(outcome: PixelAttack) -> None:
            if on_outcome is not None:
                on_outcome(outcome)
            advance(1)

        return attack_segmentation(
            target, dataset.x, dataset.y, threat=threat, preset=preset, seed=seed,
            ids=dataset.ids.tolist(), known=known, on_outcome=keep,
        )  # fmt: skip


def _keep(store: Any, outcome: PixelAttack) -> None:
    """Store an outcome and its maps, unless a stronger one of the same threat is there."""
    if store.add_attack(outcome.to_json()):
        store.put_arrays(outcome.arrays_name, outcome.arrays())


def _note(store: Any, found: SegmentationAttackRun, hits: list[PixelContradiction]) -> None:
    store.put_document(
        "contradictions",
        {
            "checked": found.pixels()["right"],
            "hits": [hit.to_json() for hit in hits],
            "norm": found.threat.norm_name,
        },
    )


def _stored_outcomes(
    stored: Any, smoothed: bool, norm: str, eps: float | None, preset: str, seed: int
) -> dict[int, PixelAttack]:
    """The outcomes of this very attack that are in the run with their maps."""
    from attacks.dense import PixelAttack

    found: dict[int, PixelAttack] = {}
    for row in stored.attacks:
        if [row.get(k) for k in ("smoothed", "norm", "eps", "preset", "seed")] != [
            smoothed, norm, eps, preset, seed,
        ]:  # fmt: skip
            continue
        arrays = stored.arrays(PixelAttack.stored_name(row))
        if arrays is None:  # the process was killed between the two
            continue
        outcome = PixelAttack.of(row, arrays)
        if int(outcome.reached.sum()) == row["reached"]:
            found[outcome.index] = outcome
    return found


def _write(out: Path, found: SegmentationAttackRun, dataset: Dataset) -> None:
    """All maps and images in one .npz file, the summary in it as JSON text."""
    import io
    import json

    import numpy as np

    from certify.errors import InvalidSetting
    from certify.files import write_atomically

    if out.suffix != ".npz":
        raise InvalidSetting(
            f"{out.name} has no known ending", why="maps are written as .npz", remedy="name it .npz"
        )
    maps = [{k: v for k, v in o.arrays().items() if k != "x_adv"} for o in found]
    clean = dataset.x.numpy()
    images = [x if o.adversarial is None else o.adversarial for o, x in zip(found, clean, strict=True)]
    arrays: dict[str, Any] = {name: np.stack([m[name] for m in maps]) for name in maps[0]}
    arrays |= {"index": np.array([o.index for o in found]), "x_adv": np.stack(images)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, summary=np.array(json.dumps(summarize(found, []))), **arrays)
    write_atomically(out, buffer.getvalue())
