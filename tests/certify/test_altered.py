"""A module that computes something else than its class says is recognised, whatever was done to it."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from certify.altered import altered


class Own(nn.ReLU):
    def forward(self, x):
        return 10 * super().forward(x)


def method_on_instance(module, name):
    setattr(module, name, lambda *a, **k: a[0])
    return module


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.register_forward_hook(lambda module, args, out: 10 * out),
        lambda m: m.register_forward_pre_hook(lambda module, args: (10 * args[0],)),
        lambda m: m.register_forward_pre_hook(lambda module, a, k: (a, k), with_kwargs=True),
        lambda m: method_on_instance(m, "forward"),
        lambda m: method_on_instance(m, "_conv_forward"),
        lambda m: method_on_instance(m, "_call_impl"),
        lambda m: setattr(m, "_compiled_call_impl", m._call_impl),  # what m.compile() leaves behind
    ],
    ids=["hook", "pre-hook", "keyword hook", "forward", "helper of forward", "call", "compiled"],
)
def test_a_module_that_was_changed_is_named(change):
    conv = nn.Conv2d(1, 1, 3)
    assert altered(conv) is None
    change(conv)
    assert altered(conv)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_and_spectral_norm_are_hooks_and_the_new_ones_are_not():
    assert altered(weight_norm(nn.Linear(2, 2)))
    assert altered(spectral_norm(nn.Linear(2, 2)))
    assert altered(parametrizations.weight_norm(nn.Linear(2, 2))) is None


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_a_hook_on_all_modules_counts_for_each(register):
    handle = register(lambda *a: None)
    try:
        assert altered(nn.ReLU())
    finally:
        handle.remove()
    assert altered(nn.ReLU()) is None


def test_a_torch_class_whose_forward_was_replaced_is_named_and_a_class_of_ones_own_is_not(monkeypatch):
    assert altered(Own()) is None
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: 10 * torch.tanh(x))
    assert altered(nn.Tanh())
    assert altered(nn.ReLU()) is None


def test_fresh_modules_of_torch_are_not_altered():
    made = [nn.Linear(2, 2), nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.LSTM(2, 2)]
    made += [nn.MultiheadAttention(2, 1), nn.Softmax(1), nn.GELU(), nn.PReLU()]
    made += [nn.TransformerEncoderLayer(2, 1), nn.Sequential(nn.ReLU())]
    assert [altered(m) for m in made] == [None] * len(made)
