"""Attacks by labels alone: as good as those by scores at a somewhat larger distance."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from attacks import Budget, Threat, attack
from attacks.geometry import distance
from attacks.labels import by_labels
from attacks.oracle import Oracle
from attacks.outcomes import AttackStatus
from attacks.problem import Problem

DATA, CLASSES = load_digits(return_X_y=True)
X = torch.tensor(DATA / 16, dtype=torch.float32)
Y = torch.tensor(CLASSES)
INPUTS = slice(1200, 1210)


def hard(scores):
    """The model that gives its class and nothing else."""
    return lambda z: nn.functional.one_hot(scores(z).argmax(1), 10).float()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(X[:1200] + 0.1 * torch.randn(1200, 64)), Y[:1200]).backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def tree():
    tree = DecisionTreeClassifier(random_state=0, min_samples_leaf=3).fit(X[:1200].numpy(), Y[:1200].numpy())
    return lambda z: torch.tensor(tree.predict_proba(z.detach().numpy()), dtype=torch.float32) * 8


def broken(model, norm, eps):
    run = attack(model, X[INPUTS], Y[INPUTS], threat=Threat(norm, eps), preset="black-box", seed=0)
    return np.array([o.status is AttackStatus.BROKEN for o in run]), run


@pytest.mark.parametrize(("norm", "eps"), [("inf", 0.09), ("2", 0.5), ("1", 1.5)])
def test_labels_break_what_scores_break_at_half_as_much_again(network, norm, eps):
    by_scores, _ = broken(network, norm, eps)
    found, _ = broken(hard(network), norm, 1.5 * eps)
    assert by_scores.sum() >= 2
    assert (by_scores & found).sum() >= 0.9 * by_scores.sum()


@pytest.mark.parametrize(("norm", "eps"), [("inf", 0.1), ("2", 0.3)])
def test_a_tree_breaks_without_a_slope(tree, norm, eps):
    by_scores, _ = broken(tree, norm, eps)
    found, _ = broken(hard(tree), norm, 1.5 * eps)
    assert by_scores.sum() >= 2
    assert (by_scores & found).sum() >= 0.9 * by_scores.sum()


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_the_nearest_point_of_a_plane_is_found_from_labels(p):
    """Sum of the first coordinates over a threshold: the distance is known in every norm."""
    w = torch.zeros(20)
    w[:4] = torch.tensor([1.0, 2.0, -1.0, 0.5])

    def model(z):
        side = (z.flatten(1) @ w > 2.2).long()
        return nn.functional.one_hot(side, 2).float()

    x = torch.full((3, 20), 0.5)
    gap = 2.2 - 0.5 * float(w.sum())
    exact = gap / {1.0: 2.0, 2.0: float(w.norm()), math.inf: float(w.abs().sum())}[p]
    oracle = Oracle(model, 3)
    oracle.plateau[:] = True
    problem = Problem.of(
        oracle, x, torch.zeros(3, dtype=torch.long), eps=1.1 * exact, p=p, box=(-9.0, 9.0), seed=0, classes=2
    )
    points = by_labels(problem, queries=6000)
    assert (model(points).argmax(1) == 1).all()
    assert (distance(x, points, p) <= 1.1 * exact * (1 + 1e-6)).all()
    assert (oracle.forwards <= 6000 + 400).all()


def test_inputs_whose_scores_move_are_left_alone(network):
    oracle = Oracle(network, 10)
    problem = Problem.of(oracle, X[INPUTS], Y[INPUTS], eps=0.5, p=2.0, box=(0.0, 1.0), seed=0, classes=10)
    assert torch.equal(by_labels(problem), X[INPUTS])
    assert (oracle.forwards == 0).all()


def test_what_is_found_does_not_depend_on_the_batch(network):
    threat, model = Threat(2, 1.2), hard(network)
    x, y = X[1200:1205], Y[1200:1205]
    together = attack(model, x, y, threat=threat, preset="black-box")
    parts = attack(model, x, y, threat=threat, preset="black-box", budget=Budget(batch_size=2))
    assert together.counts()["broken"] >= 3
    assert [o.status for o in together] == [o.status for o in parts]


def test_a_constant_model_survives_with_a_flag():
    run = attack(
        lambda z: nn.functional.one_hot(torch.zeros(len(z), dtype=torch.long), 3).float(), X[:2],
        threat=Threat("inf", 0.1), preset="black-box",
    )  # fmt: skip
    assert run.flags["plateau"] == run.counts()["survived"] == 2


def test_unbounded_inputs_and_masks_are_searched_too(network):
    mask = torch.zeros(64, dtype=torch.bool)
    mask[16:48] = True
    run = attack(
        hard(network), X[INPUTS], Y[INPUTS], threat=Threat(2, 1.5, mask=mask, bounds=None), preset="black-box"
    )
    hits = [o for o in run if o.status is AttackStatus.BROKEN]
    assert hits
