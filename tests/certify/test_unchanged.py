"""What is changed after a smoothed classifier was made is refused; what calls themselves change is not."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import certify
from certify.errors import CertifyError, InvalidModel, InvalidSetting, NondeterministicModel
from certify.inside.effective_sigma import NoiseStage
from certify.inside.internal_noise import SmoothedInside
from certify.store import read_run
from tests.certify.test_audit import KeepsBooks

X = torch.full((2, 1, 4, 4), 128 / 255)
SCALE = 1.0


class Slope:
    def __init__(self):
        self.value = 1.0

    def __call__(self, x):
        return x * self.value


class Net(nn.Module):
    """Everything that a forward pass can rest on, besides weights."""

    gain = 1.0

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.act = nn.ReLU()
        self.threshold = 0.2
        self.turned = False
        self._hidden = [0.5]
        self.mask = torch.ones(2)
        self.shape = torch.relu
        self.slope = Slope()
        self.others = [nn.Linear(1, 1)]
        self.epoch = 3

    def forward(self, x):
        z = self.shape(self.act(self.conv(x))).mean((2, 3)) * self.mask * self.gain * SCALE - self.threshold
        z = self.slope(z) + self._hidden[0] + 0 * self.others[0].weight.sum()
        return -z if self.turned else z


def new_forward(self, x):
    return x.flatten(1)[:, :2]


def set_others(net):
    with torch.no_grad():
        net.others[0].weight.add_(1)


CHANGES = {
    "a number": lambda net: setattr(net, "threshold", 0.3),
    "a flag": lambda net: setattr(net, "turned", True),
    "an entry of a list with a leading underscore": lambda net: net._hidden.__setitem__(0, 0.6),
    "a tensor that is no buffer": lambda net: net.mask.mul_(2),
    "a function": lambda net: setattr(net, "shape", torch.tanh),
    "an attribute of an object": lambda net: setattr(net.slope, "value", 2.0),
    "a layer's setting": lambda net: setattr(net.conv, "padding", (1, 1)),
    "another layer of the same weights": lambda net: setattr(net, "act", nn.Tanh()),
    "a layer's forward": lambda net: setattr(net.act, "forward", lambda x: x),
    "a hook": lambda net: net.conv.register_forward_hook(lambda m, a, out: 2 * out),
    "a hook before": lambda net: net.conv.register_forward_pre_hook(lambda m, a: (2 * a[0],)),
    "a weight": lambda net: net.conv.weight.data.add_(1e-3),
    "a weight, behind torch's back": lambda net: net.conv.weight.detach().numpy().__iadd__(1e-3),
    "a parametrization": lambda net: nn.utils.parametrizations.weight_norm(net.conv),
    "a module in a list": set_others,
    "the mode": lambda net: net.train(),
}


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_model_that_was_changed_is_refused(what, dtype):
    net = Net().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8, dtype=dtype)
    g.certify(X, n_max=50)
    CHANGES[what](net)
    for ask in (lambda: g.certify(X, n_max=50), lambda: g.predict(X, n=10, seed=1)):
        with pytest.raises(InvalidModel):
            ask()


@pytest.mark.parametrize("what", ["a number", "a hook", "a layer's setting", "an attribute of an object"])
def test_it_is_refused_before_the_first_call_too(what):
    net = Net().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8)
    CHANGES[what](net)
    with pytest.raises(InvalidModel, match="has changed in its"):
        g.certify(X, n_max=50)


def of_the_class(monkeypatch):
    monkeypatch.setattr(Net, "gain", 2.0)


def a_method(monkeypatch):
    monkeypatch.setattr(Net, "forward", new_forward)


def a_global(monkeypatch):
    monkeypatch.setattr("tests.certify.test_unchanged.SCALE", 2.0)


def a_layer_of_torch(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)


def a_function_of_torch(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace: 2 * x)


@pytest.mark.parametrize("change", [of_the_class, a_method, a_global, a_layer_of_torch, a_function_of_torch])
def test_what_the_class_and_its_module_hold_counts_as_well(change, monkeypatch):
    net = Net().eval()
    with torch.no_grad():
        net.conv.bias.fill_(2.0)  # its units are awake, whatever they are drawn with
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8)
    g.certify(X, n_max=50)
    change(monkeypatch)
    with pytest.raises(InvalidModel):  # by what is read of it, or by what it answers
        g.certify(X, n_max=50)


def test_a_hook_on_all_modules_counts():
    g = certify.Smoothed(Net().eval(), 0.25, num_classes=2, batch_size=8)
    handle = register_module_forward_hook(lambda module, args, out: 2 * out)
    try:
        with pytest.raises(InvalidModel, match="has changed"):
            g.certify(X, n_max=50)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "epoch", 4),
        lambda net: setattr(net, "history", [1.0, 2.0]),
        lambda net: setattr(net, "optimizer", torch.optim.SGD(net.parameters(), 0.1)),
        lambda net: net.requires_grad_(False),
        lambda net: setattr(net.conv.weight, "grad", torch.ones_like(net.conv.weight)),
        lambda net: net.register_full_backward_hook(lambda *a: None),
    ],
)
def test_what_no_call_reads_may_change(change):
    net = Net().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8)
    before = g.identity([1, 4, 4])
    change(net)
    assert len(g.certify(X, n_max=50)) == 2
    fresh = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8)
    assert fresh.identity([1, 4, 4]) == before, "nor is it another model for a run"


def test_what_calls_change_is_no_change():
    x, net = torch.full((2, 16), 100 / 255), KeepsBooks().eval()
    net(x)  # fills its table
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8)
    net(x)
    for _ in range(2):
        assert len(g.certify(x, n_max=50)) == 2
        net(x)
    assert net.calls > 4


def test_a_plain_function_that_was_changed_is_refused():
    bias = [0.0]

    def model(x):
        side = x.flatten(1).mean(1) - 0.4 + bias[0]
        return torch.stack((-side, side), dim=1)

    g = certify.Smoothed(model, 0.25, num_classes=2, batch_size=8)
    g.certify(X, n_max=50)
    bias[0] = 0.2
    with pytest.raises(InvalidModel, match="captured bias"):
        g.certify(X, n_max=50)


# -- the smoothed classifier itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("sigma", 0.5), ("norm", "inf"), ("grid", 1 / 256), ("bounds", None), ("num_classes", 3),
     ("model", nn.Flatten()), ("noise", certify.noise.make_noise("gaussian", sigma=1.0))],
)  # fmt: skip
def test_settings_of_a_smoothed_classifier_may_not_change(name, value):
    g = certify.Smoothed(Net().eval(), 0.25, num_classes=2, batch_size=8)
    setattr(g, name, value)
    with pytest.raises(InvalidSetting, match=f"{name} of the smoothed classifier was changed"):
        g.predict(X, n=10, seed=1)
    s = certify.SmoothedSegmentation(nn.Conv2d(1, 2, 1).eval(), 0.25, num_classes=2, batch_size=2)
    setattr(s, name, value)
    with pytest.raises(CertifyError):
        s.certify(X, n0=2, n=4)


def test_an_array_of_scales_may_not_change_in_place():
    sigma = torch.full((1, 4, 4), 0.25)
    g = certify.Smoothed(Net().eval(), sigma, num_classes=2, noise="anisotropic", batch_size=8)
    g.certify(X, n_max=50)
    g.sigma[0, 0, 0] = 0.5
    with pytest.raises(InvalidSetting, match="sigma"):
        g.certify(X, n_max=50)


def test_other_weights_in_the_classifier_are_noticed():
    g = certify.Smoothed(Net().eval(), 0.25, num_classes=2, batch_size=8)
    g.classifier.model = Net().eval()
    with pytest.raises(InvalidSetting, match="classifier"):
        g.certify(X, n_max=50)


class Inside(nn.Module):
    input_shape = (3,)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.sigma = 0.5

    def noise_stages(self):
        return [NoiseStage(self.sigma, 1.0, 3)]

    def noisy_logits(self, x, normals):
        return self.head(x + self.sigma * normals)

    def forward(self, x):
        return self.head(x)


def test_noise_scales_inside_the_network_may_not_change():
    net = Inside().eval()
    g = SmoothedInside(net, num_classes=2, bounds=None)
    g.certify(torch.zeros(1, 3), n_max=50)
    net.sigma = 0.02
    with pytest.raises(InvalidModel, match="attribute sigma"):
        g.certify(torch.zeros(1, 3), n_max=50)


# -- changes while a run is under way ---------------------------------------------------------------------


def many(n=40):
    return torch.linspace(0, 255, n).round()[:, None, None, None].expand(n, 1, 4, 4) / 255


def change_number(net):
    net.threshold = 0.7


def change_weight(net):
    with torch.no_grad():
        net.conv.weight.add_(0.5)


@pytest.mark.parametrize("change", [change_number, change_weight])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_a_change_between_two_records_ends_the_run_and_keeps_what_was_proved(change, dtype, tmp_path):
    net = Net().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=16, dtype=dtype)
    seen = []

    def on_record(record):
        seen.append(record.index)
        if len(seen) == 5:
            change(net)

    with pytest.raises(InvalidModel):
        g.certify(many(), n_max=200, store=tmp_path, on_record=on_record)
    assert [r.index for r in read_run(tmp_path).run] == sorted(seen)
    # In another number type a copy is certified: what it proves holds for the model as it was.
    assert len(seen) == 5 or dtype == "fp64"


def test_a_change_by_another_thread_ends_the_run():
    net = Net().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=16)
    other = threading.Thread(target=change_number, args=(net,))

    def on_samples(count):
        if not other.ident:
            other.start()
            other.join()

    with pytest.raises(InvalidModel):
        g.certify(many(), n_max=200, on_samples=on_samples)


def test_a_model_that_nobody_can_read_is_asked_again():
    """A change in what Python cannot look into shows in the answers to the first rows."""
    hidden = [0.0]

    def answers():
        while True:
            yield hidden[0]

    ask = answers()

    class Model(nn.Module):
        def forward(self, x):
            side = x.flatten(1).mean(1) - 0.4 + next(ask)
            return torch.stack((-side, side), dim=1)

    g = certify.Smoothed(Model().eval(), 0.25, num_classes=2, batch_size=8)
    g.certify(X, n_max=50)
    hidden[0] = 0.5
    with pytest.raises(NondeterministicModel, match="no longer the function"):
        g.certify(X, n_max=50)


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_what_hides_behind_a_counter_shows_in_the_answers(dtype):
    """The attribute that holds the threshold changes with every call, so its digest says nothing."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 1)
            self.book = {"calls": 0, "threshold": 0.0}

        def forward(self, x):
            self.book["calls"] += 1
            z = self.layer(x.flatten(1))[:, 0] - self.book["threshold"]
            return torch.stack((1 - z, 1 + z), dim=1)

    net = Counting().eval()
    g = certify.Smoothed(net, 0.25, num_classes=2, batch_size=8, dtype=dtype)
    g.certify(X, n_max=50)
    net(X)
    g.certify(X, n_max=50)
    net.book["threshold"] = 0.5
    with pytest.raises(InvalidModel, match=r"answers otherwise|no longer the function"):
        g.certify(X, n_max=50)
