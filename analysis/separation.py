"""Which test rows were held out: those that do not occur among the training rows, nor nearly do.

Ids and order say nothing about that: rows are compared by their values. Equal rows have equal digests. Near
rows are found exactly, at a cost that 60,000 by 10,000 images allow: distances do not grow when both rows
are projected onto orthonormal directions, so a tree over a dozen principal components proposes all
pairs that may be near, and these few are measured in full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from certify.calls import checked
from certify.data.dataset import Dataset

#: Rows are near where their distance is at most this share of what is usual between nearest training rows;
#: in few dimensions less, so that honest rows come so near about once in a thousand.
NEAR, CHANCE = 1 / 10, 1e-3
#: Training rows whose nearest other row is measured for that, and directions of the projection.
_MEASURED, _DIRECTIONS = 100, 12
#: Queries of the tree at a time, and candidate pairs that are measured at a time.
_QUERIES, _PAIRS = 1000, 4096
#: Candidates per row from which on all products of rows are cheaper than the tree.
_CROWDED = 300


@dataclass(frozen=True)
class HeldOut:
    """The rows of a data set that were held out of training, as ``data``, and why the others were not.

    ``of`` rows were compared; ``equal`` of them occur among the training rows, ``near`` more lie within l2
    ``distance`` of one. ``repeated`` (len(data),): the row equals, or is near, an earlier one of ``data``.
    """

    data: Dataset
    of: int
    equal: int
    near: int
    distance: float
    repeated: Tensor

    def __len__(self) -> int:
        return len(self.data)

    @property
    def repeats(self) -> int:
        """How many of the held-out rows repeat an earlier one."""
        return int(self.repeated.sum())

    def says(self) -> str:
        """What was found, in a sentence; empty where every row was held out and none repeats another."""
        parts = []
        if self.equal:
            parts.append(f"{self.equal} of {self.of} rows occur among the training rows")
        if self.near:
            parts.append(f"{self.near} of {self.of} lie within l2 distance {self.distance:.3g} of one")
        if parts and len(self):
            parts[-1] += " and are left out"
        if self.repeats:
            parts.append(f"{self.repeats} of the {len(self)} held-out rows repeat another")
        return "; ".join(parts)

    def to_json(self) -> dict[str, float | int | str]:
        """Plain JSON types."""
        return {
            "rows": self.of, "held_out": len(self), "equal": self.equal, "near": self.near,
            "distance": self.distance, "repeats": self.repeats, "says": self.says(),
        }  # fmt: skip


@checked
def held_out(train: Dataset, test: Dataset) -> HeldOut:
    """The rows of ``test`` that neither occur among those of ``train`` nor are near one, by their values.

    Near: within an l2 distance of min(1/10, 1000^(-1/d)) times the median distance between a training row (of
    d numbers) and its nearest different one, measured on at most 100 of them. That is far below what
    tells honest rows apart, and above another rounding, one changed pixel or faint noise; shifted, turned or
    cropped copies are not found. Inputs of another size are never the same.
    """
    reference, rows = _flat(train.x), _flat(test.x)
    if reference.shape[1] != rows.shape[1]:
        return HeldOut(test, len(rows), 0, 0, 0.0, _repeated(rows, 0.0))
    known, digests = _digests(reference), _digests(rows)
    seen = set(known)
    equal = np.array([d in seen for d in digests])
    different = reference if len(seen) == len(known) else reference[_firsts(known)]
    distance = near_distance(different, train)
    near = np.zeros(len(rows), dtype=bool)
    near[~equal] = _within(different, rows[~equal], distance)
    kept = ~equal & ~near
    at = torch.from_numpy(kept)
    data = replace(test, x=test.x[at], y=test.y[at], ids=test.ids[at])
    repeated = _repeated(rows[kept], distance)
    return HeldOut(data, len(rows), int(equal.sum()), int(near.sum()), distance, repeated)


@checked
def same_points(train: Dataset, test: Dataset) -> bool:
    """Whether nothing of ``test`` was held out: every row occurs among those of ``train``, or is near one.

    In any order and under any ids. A file is one split under every name, so that both can be the same points.
    """
    return len(held_out(train, test)) == 0


def near_distance(rows: np.ndarray, data: Dataset) -> float:
    """Within which distance of one of the different ``rows`` (n, d) another row is near it.

    Of a single row, a step of the declared lattice, or 1/255 of the declared range.
    """
    if len(rows) < 2:
        return (data.grid or (data.high - data.low) / 255) * (1 + 1e-4)
    picked = np.linspace(0, len(rows) - 1, min(_MEASURED, len(rows))).round().astype(int)
    origin = rows[0].astype(np.float64)  # and double precision: distances come from products of the rows
    some, nearest = torch.from_numpy(rows[picked] - origin), torch.full((len(picked),), torch.inf).double()
    for start in range(0, len(rows), 4096):
        apart = torch.cdist(some, torch.from_numpy(rows[start : start + 4096] - origin))
        own = torch.from_numpy(picked)[:, None] == torch.arange(start, start + apart.shape[1])
        nearest = torch.minimum(nearest, apart.masked_fill(own, torch.inf).amin(1))
    return float(nearest.median()) * min(NEAR, CHANCE ** (1 / rows.shape[1]))


def _within(reference: np.ndarray, rows: np.ndarray, distance: float) -> np.ndarray:
    """(rows,) whether some reference row lies within ``distance``."""
    found = np.zeros(len(rows), dtype=bool)
    for i, _ in _pairs(reference, rows, distance):
        found[i] = True
    return found


def _repeated(rows: np.ndarray, distance: float) -> Tensor:
    """(rows,) whether the row equals, or is within ``distance`` of, an earlier one."""
    found = np.ones(len(rows), dtype=bool)
    found[_firsts(_digests(rows))] = False
    if distance > 0 and len(rows):
        for i, j in _pairs(rows, rows, distance):
            found[max(i, j)] |= i != j
    return torch.from_numpy(found)


def _pairs(reference: np.ndarray, rows: np.ndarray, distance: float):
    """(row, reference row) of every pair within ``distance``; one pair per row at least, where it has any."""
    from scipy.spatial import KDTree  # takes as long to import as half of torch

    if not len(rows) or not len(reference):
        return
    directions = _principal(reference)
    there, here = (reference @ directions).astype(np.float64), (rows @ directions).astype(np.float64)
    reach = distance * (1 + 1e-6) + 1e-5 * max(1.0, float(np.abs(there).max()))  # and single precision
    tree = KDTree(there)
    some = here[np.linspace(0, len(here) - 1, min(64, len(here))).round().astype(int)]
    crowded = float(np.mean(tree.query_ball_point(some, reach, return_length=True))) > _CROWDED
    for start in range(0, len(rows), _QUERIES):
        if crowded:
            i, j = _close_by_products(reference, rows[start : start + _QUERIES], distance)
        else:
            lists = tree.query_ball_point(here[start : start + _QUERIES], reach)
            i = np.repeat(np.arange(len(lists)), [len(found) for found in lists])
            j = np.array([k for found in lists for k in found], dtype=np.int64)
        for first in range(0, len(i), _PAIRS):
            a, b = i[first : first + _PAIRS] + start, j[first : first + _PAIRS]
            apart = np.linalg.norm((rows[a] - reference[b]).astype(np.float64), axis=1)
            yield from zip(a[apart <= distance].tolist(), b[apart <= distance].tolist(), strict=True)


def _close_by_products(
    reference: np.ndarray, rows: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """(row, reference row) of pairs that may be near, from the products of all rows."""
    a, b = rows - reference[0], reference - reference[0]
    left, right = (a**2).sum(1, dtype=np.float64), (b**2).sum(1, dtype=np.float64)
    limit = distance**2 * 1.001 + 1e-5 * max(left.max(), right.max())
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(b), 8192):
        part = slice(start, start + 8192)
        close = left[:, None] + right[part] - 2.0 * (a @ b[part].T) <= limit
        found.append(np.argwhere(close) + np.array([0, start]))
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1]


def _principal(rows: np.ndarray) -> np.ndarray:
    """(d, k) orthonormal directions in which the rows differ most; all of them where there are few."""
    size = rows.shape[1]
    if size <= _DIRECTIONS:
        return np.eye(size, dtype=np.float32)
    some = rows[np.linspace(0, len(rows) - 1, min(500, len(rows))).round().astype(int)].astype(np.float64)
    _, _, directions = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
    return directions[:_DIRECTIONS].T.astype(np.float32)


def _flat(x: Tensor) -> np.ndarray:
    """(n, d) float32."""
    return x.detach().cpu().to(torch.float32).flatten(1).numpy()


def _digests(rows: np.ndarray) -> list[bytes]:
    """Equal rows have equal digests: -0.0 is taken as 0.0."""
    zero = np.float32(0)
    return [hashlib.blake2b((row + zero).tobytes(), digest_size=16).digest() for row in rows]


def _firsts(digests: Sequence[bytes]) -> list[int]:
    """Positions of the first row of each kind."""
    return list({digest: i for i, digest in reversed(list(enumerate(digests)))}.values())
