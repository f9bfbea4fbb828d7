"""Choosing among denoisers: on pilot inputs, which are not certified, so that the choice costs no alpha.

A certificate is about one base classifier that was fixed before its samples were drawn. Whoever certifies
an input behind several denoisers and keeps the best would have to share alpha among them, and whoever
keeps the one that certified most would report a maximum as if it were a mean. Pilot inputs avoid both:
the choice sees only them, with noise of its own, and they are left out of the run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from certify_cli.denoisers import Asked, behind, with_denoiser

if TYPE_CHECKING:
    from certify.data import Dataset

#: Noisy copies of every pilot input, per candidate: enough to rank, no claim rests on them.
SAMPLES = 400
#: Of the pilot's noise, which no certificate uses: other inputs, and other words of the generator.
_SEED = 0


@dataclass(frozen=True)
class Choice:
    """What was chosen, the inputs that are left to certify, and what a run keeps about the choice."""

    network: Any
    sigma: float | None
    dataset: Dataset
    record: dict[str, Any]
    #: What the choice saw on this machine: a session may see fewer inputs than another.
    seen: dict[str, Any]


def pick(network: Any, dataset: Dataset, sigma: float | None, asked: Asked, *, share: float | None) -> Choice:
    """What is certified: the network as it is, behind the one denoiser asked for, or the chosen one."""
    if share is not None:
        return choose(network, dataset, sigma, asked, share=share)
    return Choice(*with_denoiser(network, dataset, sigma, asked), dataset, {}, {})


def choose(network: Any, dataset: Dataset, sigma: float | None, asked: Asked, *, share: float) -> Choice:
    """The denoiser with the largest mean radius on the pilot inputs, and the other inputs.

    ``share``: of the inputs, those whose key falls below it are pilot inputs. Membership depends on the
    input's id alone, not on the run's seed, which may be drawn and is not known when a run is resumed: every
    shard and every session leaves out the same inputs.
    """
    from certify.errors import InvalidSetting

    names = asked.names()
    if len(names) < 2:
        raise InvalidSetting(
            "--pilot has no meaning without a choice",
            why="pilot inputs are spent on choosing among several denoisers",
            remedy="leave it out, or name them: --denoiser heat,tv,den.pt",
        )
    if dataset.task == "segmentation":
        raise InvalidSetting(
            "denoisers of a segmenter cannot be chosen by --pilot",
            why="pilot inputs are ranked by the radius of one class per input",
            remedy="name one denoiser, chosen on other images",
        )
    pilot, rest = split(dataset, share)
    scores: dict[str, float] = {}
    found: dict[str, tuple[Any, float | None]] = {}
    for name in names:
        found[name] = behind(network, name, dataset, sigma, asked)
        scores[name] = mean_radius(*found[name], pilot)
    chosen = max(names, key=lambda name: scores[name])
    record = {
        "candidates": list(names), "chosen": chosen, "pilot_share": share, "pilot_samples": SAMPLES,
    }  # fmt: skip
    return Choice(*found[chosen], rest, record, {"denoiser_scores": scores, "pilot_inputs": len(pilot)})


def split(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(pilot, rest) of a data set. Raises InvalidSetting where one of them would be empty."""
    import torch

    from certify.errors import InvalidSetting

    if not 0 < share < 1:
        raise InvalidSetting(
            f"--pilot {share} is no share of the inputs",
            why="it lies between 0 and 1: these inputs choose the denoiser, the others are certified",
            remedy="write --pilot 0.1",
        )
    chosen = torch.tensor([_key(int(id)) < share for id in dataset.ids])
    if not chosen.any() or chosen.all():
        raise InvalidSetting(
            f"--pilot {share} takes {int(chosen.sum())} of {len(dataset)} inputs",
            why="at least one input must choose, and at least one must be left to certify",
            remedy="use more inputs, or another share",
        )
    parts = [(mask.nonzero().flatten()) for mask in (chosen, ~chosen)]
    pilot, rest = (
        replace(dataset, x=dataset.x[rows], y=dataset.y[rows], ids=dataset.ids[rows]) for rows in parts
    )
    return pilot, rest


def mean_radius(network: Any, sigma: float | None, pilot: Dataset) -> float:
    """The mean over pilot inputs of sigma Phi^-1(share of votes for the true class), at least 0.

    For inputs without labels the class with most votes stands for the true one.
    """
    from statistics import NormalDist

    from certify_cli.smoothed import smoothed_for

    smoothed = smoothed_for(network, sigma, pilot, noise="lattice")
    found = smoothed.predict(pilot.x, n=SAMPLES, seed=_SEED, ids=pilot.ids.tolist())
    # Add-one smoothing: a share of 1 would count as an infinite radius.
    votes = [
        p.counts[int(y)] if pilot.labelled else max(p.counts) for p, y in zip(found, pilot.y, strict=True)
    ]
    shares = [(count + 1) / (p.samples + 2) for count, p in zip(votes, found, strict=True)]
    radii = [max(0.0, smoothed.sigma_scale * NormalDist().inv_cdf(share)) for share in shares]
    return sum(radii) / len(radii)


def _key(id: int) -> float:
    """A number in [0, 1) that the id of an input determines, and nothing else does."""
    digest = hashlib.sha256(f"certify pilot {id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
