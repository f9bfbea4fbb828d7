"""The plan of one segmentation run: choose a class per pixel, test it on fresh samples.

M. Fischer, M. Baader, M. Vechev, "Scalable Certified Segmentation via Randomized Smoothing", ICML 2021
(SegCertify), with rounded radii, the noise's own error, and a second way to correct for many pixels.

Claim. With probability at least 1 - alpha over the samples, every certified pixel's class has
probability above the threshold of its radius at the image itself, hence (Cohen et al. 2019, Theorem 1,
applied to each pixel's classifier) keeps its class at every point of the ball.
Proof. Given the n0 selection samples the classes are fixed, and the n fresh samples are independent of
them: a pixel's votes are Bin(n, q) with q its class's probability under the drawn noise, and
|q - p| <= tv for the ideal noise. Holm rejects "q <= threshold + tv", Bonferroni bounds q; both
err on any pixel with probability at most alpha whatever the dependence (``certify.dense.correction``).
Rejecting means q > threshold + tv, so p > threshold; averaging over the selection samples keeps alpha.
With ``tolerate`` the same claim is made of all but a share of the image's pixels, by the same proof with the
corrections that allow for so many mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.bounds import check_alpha
from certify.calls import checked
from certify.chances import exactly
from certify.dense.correction import holm, most_wrong_pixels, p_values, simultaneous_lower
from certify.dense.maps import MOST_VOTES
from certify.errors import InvalidCounts, InvalidSetting
from certify.geometry import Geometry
from certify.sequential.boundaries import whole

CORRECTIONS = ("holm", "bonferroni")
#: The largest share of an image's pixels that may be allowed to be wrong.
MOST_TOLERATED = 0.5


@dataclass(frozen=True, eq=False)
class PixelOutcome:
    """One image: ``selected`` classes and fresh ``votes`` for them (height, width), and what they prove.

    ``p_lower``: a proved lower bound on the selected class's probability at every certified pixel.
    Holm proves the threshold everywhere; 0 where nothing was proved.
    """

    selected: np.ndarray
    votes: np.ndarray
    certified: np.ndarray
    p_lower: np.ndarray
    samples: int


@dataclass(frozen=True)
class PixelTests:
    """n0 samples choose the classes, n fresh ones test them with family-wise error ``alpha``.

    ``correction`` "holm" tests one ``radius``, which needs class probability ``threshold``;
    "bonferroni" (both None) proves a radius per pixel. ``tv``: the noise's total variation error.
    ``tolerate``: the share of an image's pixels that may be certified wrongly (rounded down to whole pixels).
    """

    correction: str
    alpha: float = 1e-3
    n0: int = 100
    n: int = 1000
    radius: float | None = None
    threshold: float | None = None
    tv: float = 0.0
    tolerate: float = 0.0

    name = "pixels"
    statistic = "pixels"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        whole(self.n0, "n0")
        if whole(self.n, "n") > MOST_VOTES:
            raise InvalidSetting(
                f"n = {self.n:,} samples per image cannot be counted",
                why=f"the maps hold a pixel's votes in 32 bits, which count to {MOST_VOTES:,}",
                remedy="use fewer samples: a radius grows only with the logarithm of n",
            )
        if not 0.0 <= self.tolerate <= MOST_TOLERATED:
            raise InvalidSetting(
                f"tolerate = {self.tolerate!r} cannot be used",
                why="it is the share of an image's pixels that may be certified wrongly, "
                f"from 0 to {MOST_TOLERATED:g}",
                remedy="use a small share such as 0.001, or 0: with probability 1 - alpha no pixel is wrong",
            )

    def settings(self) -> dict[str, Any]:
        """Every number that defines the plan, as JSON types."""
        return {
            "correction": self.correction, "alpha": self.alpha, "n0": self.n0, "n": self.n,
            "radius": self.radius, "threshold": self.threshold, "tv": self.tv,
            **({"tolerate": self.tolerate} if self.tolerate else {}),
        }  # fmt: skip

    def guarantee(self) -> str:
        how = (
            f"tested at radius {exactly(self.radius or 0.0)}, with {self._named()} correction for all pixels "
            "of the image"
            if self.correction == "holm"
            else "bounded by a one-sided Clopper-Pearson bound per pixel at level alpha divided by the "
            f"number of pixels{self._times()} (Bonferroni), which gives each pixel its own radius"
        )
        return (
            f"Each pixel's class was chosen on {self.n0} samples and its probability, on {self.n} fresh ones "
            f"shared by all pixels, {how}."
        )

    def _named(self) -> str:
        return "Lehmann and Romano's step-down" if self.tolerate else "Holm's"

    def _times(self) -> str:
        return ", times one more than may be wrong," if self.tolerate else ""

    def start(self) -> PixelProgress:
        return PixelProgress(self)

    def judge(self, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(certified, p_lower) for fresh votes (height, width)."""
        wrong = most_wrong_pixels(self.tolerate, votes.size)
        if self.correction == "bonferroni":
            lower = np.maximum(0.0, simultaneous_lower(votes, self.n, self.alpha, wrong=wrong) - self.tv)
            return lower > 0.5, lower
        threshold = float(self.threshold or 1.0)
        mask = holm(p_values(votes, self.n, threshold + self.tv), self.alpha, wrong=wrong)
        return mask, np.where(mask, threshold, 0.0)


