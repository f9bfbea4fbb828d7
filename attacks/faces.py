"""The nearest point of one wanted class: where several boundaries meet.

The region of a class is bounded by one face for every other class. Towards a class that is not the likeliest
one the nearest point often lies on several faces at once. Walking along one face at a time stops short of it;
a small programme with all faces does not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from attacks.problem import Problem

#: Inputs with more coordinates are left to the other searches: the programmes grow with them.
MOST = 4096
#: Faces are passed by this share of what the largest gap at the input is, so that rounding cannot undo it.
_BEYOND = 1e-4


def faces(problem: Problem, point: Tensor, *, rounds: int = 3) -> Tensor:
    """``point`` (rows, *shape) moved to where the linearised faces of the wanted class are nearest.

    Each of the ``rounds`` takes the tangents of all faces at the point reached and solves for the nearest
    point of their intersection within the box. Rows without a solution stay. Needs a targeted problem.
    """
    for _ in range(rounds):
        gaps, slopes = _tangents(problem, point)
        moved = [_solved(problem, point, k, gaps[k], slopes[k]) for k in range(len(problem))]
        point = torch.stack(moved) if moved else point
    return point


def _tangents(problem: Problem, point: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Gaps (rows, classes) of every score to the wanted one, and their slopes (rows, classes, d)."""
    oracle, wanted = problem.oracle, problem.judged
    oracle.focus(problem.samples)
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        scores = oracle.own(leaf)
        gaps = scores - scores.gather(1, wanted[:, None])
        slopes = [
            torch.autograd.grad(gaps[:, c].sum(), leaf, retain_graph=True)[0].flatten(1)
            for c in range(scores.shape[1])
        ]
    oracle.focus(None)
    both = gaps.detach(), torch.stack(slopes, 1)
    return both[0].double().cpu().numpy(), both[1].nan_to_num().double().cpu().numpy()


def _solved(problem: Problem, point: Tensor, k: int, gaps: np.ndarray, slopes: np.ndarray) -> Tensor:
    other = np.arange(len(gaps)) != int(problem.judged[k])
    start = problem.x[k].flatten().double().cpu().numpy()
    here = point[k].flatten().double().cpu().numpy() - start
    if not np.isfinite(gaps).all():
        return point[k]
    rows = slopes[other]
    limit = rows @ here - gaps[other]
    limit = limit - _BEYOND * np.abs(limit).max()
    low, high = (_side(bound, start) for bound in problem.box)
    move = _programme(rows, limit, low - start, high - start, problem.p)
    if move is None:
        return point[k]
    found = torch.from_numpy(start + move).to(point).view(point.shape[1:])
    low, high = (torch.from_numpy(side).to(point).view(point.shape[1:]) for side in (low, high))
    return torch.maximum(torch.minimum(found, high), low)


def _side(bound: Tensor | float, like: np.ndarray) -> np.ndarray:
    flat = bound.flatten().double().cpu().numpy() if isinstance(bound, Tensor) else np.asarray(bound)
    return np.broadcast_to(flat, like.shape).astype(np.float64)


def _programme(
    rows: np.ndarray, limit: np.ndarray, low: np.ndarray, high: np.ndarray, p: float
) -> np.ndarray | None:
    """The move (d,) of the least lp norm in [low, high] with rows @ move <= limit; None where there is none.

    l2 leaves the sides of the box to the caller: the least-distance programme of Lawson and Hanson 1974,
    "Solving least squares problems", section 23.4, solved in its dual, one number for each face.
    """
    from scipy import sparse
    from scipy.optimize import linprog, nnls

    d = len(low)
    if p == 2:
        unit = max(float(np.abs(limit).max()), 1e-300)
        side, goal = np.vstack([-rows.T, -limit[None] / unit]), np.r_[np.zeros(d), 1.0]
        rest = side @ nnls(side, goal)[0] - goal
        return None if rest[-1] > -1e-12 else -rest[:-1] / rest[-1] * unit
    if math.isinf(p):
        eye, one = sparse.eye(d), sparse.csr_matrix(np.ones((d, 1)))
        upper = sparse.vstack(
            [sparse.csr_matrix(np.c_[rows, np.zeros(len(rows))]), sparse.hstack([eye, -one]),
             sparse.hstack([-eye, -one])]
        )  # fmt: skip
        cost, ends = np.r_[np.zeros(d), 1.0], np.r_[limit, np.zeros(2 * d)]
        bounds = np.vstack([np.column_stack([low, high]), [0.0, np.inf]])
    else:
        upper, ends, cost = np.hstack([rows, -rows]), limit, np.ones(2 * d)
        bounds = np.column_stack([np.zeros(2 * d), np.r_[high, -low].clip(0.0)])
    found = linprog(cost, A_ub=upper, b_ub=ends, bounds=bounds, method="highs")
    if found.x is None or found.status != 0:
        return None
    return found.x[:d] if math.isinf(p) else found.x[:d] - found.x[d:]
