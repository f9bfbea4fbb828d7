import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from attacks import Threat, attack
from attacks.apgd import apgd_margin
from attacks.judge import Judge
from attacks.losses import cross_entropy
from attacks.oracle import Oracle
from attacks.pgd import pgd
from attacks.problem import Problem
from attacks.square import coordinate
from tests.attacks.models import half_space

X = torch.tensor([[0.3, 0.0]])
Y = torch.tensor([0])


def judged(x_adv, eps=0.5, p=2.0, box=(-1.0, 1.0), model=None):
    if model is None:
        model, _ = half_space(2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[10.0, 0.0], [-10.0, 0.0]]))
    size = None if eps is None else torch.tensor([eps])
    return Judge(model, p=p, box=box).verdicts(X, Y, torch.tensor([x_adv]), size)[0]


def test_a_real_adversarial_is_broken():
    verdict = judged([-0.1, 0.0])
    assert verdict.broken
    assert verdict.prediction == 1
    assert verdict.distance == pytest.approx(0.4, rel=1e-6)
    assert verdict.margin32 == pytest.approx(-2.0, rel=1e-5)
    assert verdict.margin64 == pytest.approx(-2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("x_adv", "eps", "flag"),
    [([-0.3, 0.0], 0.5, "in_ball"), ([-1.1, 0.0], None, "in_box"), ([math.nan, 0.0], None, "in_box")],
)
def test_what_lies_outside_ball_or_box_is_refused(x_adv, eps, flag):
    verdict = judged(x_adv, eps=eps)
    assert not verdict.broken
    assert not getattr(verdict, flag)


def test_an_unchanged_class_and_a_tie_are_refused():
    assert not judged([0.1, 0.0]).broken
    assert not judged([0.0, 0.0]).broken


def test_norm_overshoot_beyond_one_in_a_million_is_refused():
    assert judged([0.3 - 0.5000001, 0.0]).broken  # rounding of the stored input
    assert not judged([0.3 - 0.500005, 0.0]).broken


class Disagreeing(nn.Module):
    """Changes class in single precision only: the scale of the bump is below double's resolution of 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        flipped = 1.0 if x.dtype == torch.float32 else -1.0
        return torch.stack([-flipped * torch.ones(len(x)), flipped * torch.ones(len(x))], 1).to(x)


def test_a_flip_in_one_precision_only_is_refused():
    verdict = judged([0.1, 0.0], model=Disagreeing())
    assert verdict.margin32 < 0 < verdict.margin64
    assert not verdict.broken


class BatchDependent(nn.Module):
    """Answers differently alone than in company."""

    def forward(self, x):
        sign = -1.0 if len(x) > 1 else 1.0
        return torch.tensor([[sign, -sign]], dtype=x.dtype).expand(len(x), 2)


def test_a_flip_within_the_batch_only_is_refused():
    judge = Judge(BatchDependent(), p=2.0, box=(-1.0, 1.0))
    verdicts = judge.verdicts(X.repeat(2, 1), Y.repeat(2), X.repeat(2, 1), None)
    assert not any(v.broken for v in verdicts)


def test_a_plain_callable_is_judged_in_single_precision():
    verdict = judged([-0.1, 0.0], model=lambda x: torch.stack([x[:, 0], -x[:, 0]], 1))
    assert verdict.broken
    assert verdict.margin64 is None


class Spoilt(nn.Module):
    """A linear classifier; where x[0] < 0 one of its scores is ``value``."""

    def __init__(self, column, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[10.0, 0.0], [-10.0, 0.0], [0.0, 0.0]]))
        self.column, self.value = column, value

    def forward(self, x):
        scores = x @ self.weight.T
        spoilt = scores.clone()
        spoilt[:, self.column] = self.value
        return torch.where(x[:, :1] < 0, spoilt, scores)


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_scores_that_are_not_finite_are_no_class_and_break_nothing(column, value):
    verdict = judged([-0.1, 0.0], model=Spoilt(column, value))
    assert not verdict.broken
    assert (verdict.prediction, verdict.margin32, verdict.margin64) == (None, math.inf, math.inf)
    assert Spoilt(column, value)(torch.tensor([[-0.1, 0.0]])).isfinite().sum() == 2


@pytest.mark.parametrize(("preset", "eps", "value"), [("quick", 0.5, -math.inf), ("minimal", None, math.nan)])
def test_no_attack_breaks_an_input_by_scores_that_are_not_finite(preset, eps, value):
    x = torch.tensor([[0.3, 0.0], [0.2, 0.0]])
    threat = Threat("2", eps=eps, bounds=(-1.0, 1.0))
    run = attack(Spoilt(0, value), x, torch.tensor([0, 0]), threat=threat, preset=preset, seed=1)
    assert [str(o.status) for o in run] == ["survived", "survived"], "no search takes it for a find"
    assert json.loads(json.dumps([o.to_json() for o in run], allow_nan=False))


def pgd_climb(problem):
    return pgd(problem, loss=cross_entropy, steps=20, restarts=4)


class HalfSpoilt(nn.Module):
    """Gives no class on one side of the input and another class, further away, on the other side."""

    def forward(self, x):
        first = x[:, 0]
        scores = torch.stack([0.2 - first, first - 0.2], 1)
        return torch.where((first < -0.05)[:, None], torch.full_like(scores, -math.inf), scores)


@pytest.mark.parametrize("search", [pgd_climb, apgd_margin, partial(coordinate, queries=40)])
def test_a_search_goes_past_scores_that_are_not_finite_to_a_real_break(search):
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    problem = Problem.of(Oracle(HalfSpoilt(), 1), x, y, eps=0.5, p=2.0, box=(-1.0, 1.0), seed=1, classes=2)
    found = search(problem)
    (verdict,) = Judge(HalfSpoilt(), p=2.0, box=(-1.0, 1.0)).verdicts(x, y, found, torch.tensor([0.5]))
    assert verdict.broken
    assert verdict.prediction == 1


class Placed(nn.Module):
    """Answers by where its input lies in memory, as unaligned kernels do in the last bits."""

    def forward(self, x):
        sign = -1.0 if x.data_ptr() % 64 == 0 else 1.0
        return torch.tensor([[sign, -sign]], dtype=x.dtype).repeat(len(x), 1)


def test_the_place_of_a_row_in_memory_decides_nothing():
    judge = Judge(Placed(), p=2.0, box=(-1.0, 1.0))
    found = []
    for offset in range(8):
        rows = torch.zeros(3 * 9 + offset)[offset:].view(3, 9)
        found += [v.broken for v in judge.verdicts(rows, torch.zeros(3).long(), rows, None)]
    assert len(set(found)) == 1


def test_a_break_of_a_nearly_flat_model_is_one_wherever_it_is_evaluated_again():
    rng = torch.Generator().manual_seed(3)
    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Linear(9, 3).eval()
        with torch.no_grad():
            model.weight *= 3e-6
            model.bias.fill_(3.0)
        x = torch.rand(6, 9, generator=rng)
        y = model(x).argmax(1)
        threat = Threat("2", eps=0.5, bounds=(0.0, 1.0))
        for o in attack(model, x, y, threat=threat, preset="quick", seed=1):
            for offset in range(8 * o.broken):
                row = torch.empty(9 + offset)[offset:].copy_(torch.as_tensor(o.adversarial)).view(1, 9)
                assert int(model(row).argmax()) != o.target
