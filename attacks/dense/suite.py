"""``attack_segmentation``: run a preset on a segmenter, or on its smoothed version, and judge every pixel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attacks.budget import Budget
from attacks.dense.judge import PixelJudge
from attacks.dense.outcomes import PixelAttack, SegmentationAttackRun
from attacks.dense.pgd import Images
from attacks.dense.presets import PixelStage, check_dense_preset, pixel_stages
from attacks.dense.tally import ImageTally
from attacks.dense.target import Target, is_smoothed_segmentation, opened
from attacks.oracle import Oracle
from attacks.streams import Streams
from attacks.suite import _names
from attacks.threat import Threat
from certify.data import gather
from certify.dense.maps import ABSTAIN, IGNORE
from certify.errors import InvalidSetting

#: What is spent where nothing else is said: fewer samples per confirmation than for one class, as each
#: is a vote for all pixels.
DENSE_BUDGET = Budget(confirm_samples=1000)


def attack_segmentation(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    threat: Threat,
    preset: str | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    ids: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    known: Mapping[int, PixelAttack] | None = None,
    on_outcome: Callable[[PixelAttack], None] | None = None,
) -> SegmentationAttackRun:
    """Attack every image of ``x`` inside ``threat`` and judge each pixel.

    ``x``: (n, channels, height, width), or a loader or data set as ``certify.data.gather`` reads them.

    ``model``: an nn.Module or callable to scores (batch, classes, height, width), or a
    ``certify.SmoothedSegmentation``: then only a change of *its* class counts. ``y`` (n, height,
    width): true classes, ``certify.contract.IGNORE`` where there is none; without it the classes that
    the model itself gives. ``preset``: see ``DENSE_PRESETS``; default "standard", for a smoothed
    segmentation "smoothed". One perturbation of the image is shared by all its pixels; an outcome
    says what the strongest broke at once, and which pixels any of them was confirmed to change.
    ``budget``, ``ids``, ``known`` and ``on_outcome`` as for ``attacks.attack``.

    For a smoothed segmentation each pixel's change is confirmed by an exact binomial test on fresh
    noise, at ``budget.alpha`` divided by the number of pixels and candidates of the image.
    Raises InvalidInput, InvalidSetting, InvalidModel.
    """
    smoothed = is_smoothed_segmentation(model)
    given = gather(x, y)
    x, y, ids = given.x, given.y, given.ids if ids is None else ids
    preset = preset or ("smoothed" if smoothed else "standard")
    check_dense_preset(preset, threat, smoothed=smoothed)
    if threat.restrictions:
        raise InvalidSetting(
            f"{' and '.join(threat.restrictions)} cannot be kept when a segmenter is attacked",
            why="its searches move whole images",
            remedy="leave mask, ranges and grid out",
        )
    budget = budget or DENSE_BUDGET
    stages = pixel_stages(preset)
    with opened(model, x, y, bounds=threat.bounds, device=device) as target:
        names = _names(ids, len(target.x))
        found = {i: o for i, o in (known or {}).items() if i in set(names)}
        todo = [k for k, name in enumerate(names) if name not in found]
        judge = target.judge(threat.p, threat.box, seed=seed, budget=budget, tries=len(stages))
        for part in _parts(todo, target.together(budget)):
            work = _Part(target, judge, part, [names[k] for k in part], threat, preset, seed, budget)
            for outcome in work.attacked(stages):
                found[outcome.index] = outcome
                if on_outcome is not None:
                    on_outcome(outcome)
    return SegmentationAttackRun([found[i] for i in names], threat, preset, num_classes=target.num_classes)


class _Part:
    """Images that are attacked side by side."""

    def __init__(
        self, target: Target, judge: PixelJudge, rows: list[int], ids: list[int], threat: Threat,
        preset: str, seed: int, budget: Budget,
    ) -> None:  # fmt: skip
        self.target, self.judge, self.threat = target, judge, threat
        self.preset, self.seed, self.eps = preset, seed, float(threat.eps or 0.0)
        x = target.x[rows]
        self.oracle = Oracle(target.base, len(rows))
        streams = Streams(seed, ids, device=x.device)
        self.source = target.source(self.oracle, streams, budget)
        self.tallies = [self._begun(row, id) for row, id in zip(rows, ids, strict=True)]
        label = torch.from_numpy(np.stack([t.label for t in self.tallies])).to(x.device)
        sizes = target.sizes([self.eps] * len(rows))
        right = torch.from_numpy(np.stack([t.right for t in self.tallies])).to(x.device)
        gap = judge.gap(int(right.flatten(1).sum(1).max()))
        self.images = Images(x, label.clamp_min(0), right, sizes, threat.p, threat.box, streams, gap)

    def attacked(self, stages: Sequence[PixelStage]) -> list[PixelAttack]:
        """The outcomes after all ``stages``, each candidate judged."""
        images = self.images
        for number, stage in enumerate(stages):
            began = time.perf_counter()
            found = stage.run(self.source, self._left() if stage.stragglers else images)
            found = self.target.candidate(images.x, found, images.eps, images.p)
            shared = (time.perf_counter() - began) / len(images)
            for row, tally in enumerate(self.tallies):
                began = time.perf_counter()
                verdict = self.judge.verdict(
                    stage.name, images.x[row], found[row], tally.label, tally.right, eps=self.eps,
                    id=tally.index, number=number,
                )  # fmt: skip
                tally.settle(verdict, found[row].cpu().numpy())
                tally.seconds += shared + time.perf_counter() - began
        return [self._outcome(row, tally) for row, tally in enumerate(self.tallies)]

    def _left(self) -> Images:
        """The images with those pixels at stake that nothing was confirmed to change."""
        left = np.stack([t.right & (t.by < 0) for t in self.tallies])
        return self.images.at(stake=torch.from_numpy(left).to(self.images.x.device))

    def _begun(self, row: int, id: int) -> ImageTally:
        target = self.target
        clean = self.judge.clean(target.x[row], id)
        own = np.where(clean == ABSTAIN, IGNORE, clean)
        label = own if target.y is None else target.y[row].numpy()
        return ImageTally(id, label.astype(np.int64), clean.astype(np.int64))

    def _outcome(self, row: int, tally: ImageTally) -> PixelAttack:
        return tally.outcome(
            smoothed=self.target.smoothed, norm=self.threat.norm_name, eps=self.eps, preset=self.preset,
            seed=self.seed, backwards=int(self.oracle.backwards[row]),
            forwards=int(self.oracle.forwards[row]) + tally.asked,
        )  # fmt: skip


def _parts(todo: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(todo), size):
        yield todo[first : first + size]
