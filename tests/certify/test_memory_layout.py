"""Channels last in memory: batches may be faster, votes are those of the model as it came."""

import pytest
import torch
from torch import nn

import certify
from certify.noise import make_noise
from certify.sampling import tuning
from certify.sampling.classifier import BaseClassifier
from certify.sampling.engine import Request, Sampler
from tests.certify.test_lanes import SHAPE, Scribbler, network, with_hook

NOISE = make_noise("lattice", sigma=0.25, grid=1 / 255, bounds=(0.0, 1.0))
EXAMPLE = torch.full(SHAPE, 128 / 255)


class Views(nn.Module):
    """Asks for a view of its features, which channels last do not have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x):
        return self.conv(x).view(len(x), -1)[:, :4]


class Insists(nn.Module):
    """Refuses any other layout with an error of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        h = self.conv(x)
        if not h.is_contiguous():
            raise ValueError("channels first, please")
        return h.mean((2, 3))


class AsksForStrides(nn.Module):
    """Another function in another layout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        h = self.conv(x)
        return h.mean((2, 3)) * (1.0 if h.is_contiguous() else -1.0)


def classifier_of(model):
    return BaseClassifier(model.eval(), num_classes=4)


def chosen(model, monkeypatch, winner=max):
    """The classifier after the choice, where the new layout (the first, with ``min``) wins the race."""
    monkeypatch.setattr(tuning, "_fastest", lambda race, request: winner(race))
    classifier = classifier_of(model)
    tuning.choose_lanes(classifier, NOISE, EXAMPLE, 16)
    return classifier


def counts(model, *, channels_last, lanes=0, batch_size=16):
    classifier = classifier_of(model)
    assert classifier.lay_out(channels_last=channels_last) is channels_last
    copies = classifier.copies(lanes) if lanes else []
    assert all(c.channels_last is channels_last for c in copies)
    sampler = Sampler(classifier, NOISE, seed=5, shape=SHAPE, batch_size=batch_size, lanes=copies)
    images = torch.linspace(0, 255, 5).round().reshape(5, 1, 1, 1).expand(5, *SHAPE) / 255
    return sampler.counts([Request(i, NOISE.prepare(x), 0, 40 + i) for i, x in enumerate(images)])


@pytest.mark.parametrize("lanes", [0, 2])
@pytest.mark.parametrize("model", [network, Scribbler])
def test_votes_do_not_depend_on_the_layout(model, lanes):
    torch.manual_seed(1)
    net = model()
    expected = counts(net, channels_last=False)
    for size in (1, 7, 64):
        assert (counts(net, channels_last=True, lanes=lanes, batch_size=size) == expected).all()


def test_the_layout_really_changes_what_the_convolutions_see():
    classifier, seen = classifier_of(AsksForStrides()), []
    plain = classifier.logits(EXAMPLE[None].repeat(2, 1, 1, 1))
    assert classifier.lay_out(channels_last=True)
    seen = classifier.logits(EXAMPLE[None].repeat(2, 1, 1, 1))
    assert torch.allclose(seen, -plain)


def test_the_callers_model_keeps_its_layout():
    net = network()
    before = net[0].weight.stride()
    assert classifier_of(net).lay_out(channels_last=True)
    assert net[0].weight.stride() == before
    assert net[0].weight.is_contiguous()


def test_the_faster_layout_is_taken_and_the_slower_one_left(monkeypatch):
    assert chosen(network(), monkeypatch).channels_last
    assert not chosen(network(), monkeypatch, winner=min).channels_last


def test_the_race_is_run_by_every_layout_and_number_of_lanes(monkeypatch):
    times = {(False, 1): 0.3, (True, 1): 0.2, (False, 2): 0.1, (True, 2): 0.4}
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 2)
    seen = []

    def fastest(race, request):
        for sampler in race.values():
            sampler.counts(request)
        seen.extend(race)
        return min(race, key=times.get)

    monkeypatch.setattr(tuning, "_fastest", fastest)
    classifier = classifier_of(network())
    assert tuning.choose_lanes(classifier, NOISE, EXAMPLE, 16) == 2
    assert not classifier.channels_last
    assert sorted(seen) == sorted(times)


@pytest.mark.parametrize(
    "model",
    [Views, Insists, AsksForStrides, with_hook, lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4))],
)
def test_models_that_do_not_suit_it_are_left_alone(model, monkeypatch):
    torch.manual_seed(0)
    classifier = chosen(model(), monkeypatch)
    assert not classifier.channels_last
    assert classifier.logits(EXAMPLE[None]).shape == (1, 4)


def test_runs_have_the_same_records_whatever_the_layout(monkeypatch):
    torch.manual_seed(0)
    net, x = network(), torch.rand(6, *SHAPE).mul(255).round() / 255
    found = []
    for winner in (max, min):
        monkeypatch.setattr(tuning, "_fastest", lambda race, request, winner=winner: winner(race))
        g = certify.Smoothed(net, sigma=0.25, num_classes=4, bounds=(0.0, 1.0), grid=1 / 255)
        g.predict(x[:1], n=1, seed=0)  # nobody knows what follows a prediction: it races
        assert g.classifier.channels_last is (winner is max)
        run = g.certify(x, n_max=400, seed=3)
        found.append([(r.label, r.radius, tuple(r.counts), r.samples) for r in run])
    assert found[0] == found[1]