class PixelProgress:
    """Two looks: after selection, and after estimation."""

    def __init__(self, plan: PixelTests) -> None:
        self.plan = plan
        self._selection: tuple[np.ndarray, np.ndarray] | None = None
        self._votes: np.ndarray | None = None

    def wanted(self) -> int | None:
        if self._selection is None:
            return self.plan.n0
        return self.plan.n0 + self.plan.n if self._votes is None else None

    def look(self, counts: np.ndarray) -> None:
        """Cumulative votes (classes, height, width); a pixel without a finite score votes for none.

        Raises InvalidCounts where the samples cannot have given them.
        """
        samples = self.wanted() or 0
        if counts.ndim != 3 or counts.min() < 0 or counts.sum(axis=0).max() > samples:
            raise InvalidCounts(
                f"votes of shape {counts.shape} cannot come from {samples} samples",
                why="each sample gives every pixel at most one vote",
                remedy="call look with the cumulative counts at exactly wanted() samples",
            )
        if self._selection is None:
            selected = counts.argmax(axis=0)
            self._selection = selected, _of(counts, selected)
        else:
            selected, before = self._selection
            self._votes = _of(counts, selected) - before

    def outcome(self) -> PixelOutcome:
        if self._selection is None or self._votes is None:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        certified, p_lower = self.plan.judge(self._votes)
        return PixelOutcome(self._selection[0], self._votes, certified, p_lower, self.plan.n0 + self.plan.n)


@checked
def make_pixel_tests(
    geometry: Geometry,
    *,
    correction: str | None = None,
    radius: float | None = None,
    alpha: float = 1e-3,
    n0: int = 100,
    n: int = 1000,
    tv: float = 0.0,
    tolerate: float = 0.0,
) -> PixelTests:
    """The plan; without ``correction`` a given ``radius`` means Holm, none Bonferroni.

    Raises InvalidSetting for an unknown correction, a radius that is missing, unwanted, no distance
    or beyond what any number of samples could prove.
    """
    correction = correction or ("bonferroni" if radius is None else "holm")
    if correction not in CORRECTIONS:
        raise InvalidSetting(
            f"correction {correction!r} is unknown",
            why=f"the pixels of an image are tested together by {' or '.join(CORRECTIONS)}",
            remedy="use holm (one radius, chosen in advance) or bonferroni (a radius per pixel)",
        )
    if correction == "bonferroni":
        if radius is not None:
            raise InvalidSetting(
                "radius has no meaning with correction bonferroni",
                why="it proves a radius for every pixel, whatever radius is asked about afterwards",
                remedy="leave radius out, or use correction holm, which certifies more pixels at one radius",
            )
        return PixelTests(correction, alpha, n0, n, tv=tv, tolerate=float(tolerate))
    if radius is None or not 0.0 <= float(radius) < np.inf:
        raise InvalidSetting(
            f"radius = {radius!r} cannot be tested",
            why="Holm's correction tests one radius, fixed before the first sample",
            remedy="pass radius=0.17, or use correction bonferroni for a radius per pixel",
        )
    threshold = geometry.needed(float(radius))
    if threshold + tv >= 1.0:
        raise InvalidSetting(
            f"radius {radius:g} can never be certified",
            why="it needs a class probability of 1",
            remedy="ask for a smaller radius or use a larger sigma",
        )
    return PixelTests(correction, alpha, n0, n, float(radius), threshold, tv, float(tolerate))


def _of(counts: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """The count of every pixel's selected class."""
    return np.take_along_axis(counts, selected[None], axis=0)[0]
