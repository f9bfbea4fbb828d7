"""Certificates that contradict each other: two balls that meet, with different classes.

Each certificate says that the smoothed class is constant on its ball. Where two balls share a
point and name different classes, one of the two is false, whatever the truth: a run that holds such
a pair is no evidence. Needs no model and no sampling. Chance alone makes one with probability
at most alpha per input; rounding in the noise (see ``certify.noise.lattice``) makes them in plenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certify.errors import EvidenceFails, InvalidInput
from certify.records import Record

_ROWS = 1024
#: Relative to the inputs' size: cdist works with inner products, candidates are measured again.
_SCREEN = 1e-6
_MARGIN = 1e-12


@dataclass(frozen=True)
class Overlap:
    """Inputs ``first`` and ``second`` (record indices), closer than ``reach``, the sum of their radii."""

    first: int
    second: int
    labels: tuple[int, int]
    distance: float
    reach: float


def overlapping_balls(x: Tensor, records: Sequence[Record], *, norm: str = "2") -> list[Overlap]:
    """Every pair of certified records with different labels whose balls meet.

    ``x`` (n, *shape) holds the inputs in the order of ``records``; ``norm`` is the run's ("1", "2"
    or "inf"). Distances are float64; a pair that only touches within rounding is not reported.
    """
    if len(x) != len(records):
        raise InvalidInput(
            f"{len(x)} inputs do not belong to {len(records)} records",
            why="overlaps are looked for between the certified inputs themselves",
            remedy="pass one input per record, in the order of the records",
        )
    keep = [i for i, r in enumerate(records) if r.certified and r.radius > 0]
    chosen = [records[i] for i in keep]
    points = x[torch.tensor(keep, dtype=torch.long)].detach().cpu().double().flatten(1)
    radii = torch.tensor([r.radius for r in chosen], dtype=torch.float64)
    labels = torch.tensor([-1 if r.label is None else r.label for r in chosen])
    slack = _SCREEN * (1 + float(points.norm(dim=1).max())) if keep else 0.0
    found = []
    for low in range(0, len(keep), _ROWS):
        rows = slice(low, low + _ROWS)
        reach = radii[rows, None] + radii[None]
        suspicious = torch.cdist(points[rows], points, p=float(norm)) < reach + slack
        suspicious &= labels[rows, None] != labels[None]
        for i, j in suspicious.nonzero().tolist():
            i += low
            distance = float(torch.linalg.vector_norm(points[i] - points[j], ord=float(norm)))
            total = float(radii[i] + radii[j])
            if i < j and distance * (1 + _MARGIN) < total:
                pair = (int(labels[i]), int(labels[j]))
                found.append(Overlap(chosen[i].index, chosen[j].index, pair, distance, total))
    return found


def refuse_overlaps(x: Tensor, records: Sequence[Record], *, norm: str = "2") -> None:
    """Raise EvidenceFails where certificates contradict each other."""
    found = overlapping_balls(x, records, norm=norm)
    if not found:
        return
    o = found[0]
    raise EvidenceFails(
        f"the run is invalid: {len(found)} pairs of certificates contradict each other",
        why=f"inputs {o.first} and {o.second} lie {o.distance:.6g} apart, their balls reach {o.reach:.6g}, "
        f"and they are certified as classes {o.labels[0]} and {o.labels[1]}",
        remedy="use noise='lattice'; a base classifier can read rounding in floating-point noise",
    )
