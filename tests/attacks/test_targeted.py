"""Targeted attacks, against the exact distance to every class of a linear model."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, nnls
from torch import nn

from attacks import AttackStatus, Threat, attack
from certify.errors import InvalidInput, InvalidSetting
from tests.attacks.models import linear


def exact(model: nn.Linear, x, wanted: int, p: float, free=None) -> float:
    """The least lp norm of a move of the ``free`` coordinates to where ``wanted`` scores highest, no box.

    l2: the dual of the least-distance programme (Lawson and Hanson 1974, section 23.4); else linear.
    """
    w, b = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    a, gap = np.delete(w - w[wanted], wanted, 0), np.delete(b - b[wanted], wanted)
    limit = -(gap + a @ x.double().numpy())
    a = a if free is None else a[:, free]
    d = a.shape[1]
    if p == 2:
        side, goal = np.vstack([-a.T, -limit[None]]), np.r_[np.zeros(d), 1.0]
        rest = side @ nnls(side, goal)[0] - goal
        return float(np.linalg.norm(rest[:-1] / rest[-1]))
    if p == 1:
        return float(linprog(np.ones(2 * d), np.hstack([a, -a]), limit).fun)
    eye, one = np.eye(d), np.ones((d, 1))
    upper = np.vstack([np.c_[a, np.zeros(len(a))], np.c_[eye, -one], np.c_[-eye, -one]])
    ends = np.r_[limit, np.zeros(2 * d)]
    return float(linprog(np.r_[np.zeros(d), 1.0], upper, ends, bounds=[(None, None)] * (d + 1)).fun)


def problem(n=6, classes=5, dim=12, seed=0):
    model = linear(classes, dim, seed=seed)
    x = torch.randn((n, dim), generator=torch.Generator().manual_seed(seed + 1))
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_all_targets_reach_the_exact_distance_to_each_class(p):
    model, x, y = problem()
    run = attack(model, x, y, threat=Threat(p, bounds=None), preset="all-targets")
    for o in run:
        targets = {int(k): far for k, far in o.details["targets"].items()}
        assert set(targets) == set(range(5)) - {int(y[o.index])}
        for wanted, far in targets.items():
            assert 0.9999 <= far / exact(model, x[o.index], wanted, p) <= 1.01
        assert o.broken
        assert o.distance == min(targets.values()) == targets[o.prediction]
        assert o.details["wanted"] == o.prediction
        assert o.preset == "all-targets"


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_one_target_for_each_with_a_mask(p):
    model, x, y = problem(seed=3)
    wanted = (y + 2) % 5
    mask = torch.tensor([True] * 7 + [False] * 5)
    run = attack(model, x, y, threat=Threat(p, bounds=None, mask=mask), preset="minimal", target=wanted)
    for o, t in zip(run, wanted.tolist(), strict=True):
        assert o.prediction == t == o.details["wanted"]
        assert o.target == int(y[o.index])
        assert 0.9999 <= o.distance / exact(model, x[o.index], t, p, mask.numpy()) <= 1.01
        assert (o.adversarial[7:] == x[o.index, 7:].numpy()).all()


@pytest.mark.parametrize(("preset", "room"), [("quick", 1.1), ("standard", 1.02), ("black-box", 1.5)])
def test_inside_a_ball_only_the_wanted_class_counts(preset, room):
    model, x, y = problem(n=3)
    wanted = torch.tensor([max(set(range(5)) - {int(k)}, key=lambda t, i=i: exact(model, x[i], t, 2))
                           for i, k in enumerate(y)])  # fmt: skip
    far = [exact(model, x[i], int(t), 2) for i, t in enumerate(wanted)]
    for i in range(3):
        one = (model, x[i : i + 1], y[i : i + 1])
        short = attack(*one, threat=Threat(2, 0.97 * far[i], None), preset=preset, target=wanted[i : i + 1])
        assert not short[0].broken, "another class lies inside the ball, the wanted one does not"
        assert attack(*one, threat=Threat(2, 0.97 * far[i], None), preset="quick")[0].broken
        wide = attack(*one, threat=Threat(2, room * far[i], None), preset=preset, target=int(wanted[i]))
        assert wide[0].broken
        assert wide[0].prediction == int(wanted[i])
        assert wide[0].margin64 < 0


def test_a_function_is_judged_by_the_target_too():
    model, x, y = problem(n=4)
    wanted = (y + 1) % 5
    run = attack(model, x, y, threat=Threat(2, bounds=None), preset="minimal", target=wanted)
    points = torch.stack([torch.from_numpy(o.adversarial) for o in run])
    again = attack(model, x, y, threat=Threat(2, bounds=None), target=wanted, with_=lambda x, y: points)
    assert again.counts()["broken"] == 4
    other = attack(model, x, y, threat=Threat(2, bounds=None), target=(y + 2) % 5, with_=lambda x, y: points)
    assert other.counts()["broken"] == 0


def test_what_is_misclassified_stays_a_clean_error():
    model, x, y = problem(n=2)
    run = attack(model, x, (y + 1) % 5, threat=Threat(2, 0.1, None), preset="quick", target=(y + 2) % 5)
    assert [o.status for o in run] == [AttackStatus.CLEAN_ERROR] * 2


@pytest.mark.parametrize("target", [5, -1, 1.0, "cat", torch.tensor([1, 2]), True, [[1]]])
def test_what_names_no_class_is_refused(target):
    model, x, y = problem(n=3)
    with pytest.raises(InvalidSetting, match="names no classes"):
        attack(model, x, y, threat=Threat(2, 0.1, None), target=target)


def test_targets_that_cannot_be_reached_for_are_refused():
    model, x, y = problem(n=3)
    with pytest.raises(InvalidInput, match="already"):
        attack(model, x, y, threat=Threat(2, 0.1, None), target=int(y[1]))
    with pytest.raises(InvalidSetting, match="all-targets"):
        attack(model, x, y, threat=Threat(2, bounds=None), preset="all-targets", target=1)
