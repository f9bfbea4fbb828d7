"""Models without gradients: said plainly, and attacked by their scores alone."""

import numpy as np
import pytest
import torch

import certify
from attacks import Budget, Threat, attack
from attacks.outcomes import AttackStatus
from certify.errors import InvalidModel, InvalidSetting

DIRECTION = np.array([[1.0, -1.0], [0.5, -0.5]], dtype=np.float32)
X = torch.tensor([[0.6, 0.5], [0.9, 0.9], [0.2, 0.1]])
Y = torch.tensor([0, 0, 0])


def outside_torch(x: torch.Tensor) -> torch.Tensor:
    """A linear model in numpy: class 0 where (x - 1/2) . (1, 1/2) > 0."""
    return torch.from_numpy((x.detach().numpy() - 0.5) @ DIRECTION)


@pytest.mark.parametrize("preset", ["quick", "standard", "thorough", "minimal"])
def test_gradient_attacks_say_that_there_are_none(preset):
    threat = Threat(norm=2, eps=None if preset == "minimal" else 0.2)
    with pytest.raises(InvalidModel, match="black-box"):
        attack(outside_torch, X, Y, threat=threat, preset=preset)
    with torch.no_grad(), pytest.raises(InvalidModel, match="no gradients"):
        attack(outside_torch, X, Y, threat=threat, preset=preset)


def test_the_smoothed_attack_says_so_too():
    g = certify.Smoothed(outside_torch, 0.25, num_classes=2, grid=2.0**-10)
    with pytest.raises(InvalidModel, match="--base"):
        attack(g, g.to_grid(X), Y, threat=Threat(norm=2), preset="smoothed")


def test_the_search_by_scores_breaks_what_can_be_broken():
    # The distances to the boundary are .1, .6 and (misclassified) 0, over the normal's length 1.118.
    found = attack(
        outside_torch, X, Y, threat=Threat(norm=2, eps=0.25), preset="black-box", budget=Budget(batch_size=3)
    )
    assert [o.status for o in found] == [AttackStatus.BROKEN, AttackStatus.SURVIVED, AttackStatus.CLEAN_ERROR]
    assert found[0].backwards == 0
    assert found.flags["square_improved"] == 0, "no gradient attack ran before that it could improve on"


class SinglePrecision(torch.nn.Module):
    """As ONNX models are: no weights that could be converted, and other types refused."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32:
            raise InvalidSetting("an ONNX model cannot take it", why="its types are fixed", remedy="fp32")
        return outside_torch(x)


def test_a_model_of_one_precision_is_judged_in_it():
    (found,) = attack(
        SinglePrecision().eval(), X[:1], Y[:1], threat=Threat(norm=2, eps=0.25), preset="black-box"
    )
    assert found.status == AttackStatus.BROKEN
    assert found.margin64 is None


def test_it_needs_a_size():
    with pytest.raises(InvalidSetting, match="perturbation size"):
        attack(outside_torch, X, Y, threat=Threat(norm=2), preset="black-box")
