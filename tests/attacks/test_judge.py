import math

import pytest
import torch
from torch import nn

from attacks.judge import Judge
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
