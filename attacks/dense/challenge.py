"""Attack certified pixels inside their balls: a certificate that is right cannot lose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm as gaussian

from attacks.budget import Budget
from attacks.challenge import NAME
from attacks.dense.judge import SmoothedJudge
from attacks.dense.losses import PixelLoss, lost_margins, masked_cross_entropy, segpgd
from attacks.dense.outcomes import PixelAttack, SegmentationAttackRun
from attacks.dense.pgd import Images, pixel_pgd
from attacks.dense.suite import DENSE_BUDGET
from attacks.dense.tally import ImageTally
from attacks.dense.target import Target, opened
from attacks.oracle import Oracle
from attacks.streams import Streams
from attacks.threat import Threat
from certify.data import gather
from certify.dense.maps import IGNORE, PixelMaps
from certify.dense.run import SegmentationRun
from certify.errors import InvalidInput

#: Steps of each search, and how many of an image's pixels are attacked one by one.
STEPS, SINGLE = 20, 2
#: The image itself, a tenth's radius, the median radius, and the single pixels.
TRIES = 3 + SINGLE


def challenge_segmentation(
    g: Any,
    run: SegmentationRun,
    x: Any,
    *,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    known: Mapping[int, PixelAttack] | None = None,
    on_outcome: Callable[[PixelAttack], None] | None = None,
) -> SegmentationAttackRun:
    """Try to make certified pixels of the smoothed segmentation ``g`` leave their class within their radius.

    ``x`` (n, channels, height, width) are the images that ``run`` certified, ``ids`` (default 0, 1,
    ...) their ids. Each image with a certified pixel of positive radius is judged at itself and attacked
    four times: nine tenths of its certified pixels in the ball that these all have, half of them in
    the ball of the median radius, and the two pixels with least room between their radius and the
    distance that their votes suggest, each in its own ball. Gradients are averaged over
    ``budget.draws`` noise draws. At every candidate *all* pixels certified that far are tested on fresh
    noise by an exact binomial test at level ``budget.alpha`` / (pixels * candidates), so that a false
    confirmation at any pixel of an image has probability at most ``budget.alpha``.

    ``run.contradictions(...)`` of the result must be empty. Raises InvalidInput when an image of the
    run is missing, or nothing was certified.
    """
    given = gather(x)
    x, ids = given.x, given.ids if ids is None else ids
    names = list(range(len(x))) if ids is None else [int(i) for i in ids]
    place = {name: k for k, name in enumerate(names)}
    claims = [r.index for r in run.run if r.certified and r.radius > 0]
    _check(claims, place)
    norm = str(run.settings.get("norm", "2"))
    largest, found = 0.0, {i: o for i, o in (known or {}).items() if i in set(claims)}
    budget = budget or DENSE_BUDGET
    rows = torch.as_tensor(x)[[place[i] for i in claims]]
    with opened(g, rows, None, bounds=g.bounds) as target:
        certified = (image for image in run if image.record.certified and image.record.radius > 0)
        for row, image in enumerate(certified):
            index = image.record.index
            largest = max(largest, float(image.maps.radius.max()))
            if index in found:
                continue
            found[index] = _Image(target, row, index, image.maps, norm, seed, budget).attacked()
            if on_outcome is not None:
                on_outcome(found[index])
    threat = Threat(norm, eps=largest or None, bounds=g.bounds)
    return SegmentationAttackRun([found[i] for i in claims], threat, NAME, num_classes=g.num_classes)


@dataclass(frozen=True, eq=False)
class _Aim:
    """One search: these certified pixels, in a ball of this size."""

    name: str
    eps: float
    stake: np.ndarray
    loss: PixelLoss


class _Image:
    """The challenge of one image's certified pixels."""

    def __init__(
        self, target: Target, row: int, index: int, maps: PixelMaps, norm: str, seed: int, budget: Budget
    ) -> None:
        self.target, self.index, self.seed, self.radius = target, index, seed, maps.radius
        self.threat = Threat(norm, eps=float(maps.radius.max()), bounds=target.model.bounds)
        self.judge = SmoothedJudge(
            target.model, p=self.threat.p, box=self.threat.box, seed=seed, samples=budget.confirm_samples,
            alpha=budget.alpha, tries=TRIES,
        )  # fmt: skip
        self.x = target.x[row : row + 1]
        self.oracle = Oracle(target.base, 1)
        streams = Streams(seed, [index], device=self.x.device)
        self.source = target.source(self.oracle, streams, budget)
        claimed = maps.certified & (maps.radius > 0)
        label = np.where(claimed, maps.selected.astype(np.int64), IGNORE)
        votes = self.judge.votes(self.x[0], index, "clean")
        # The certified class is what is claimed of the image itself, too.
        self.tally = ImageTally(index, label, label.copy(), asked=self.judge.select)
        self.share = np.take_along_axis(votes, label.clip(0)[None], 0)[0] / self.judge.select
        labels, stake = (torch.from_numpy(m)[None].to(self.x.device) for m in (label.clip(0), claimed))
        sizes = target.sizes([self.threat.eps or 0.0])
        gap = self.judge.gap(int(claimed.sum()))
        self.images = Images(self.x, labels, stake, sizes, self.threat.p, self.threat.box, streams, gap)

    def attacked(self) -> PixelAttack:
        """The outcome of all searches."""
        began = time.perf_counter()
        self._judged("the image itself", self.x, 0.0, 0)
        for number, aim in enumerate(self._aims(), start=1):
            stake = torch.from_numpy(aim.stake)[None].to(self.x.device)
            images = self.images.at(stake=stake, eps=self.target.sizes([aim.eps]))
            found = pixel_pgd(self.source, images, loss=aim.loss, steps=STEPS, purpose=f"challenge/{number}")
            found = self.target.candidate(self.x, found, images.eps, images.p)
            self._judged(aim.name, found, aim.eps, number)
        self.tally.seconds = time.perf_counter() - began
        return self.tally.outcome(
            smoothed=True, norm=self.threat.norm_name, eps=float(self.threat.eps or 0.0), preset=NAME,
            seed=self.seed, backwards=int(self.oracle.backwards[0]),
            forwards=int(self.oracle.forwards[0]) + self.tally.asked,
        )  # fmt: skip

    def _aims(self) -> list[_Aim]:
        stake, radius = self.tally.stake, self.radius
        # A quantile that lies between two radii would be nobody's: the lower one is taken.
        tenth, median = (float(np.quantile(radius[stake], q, method="lower")) for q in (0.1, 0.5))
        aims = [
            _Aim("weakest tenth's radius", tenth, stake & (radius >= tenth), segpgd),
            _Aim("median radius", median, stake & (radius >= median), masked_cross_entropy),
        ]
        for row, column in self._weakest():
            one = np.zeros_like(stake)
            one[row, column] = True
            aims.append(_Aim(f"pixel ({row}, {column})", float(radius[row, column]), one, lost_margins))
        return aims

    def _weakest(self) -> list[tuple[int, int]]:
        """The pixels whose radius is largest beside the distance that the share of votes suggests.

        Balls without a second point of the grid are left out, unless there is no other.
        """
        half = 0.5 / self.judge.select
        suggested = gaussian.ppf(np.clip(self.share, 0.5 + half, 1 - half))
        roomy = self.tally.stake & (self.radius >= (self.target.model.grid or 0.0))
        room = np.where(roomy if roomy.any() else self.tally.stake, self.radius / suggested, -np.inf)
        order = np.argsort(room, axis=None, kind="stable")[::-1][: min(SINGLE, int((room > -np.inf).sum()))]
        return [(int(r), int(c)) for r, c in zip(*np.unravel_index(order, room.shape), strict=True)]

    def _judged(self, name: str, found: torch.Tensor, eps: float, number: int) -> None:
        stake = self.tally.stake & (self.radius >= eps)
        verdict = self.judge.verdict(
            name, self.x[0], found[0], self.tally.label, stake, eps=eps, id=self.index, number=number
        )
        self.tally.settle(verdict, found[0].cpu().numpy())


def _check(claims: list[int], place: Mapping[int, int]) -> None:
    missing = [i for i in claims if i not in place]
    if missing:
        raise InvalidInput(
            f"image {missing[0]} of the run is not among the images given",
            why=f"{len(missing)} certified records have no image to attack",
            remedy="pass the images that the run certified, and their ids",
        )
    if not claims:
        raise InvalidInput(
            "there is nothing to challenge",
            why="the run holds no image with a certified pixel",
            remedy="certify images first",
        )
