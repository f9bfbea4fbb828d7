"""Batches evaluated side by side give the votes of batches evaluated one after the other."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify import registry
from certify.noise import make_noise
from certify.sampling import tuning
from certify.sampling.classifier import BaseClassifier
from certify.sampling.engine import Request, Sampler
from certify.sampling.lanes import independent_copy, keeps_to_itself, run_in_lanes
from certify.sampling.tally import MarginScores, Votes

SHAPE = (1, 6, 6)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 4)
    ).eval()


class Tied(nn.Module):
    """Two classes whose scores are equal on half of the space: every such row is in doubt."""

    def forward(self, x):
        side = x.flatten(1).sum(1) > 18
        return torch.stack([side.float(), side.float(), torch.zeros(len(x)) - 1], dim=1)


class Scribbler(nn.Module):
    """Overwrites its input, as an in-place activation does."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(x.mul_(2.0))


def counts(model, lanes: int, *, classes: int, tally=None, batch_size=16):
    classifier = BaseClassifier(model, num_classes=classes)
    noise = make_noise("lattice", sigma=0.25, grid=1 / 255, bounds=(0.0, 1.0))
    copies = classifier.copies(lanes) if lanes else []
    assert len(copies) == lanes
    sampler = Sampler(
        classifier, noise, seed=5, shape=SHAPE, batch_size=batch_size, tally=tally, lanes=copies
    )
    images = torch.linspace(0, 255, 5).round().reshape(5, 1, 1, 1).expand(5, *SHAPE) / 255
    wanted = [
        Request(i, noise.prepare(x), 3 * i, n)
        for i, (x, n) in enumerate(zip(images, (100, 1, 37, 64, 250), strict=True))
    ]
    return sampler.counts(wanted), classifier


@pytest.mark.parametrize("model", [network, Tied, Scribbler])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_votes_are_the_same_with_any_number_of_lanes(model, lanes):
    classes = 3 if model is Tied else 4
    plain, one = counts(model().eval(), 0, classes=classes)
    wide, several = counts(model().eval(), lanes, classes=classes)
    assert (plain == wide).all()
    assert plain.sum() == 452
    assert one.alone == several.alone, "rows in doubt are decided alone, by the caller's own model"


def test_the_doubtful_really_are_decided_alone():
    _, classifier = counts(Tied().eval(), 2, classes=3)
    assert classifier.alone > 100


@pytest.mark.parametrize("tally", [Votes(4), MarginScores(4, (0.2, 0.5, 0.8))])
def test_every_thing_that_is_counted(tally):
    assert (
        counts(network(), 0, classes=4, tally=tally)[0] == counts(network(), 3, classes=4, tally=tally)[0]
    ).all()


def test_a_failure_in_one_lane_is_the_callers_and_ends_the_others():
    class Fragile(nn.Module):
        def forward(self, x):
            raise IndexError("lost")

    with pytest.raises(IndexError, match="lost"):
        counts(Fragile().eval(), 3, classes=4)
    assert counts(network(), 3, classes=4)[0].sum() == 452


def test_threads_elsewhere_keep_their_number_of_cores():
    before = torch.get_num_threads()
    assert run_in_lanes([torch.get_num_threads] * 3) == [1, 1, 1]
    assert torch.get_num_threads() == before
    seen = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen == [before]


def with_hook():
    net = network()
    net[0].register_forward_hook(lambda *_: None)
    return net


class Helped(nn.Module):
    def __init__(self, helper):
        super().__init__()
        self.helper = {"by name": [partial(helper)]}

    def forward(self, x):
        return self.helper["by name"][0](x)


def with_closure():
    inner = network()
    return Helped(lambda x: inner(x))


def two_levels_down(x):
    return one_level_down(x)


def one_level_down(x):
    return in_scratch(x)


class Counting(nn.Module):
    def forward(self, x):
        self.calls = len(x)
        return x.flatten(1)


CALLS = 0


class CountsInItsModule(nn.Module):
    def forward(self, x):
        global CALLS
        CALLS += 1
        return x.flatten(1)


class DrawsAtRandom(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.isfinite().all() else torch.rand(len(x), 4)


class FindsByName(nn.Module):
    def forward(self, x):
        return getattr(torch, "re" + "lu")(x)


class WithNumpysRoom(nn.Module):
    def forward(self, x, room=np.zeros(4)):  # noqa: B008
        return x + torch.from_numpy(room)


def with_own_forward():
    net = network()
    net.forward = lambda x: x
    return net


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo):
        raise TypeError("no")


