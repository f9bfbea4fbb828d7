"""Named sets of attacks on a segmentation: what exactly a pixel survived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from attacks.dense.losses import PixelLoss, jensen_shannon, masked_cross_entropy, segpgd, weakest_first
from attacks.dense.pgd import Images, pixel_pgd
from attacks.dense.sources import Source
from attacks.threat import Threat
from certify.errors import InvalidSetting

#: What each preset does, in one line; also the names ``attack_segmentation`` accepts.
DENSE_PRESETS = {
    "quick": "SegPGD-20: a smoke test, not evidence",
    "standard": "SegPGD, masked cross-entropy and Jensen-Shannon, 100 steps each, then the pixels left over",
    "thorough": "standard with 300 steps and three random restarts of each",
    "smoothed": "SegPGD, masked cross-entropy and the pixels left over, on the mean softmax, confirmed with "
    "fresh noise",
}


@dataclass(frozen=True)
class PixelStage:
    """One attack of a preset: images in, one candidate per image out.

    ``stragglers``: only pixels that no attack before it was confirmed to change are at stake. It may
    break fewer at once, but more pixels are reached by some perturbation.
    """

    name: str
    run: Callable[[Source, Images], Tensor]
    stragglers: bool = False


def pixel_stages(preset: str) -> tuple[PixelStage, ...]:
    """The attacks of a preset, in the order in which they run."""
    if preset == "quick":
        return (_stage("segpgd", segpgd, 20),)
    if preset == "smoothed":
        return (
            _stage("segpgd", segpgd, 20),
            _stage("masked-ce", masked_cross_entropy, 20),
            _stage("stragglers", jensen_shannon, 20, stragglers=True),
            _stage("weakest", weakest_first, 20, stragglers=True),
        )
    losses = {"segpgd": segpgd, "masked-ce": masked_cross_entropy, "js": jensen_shannon}
    last = (
        _stage("stragglers", jensen_shannon, 100, stragglers=True),
        _stage("weakest", weakest_first, 100, stragglers=True),
    )
    if preset == "standard":
        # Two of three start at the image, where gradients of several pixels may cancel.
        return (*(_stage(n, loss, 100, random=loss is jensen_shannon) for n, loss in losses.items()), *last)
    several = (
        _stage(f"{name}-{start}", loss, 300, random=start > 0)
        for start in range(4)
        for name, loss in losses.items()
    )
    return (*several, *last)


def check_dense_preset(preset: str, threat: Threat, *, smoothed: bool) -> None:
    """Raise InvalidSetting unless preset, threat and kind of model go together."""
    if preset not in DENSE_PRESETS:
        raise InvalidSetting(
            f"there is no preset {preset!r} for a segmentation",
            why=f"the presets are {', '.join(DENSE_PRESETS)}; they all follow gradients inside a ball",
            remedy='use "standard" for a network, "smoothed" for a smoothed segmentation',
        )
    if smoothed != (preset == "smoothed"):
        what = "a smoothed segmentation" if smoothed else "a base network"
        raise InvalidSetting(
            f"preset {preset!r} does not attack {what}",
            why="a flip of the base network says nothing about its smoothed version, and the reverse",
            remedy='use "smoothed" with certify.SmoothedSegmentation, any other with the network itself',
        )
    if threat.eps is None:
        raise InvalidSetting(
            "an attack on a segmentation needs a perturbation size",
            why="its pixels have no common smallest perturbation to look for",
            remedy="give Threat(norm, eps=0.5) (--eps 0.5)",
        )


def _stage(
    name: str, loss: PixelLoss, steps: int, *, random: bool = False, stragglers: bool = False
) -> PixelStage:
    label = f"{name}-{steps}"
    search = partial(pixel_pgd, loss=loss, steps=steps, random=random, purpose=label)
    return PixelStage(label, search, stragglers)
