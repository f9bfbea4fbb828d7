"""The flagship network: shapes, time, independence of the batch; and the baselines' shapes."""

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets.baselines import cnn, linear, mlp
from pdenets.convection_diffusion import HORIZON, convection_diffusion

SHAPES = [(2,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 7, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_for_vectors_and_images(shape):
    torch.manual_seed(0)
    model = convection_diffusion(num_classes=5, input_shape=shape).eval()
    x = torch.randn(3, *shape)
    assert model(x).shape == (3, 5)
    assert torch.equal(model(x), model(x, HORIZON - 1))
    assert not torch.allclose(model(x), model(x, HORIZON))
    times = torch.tensor([HORIZON - 1, HORIZON - 0.5, HORIZON])
    one_by_one = torch.cat([model(x[i : i + 1], float(times[i])) for i in range(3)])
    assert torch.allclose(model(x, times), one_by_one, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_does_not_depend_on_the_rest_of_the_batch_even_in_training(shape):
    torch.manual_seed(0)
    model = convection_diffusion(num_classes=4, input_shape=shape).double().train()
    x = torch.randn(6, *shape, dtype=torch.float64)
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-12)


def test_default_vector_network_is_four_tanh_blocks_of_width_64():
    model = convection_diffusion(num_classes=2, input_shape=(2,))
    assert sum(p.numel() for p in model.parameters()) == (3 + 1) * 64 + 4 * 2 * (64 + 1) * 64 + (64 + 1) * 2
    assert sum(isinstance(m, torch.nn.Tanh) for m in model.modules()) == 4


@pytest.mark.parametrize("factory", [linear, mlp, cnn])
def test_baselines_return_logits(factory):
    model = factory(num_classes=7, input_shape=(1, 13, 10)).eval()
    assert model(torch.zeros(2, 1, 13, 10)).shape == (2, 7)


def test_linear_is_one_affine_map_and_mlp_has_the_stated_size():
    assert sum(p.numel() for p in linear(num_classes=3, input_shape=(4,)).parameters()) == 15
    assert sum(p.numel() for p in mlp(num_classes=2, input_shape=(4,), width=8).parameters()) == 40 + 72 + 18


@pytest.mark.parametrize(
    ("factory", "shape"), [(cnn, (5,)), (convection_diffusion, (4, 4)), (convection_diffusion, ())]
)
def test_a_shape_without_a_form_is_refused(factory, shape):
    with pytest.raises(InvalidSetting, match="no form for inputs"):
        factory(num_classes=2, input_shape=shape)
