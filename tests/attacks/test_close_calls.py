"""More starts where the margin nearly vanished: on the right inputs, at the right classes."""

import math

import pytest
import torch
from torch import nn

from attacks import Threat, attack
from attacks.close_calls import UNTARGETED, Round, _Search, close_calls
from attacks.geometry import inside
from attacks.judge import contained
from attacks.losses import margin
from attacks.oracle import Oracle
from attacks.problem import Problem
from tests.attacks.models import linear, linear_distance

NORMS = [1.0, 2.0, math.inf]


def uniform(n, *shape, seed=5):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))


def posed(model, x, eps, p, *, classes, box=(0.0, 1.0), ids=None):
    y = model(x).argmax(1)
    return Problem.of(Oracle(model, len(x)), x, y, eps=eps, p=p, box=box, seed=0, ids=ids, classes=classes)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_linear_models_are_decided(p, classes):
    model, x = linear(classes, 20), uniform(16, 20) * 2 - 1
    away = linear_distance(model, x, model(x).argmax(1), p)
    for size, breaks in ((1.1, True), (0.99, False)):
        problem = posed(model, x, away.double() * size, p, classes=classes, box=(-math.inf, math.inf))
        found = inside(x, close_calls(problem), problem.eps, p, problem.box)
        assert ((margin(model(found), problem.y) < 0) == breaks).all()
        assert contained(found, problem.box).all()


def test_effort_goes_to_inputs_that_came_close():
    """Far inputs climb in the first round only; each closer round is left to the closer ones."""
    model, x = linear(5, 20), uniform(12, 20) * 2 - 1
    away = linear_distance(model, x, model(x).argmax(1), math.inf)
    size = torch.tensor([0.3, 0.8, 0.97]).repeat(4)
    problem = posed(model, x, (away * size).double(), math.inf, classes=5, box=(-math.inf, math.inf))
    close_calls(problem, rounds=(Round(8, 5, 0.25), Round(16, 5, 0.1)))
    # Per climb: one gradient at the start and one per step. First four classes and the margin, 25 steps.
    far, near, nearest = 5 * 26, 5 * 26 + 8 * 6, 5 * 26 + 8 * 6 + 16 * 6
    assert problem.oracle.backwards.tolist() == [far, near, nearest] * 4


def test_a_broken_input_is_left_alone():
    model, x = linear(5, 20), uniform(6, 20) * 2 - 1
    away = linear_distance(model, x, model(x).argmax(1), 2.0)
    problem = posed(model, x, away.double() * 2, 2.0, classes=5, box=(-math.inf, math.inf))
    close_calls(problem)
    assert (problem.oracle.backwards <= 5 * 26).all()


class Pocket(nn.Module):
    """The second likeliest class cannot be reached; the fifth is, from one corner of the square."""

    def forward(self, z):
        near = (z - torch.tensor([0.9, 0.9])).abs().sum(1)
        zero = torch.zeros(len(z))
        lure = -0.5 - 0.05 * (z.sum(1) - 1) ** 2
        return torch.stack([zero, lure, zero - 1, zero - 1.1, 0.4 - 3 * near, zero - 3], 1)


def test_classes_are_ranked_by_how_low_they_brought_the_margin():
    model, x = Pocket(), torch.full((1, 2), 0.5)
    problem = posed(model, x, 0.4, math.inf, classes=6)
    search = _Search.begin(problem, 5)
    assert search.likeliest[0, 0] == 1
    everyone = torch.arange(1)
    aims = torch.cat([search.likeliest, torch.full((1, 1), UNTARGETED)], 1)
    search.climb(everyone, aims, 25, "test")
    assert search.aims(everyone, 4)[0, 0] == 4
    assert search.aims(everyone, 7)[0, [3]].item() == UNTARGETED


@pytest.mark.parametrize("p", NORMS)
def test_candidates_do_not_depend_on_the_batch(p):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 5)).eval()
    with torch.no_grad():
        next(iter(model.parameters())).mul_(4)
    x = uniform(9, 6)
    whole = posed(model, x, 0.1, p, classes=5, ids=range(9))
    together = margin(model(close_calls(whole)), whole.y)
    alone = []
    for i in range(9):
        part = posed(model, x[i : i + 1], 0.1, p, classes=5, ids=[i])
        alone.append(margin(model(close_calls(part)), part.y))
    assert torch.allclose(together, torch.cat(alone), atol=1e-3)


def test_standard_ends_with_the_close_calls_in_linf_and_l1():
    model, x = linear(4, 12), uniform(4, 12)
    seen = []
    for p in (math.inf, 2.0, 1.0):
        stages = []
        attack(model, x, threat=Threat(p, 1e-4), preset="standard", seed=0,
               progress=lambda at, stages=stages: stages.append(at.stage))  # fmt: skip
        seen.append(stages)
    last = [[s for s in stages if s in ("nearest", "close-calls")] for stages in seen]
    assert last == [["close-calls"], ["nearest"], ["nearest", "close-calls"]]
