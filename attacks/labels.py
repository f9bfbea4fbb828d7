"""Attacks that see nothing but the predicted class, for models whose scores are flat (a forest's vote).

linf: a ray to the boundary along a vector of signs, which are flipped in ever smaller blocks while the ray
gets shorter (RayS: J. Chen and Q. Gu, "RayS: a ray searching method for hard-label adversarial attack",
KDD 2020). l1 and l2: a point of the other class is drawn towards the input; the normal of the boundary is
estimated from labels around it (HopSkipJump: J. Chen, M. Jordan and M. Wainwright, IEEE S&P 2020); the point
of the plane through it that is nearest to the input is tried, and coordinates that the change of class does
not need are set back. Which point is tried depends on (seed, input) only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.apgd import decided
from attacks.geometry import clip, norm, unit
from attacks.hyperplane import to_hyperplane
from attacks.losses import margin
from attacks.problem import Problem

#: A bisection ends at this share of the distance, or after so many labels.
FINE, BISECTIONS = 2e-3, 12
#: Random points that are tried for a first one of another class.
STARTS = 200
#: Labels around a boundary point in the first estimate of its normal, and at most.
PROBES, MOST_PROBES = 24, 160
#: Blocks of coordinates that are set back between two estimates.
RESETS = 24
#: How far beyond the estimated plane its nearest point is tried, as shares of the distance to it.
BEYOND = (1.05, 1.2, 1.5, 2.0)
#: What a new estimate of the normal keeps of the one before: neighbouring boundary points share most of it.
MEMORY = 0.7


def by_labels(problem: Problem, *, queries: int = 10_000, purpose: str = "labels") -> Tensor:
    """The nearest point of another class found with ``queries`` labels per input (rows, *shape).

    Only inputs on which a search by scores met a plateau are worked on; the others come back as they are.
    """
    flat = torch.from_numpy(problem.oracle.plateau)[problem.samples.cpu()].to(problem.x.device)
    points, rows = problem.x.clone(), flat.nonzero().squeeze(1)
    if len(rows):
        search = _Search(problem.take(rows), queries, purpose)
        points[rows] = search.rays() if math.isinf(problem.p) else search.walks()
        problem.oracle.focus(None)
    return points


@dataclass(eq=False)
class _Search:
    """One search on all of its rows; a row that has reached its ball, or spent its labels, rests."""

    problem: Problem
    queries: int
    purpose: str

    def __post_init__(self) -> None:
        problem = self.problem
        self.x = problem.x.flatten(1)
        self.normal = torch.zeros_like(self.x)
        self.asked = torch.zeros(len(problem), dtype=torch.long, device=self.x.device)
        low, high = (
            clip(torch.full_like(self.x, -math.inf), problem.box),
            clip(torch.full_like(self.x, math.inf), problem.box),
        )
        bounded = (low.isfinite() & high.isfinite()).all(1)
        reach = 64 * problem.eps[:, None]
        self.low = torch.where(bounded[:, None], low, self.x - reach)
        self.high = torch.where(bounded[:, None], high, self.x + reach)

    # -- labels ---------------------------------------------------------------------------------

    def wrong(self, rows: Tensor, points: Tensor) -> Tensor:
        """Whether the model leaves the class at ``points`` (len(rows), d), one label each."""
        problem, found = self.problem, [torch.zeros(0, dtype=torch.bool, device=rows.device)]
        if not len(rows):
            return found[0]
        self.asked += torch.bincount(rows, minlength=len(problem))
        for r, part in zip(rows.split(problem.rows), points.split(problem.rows), strict=True):
            problem.oracle.focus(problem.samples[r])
            scores = problem.oracle.scores(part.view(-1, *problem.shape))
            found.append(decided(margin(scores, problem.y[r]), scores))
        return torch.cat(found)

    def working(self, far: Tensor) -> Tensor:
        """Positions of the rows whose point is farther than their ball and that have labels left."""
        return ((far > self.problem.eps) & (self.asked < self.queries)).nonzero().squeeze(1)

    # -- linf -----------------------------------------------------------------------------------

    def rays(self) -> Tensor:
        """The end of the shortest ray found for each row."""
        problem, d = self.problem, self.x.shape[1]
        sign = torch.where(problem.streams.uniform((d,), f"{self.purpose}/sign") < 0.5, -1.0, 1.0).to(self.x)
        radius = (self.high - self.low).amax(1)
        everyone = torch.arange(len(problem), device=self.x.device)
        hit = self.wrong(everyone, self._end(everyone, sign, radius))
        radius[hit] = self._shortened(everyone[hit], sign[hit], radius[hit])
        blocks, at = 1, 0
        while len(rows := self.working(torch.where(hit, radius, math.inf))):
            size = -(-d // blocks)
            tried = sign[rows]
            tried[:, at * size : (at + 1) * size] *= -1
            ok = self.wrong(rows, self._end(rows, tried, radius[rows]))
            better, hit[rows] = rows[ok], hit[rows] | ok
            sign[better] = tried[ok]
            radius[better] = self._shortened(better, tried[ok], radius[better])
            at += 1
            if at * size >= d:
                blocks, at = (1 if size == 1 else 2 * blocks), 0
        ends = self._end(everyone, sign, torch.minimum(radius, problem.eps))
        return torch.where((hit & (radius <= problem.eps))[:, None], ends, self.x).view_as(problem.x)

    def _end(self, rows: Tensor, sign: Tensor, radius: Tensor) -> Tensor:
        return clip(self.x[rows] + radius[:, None] * sign, self.problem.box)

    def _shortened(self, rows: Tensor, sign: Tensor, radius: Tensor) -> Tensor:
        """The shortest radius along each ray, by bisection, at which the class is another."""
        low, high = torch.zeros_like(radius), radius.clone()
        # Inside the ball already? Then nothing is left to find out.
        eps = self.problem.eps[rows]
        inside = self.wrong(rows, self._end(rows, sign, torch.minimum(eps, radius)))
        high = torch.where(inside, torch.minimum(eps, radius), high)
        for _ in range(BISECTIONS):
            open_ = ((high - low) > FINE * high) & (high > eps)
            k = open_.nonzero().squeeze(1)
            if not len(k):
                break
            middle = (low[k] + high[k]) / 2
            ok = self.wrong(rows[k], self._end(rows[k], sign[k], middle))
            high[k] = torch.where(ok, middle, high[k])
            low[k] = torch.where(ok, low[k], middle)
        return high

    # -- l1 and l2 ------------------------------------------------------------------------------

    def walks(self) -> Tensor:
        """The nearest point of another class found for each row."""
        problem = self.problem
        points, found = self._first()
        points[found] = self._drawn(found.nonzero().squeeze(1), points[found])
        turn = 0
        while True:
            far = torch.where(found, norm(points - self.x, problem.p), 0.0)
            rows = self.working(far)
            if not len(rows):
                break
            turn += 1
            points[rows] = self._stepped(rows, points[rows], turn)
            points[rows] = self._reset(rows, points[rows], turn)
            points[rows] = self._drawn(rows, points[rows])
        ok = found & (norm(points - self.x, problem.p) <= problem.eps)
        return torch.where(ok[:, None], points, self.x).view_as(problem.x)

    def _first(self) -> tuple[Tensor, Tensor]:
        """A point of another class for each row, and whether one was found."""
        problem, d = self.problem, self.x.shape[1]
        points = self.x.clone()
        found = torch.zeros(len(problem), dtype=torch.bool, device=self.x.device)
        for start in range(STARTS):
            rows = (~found).nonzero().squeeze(1)
            if not len(rows):
                break
            u = problem.streams.subset(rows).uniform((d,), f"{self.purpose}/first/{start}").to(self.x)
            if start % 2:  # corners of the box as well as points inside
                u = u.round()
            share = (1.0, 0.5, 0.25, 0.125)[start // 2 % 4]
            there = self.low[rows] + u * (self.high[rows] - self.low[rows])
            there = self.x[rows] + share * (there - self.x[rows])
            ok = self.wrong(rows, there)
            points[rows[ok]], found[rows[ok]] = there[ok], True
        return points, found

    def _drawn(self, rows: Tensor, points: Tensor) -> Tensor:
        """The points drawn to the boundary on the line to their inputs."""
        x, eps = self.x[rows], self.problem.eps[rows]
        length = norm(points - x, self.problem.p)
        # A share that brings the point into its ball ends the search.
        least = (eps * (1 - 1e-6) / length.clamp_min(1e-30)).clamp_max(1.0)
        inside = self.wrong(rows, x + least[:, None] * (points - x))
        low, high = torch.where(inside, least, 0.0), torch.where(inside, least, 1.0)
        for _ in range(BISECTIONS):
            k = ((high - low > FINE * high) & (high * length > eps)).nonzero().squeeze(1)
            if not len(k):
                break
            middle = (low[k] + high[k]) / 2
            ok = self.wrong(rows[k], x[k] + middle[:, None] * (points[k] - x[k]))
            high[k] = torch.where(ok, middle, high[k])
            low[k] = torch.where(ok, low[k], middle)
        return x + high[:, None] * (points - x)

    def _stepped(self, rows: Tensor, points: Tensor, turn: int) -> Tensor:
        """A step along the estimated normal of the boundary, drawn back to it, where that is nearer."""
        problem, p, d = self.problem, self.problem.p, self.x.shape[1]
        count = min(int(PROBES * math.sqrt(turn)), MOST_PROBES)
        far = norm(points - self.x[rows], 2.0)
        noise = problem.streams.subset(rows).normal((count, d), f"{self.purpose}/probe/{turn}").to(self.x)
        noise = noise / noise.norm(dim=2, keepdim=True)
        probes = clip(points[:, None] + 0.1 * far[:, None, None] * noise, problem.box)
        ok = self.wrong(rows.repeat_interleave(count), probes.flatten(0, 1)).view(-1, count)
        weight = ok.to(self.x) - ok.to(self.x).mean(1, keepdim=True)
        fresh = unit((weight[:, :, None] * noise).sum(1), 2.0)
        normal = self.normal[rows] = unit(MEMORY * self.normal[rows] + fresh, 2.0)
        size = far / math.sqrt(turn)
        tries = [lambda k, s=size / 2**n: points[k] + s[k, None] * fresh[k] for n in range(6)]
        best = self._nearer(rows, points, [lambda k, t=t: clip(t(k), problem.box) for t in tries])
        excess = (normal * (self.x[rows] - points)).sum(1)
        planes = [
            lambda k, b=b: (
                self.x[rows[k]] + to_hyperplane(self.x[rows[k]], normal[k], b * excess[k], p, problem.box)
            )
            for b in BEYOND
        ]
        return self._nearer(rows, best, planes)

    def _nearer(self, rows: Tensor, points: Tensor, tries: list[Callable[[Tensor], Tensor]]) -> Tensor:
        """Of each row the first try with another class, drawn to the boundary, where it is nearer."""
        best, length = points.clone(), norm(points - self.x[rows], self.problem.p)
        left = torch.arange(len(rows), device=rows.device)
        for attempt in tries:
            there = attempt(left)
            ok = self.wrong(rows[left], there)
            done = left[ok]
            there = self._drawn(rows[done], there[ok])
            nearer = norm(there - self.x[rows[done]], self.problem.p) < length[done]
            best[done[nearer]] = there[nearer]
            left = left[~ok]
            if not len(left):
                break
        return best

    def _reset(self, rows: Tensor, points: Tensor, turn: int) -> Tensor:
        """Blocks of coordinates set back, or half of the way, where the class remains another."""
        d = self.x.shape[1]
        draws = self.problem.streams.subset(rows).uniform((RESETS, 2), f"{self.purpose}/reset/{turn}")
        draws = draws.to(self.x)
        place = torch.arange(d, device=rows.device)
        for k in range(RESETS):
            size = max(1, int(d * 0.5 ** (1 + (k + turn) % 8)))
            begin = (draws[:, k, 0] * d).long()[:, None]
            block = (place - begin) % d < size
            kept = torch.where(draws[:, k, 1] < 0.5, 0.0, 0.5)[:, None]
            tried = torch.where(block, self.x[rows] + kept * (points - self.x[rows]), points)
            ok = self.wrong(rows, tried)
            points = torch.where(ok[:, None], tried, points)
        return points