class Shared(nn.Module):
    def __deepcopy__(self, memo):
        return self


SHARED = nn.Linear(3, 3)


class SharesAPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = SHARED

    def __deepcopy__(self, memo):
        return SharesAPart()


class ScratchOfItsClass(nn.Module):
    room = torch.empty(1024, 36)

    def forward(self, x):
        return self.room[: len(x)].copy_(x.flatten(1)).tanh_()


class CallsAModuleByName(nn.Module):
    def forward(self, x):
        return SHARED(x)


def with_a_function_of_ones_own():
    return certify.wrap(lambda x: SHARED(x), mean=0.5).eval()


SCRATCH = torch.empty(1024, 36)


def in_scratch(x):
    return SCRATCH[: len(x)].copy_(x.flatten(1)).tanh_()[:, :4]


class ScratchOfAHelper(nn.Module):
    def forward(self, x):
        return in_scratch(x)


class Filling(nn.Module):
    """Sets memory aside once, for all that follow."""

    rooms: list[torch.Tensor] = []  # noqa: RUF012

    def forward(self, x):
        if not self.rooms:
            self.rooms.append(torch.zeros(x.shape))
        return torch.mul(x, 2, out=self.rooms[0]).flatten(1)


@pytest.mark.parametrize("model", [ScratchOfAHelper, ScratchOfItsClass, Filling])
def test_writing_to_memory_that_copies_share_is_noticed(model):
    assert not keeps_to_itself(model().eval(), torch.rand(32, *SHAPE))


@pytest.mark.parametrize(
    "model",
    [network, Scribbler, lambda: nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)),
     lambda: lambda x: torch.zeros(len(x), 4).add_(x.flatten(1)[:, :4])[:, 1:].mul_(2.0)],
)  # fmt: skip
def test_writing_to_rows_and_to_new_memory_is_no_harm(model):
    found = model()
    found = found.eval() if isinstance(found, nn.Module) else found
    with torch.inference_mode():
        assert keeps_to_itself(found, torch.rand(32, *SHAPE))


def test_a_model_that_writes_elsewhere_gets_no_lanes(monkeypatch):
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 2)
    monkeypatch.setattr(tuning, "Sampler", None)  # nothing is to be timed
    noise = make_noise("gaussian", sigma=0.25)
    classifier = BaseClassifier(ScratchOfAHelper().eval(), num_classes=4)
    assert tuning.choose_lanes(classifier, noise, torch.rand(SHAPE), 16) == 1


def test_the_probe_lets_a_model_overwrite_its_input():
    classifier = BaseClassifier(Scribbler().eval(), num_classes=4)
    rows = torch.rand(32, *SHAPE)
    before = rows.clone()
    assert classifier.probe(rows, (7, 32, 64), lanes=classifier.copies(2)).difference < 1e-5
    assert torch.equal(rows, before)


@pytest.mark.parametrize(
    "model",
    [with_hook, with_closure, lambda: Helped(two_levels_down), Counting, CountsInItsModule, DrawsAtRandom,
     FindsByName, WithNumpysRoom, with_own_forward, Uncopyable, Shared, SharesAPart, lambda: torch.relu,
     lambda: torch.jit.script(nn.Linear(3, 3)), ScratchOfItsClass, CallsAModuleByName,
     with_a_function_of_ones_own, Filling],
)  # fmt: skip
def test_what_copies_might_share_is_not_copied(model):
    assert independent_copy(model()) is None


def test_the_products_own_networks_may_have_copies():
    refused = set()
    for name in registry.names():
        shape = (3, 16, 16) if name in ("resnet", "global-cifar") else (1, 28, 28)
        if independent_copy(registry.architecture(name)(num_classes=4, input_shape=shape).eval()) is None:
            refused.add(name)
    assert refused == {"noisy-resnet"}, "which draws random numbers, in training"


def test_a_copy_is_the_same_function_and_shares_nothing():
    net = network()
    twin = independent_copy(net)
    x = torch.rand(3, *SHAPE)
    assert torch.equal(net(x), twin(x))
    with torch.no_grad():
        twin[0].weight.zero_()
    assert net[0].weight.abs().min() > 0
