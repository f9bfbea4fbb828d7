"""What a race for the best batch size may cost: a small share of the samples that a call can want."""

import pytest
import torch
from torch import nn

import certify
import certify.noise
from certify.procedures import make_procedure
from certify.procedures.outcome import most_samples
from certify.sampling import tuning
from certify.sampling.classifier import BaseClassifier


class Counting(nn.Module):
    """Counts the rows it is asked about."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(16, 3)
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.body(x.flatten(1))


def smoothed(**options):
    torch.manual_seed(0)
    return certify.Smoothed(Counting().eval(), 0.25, num_classes=3, **options)


X = torch.rand(2, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def test_a_small_call_races_nothing():
    g = smoothed()
    raced = []
    original = tuning._seconds_per_sample
    try:
        tuning._seconds_per_sample = lambda *args: raced.append(args[-1]) or original(*args)
        small = g.certify(X, mode="fixed", n0=10, n=50, seed=1)
        assert raced == []
        assert g.batch_size is None
        g.certify(X, mode="decide", radius=0.1, n_max=100_000, seed=1)
        assert raced
        assert g.batch_size == 64 or g.batch_size in raced
    finally:
        tuning._seconds_per_sample = original
    again = smoothed(batch_size=7).certify(X, mode="fixed", n0=10, n=50, seed=1)
    assert [r.counts for r in small] == [r.counts for r in again]


def test_what_one_call_has_timed_the_next_ones_do_not(monkeypatch):
    g, timed = smoothed(), []
    original = tuning._seconds_per_sample
    monkeypatch.setattr(
        tuning, "_seconds_per_sample", lambda *args: timed.append(args[-1]) or original(*args)
    )
    for seed in range(3):
        g.certify(X, mode="fixed", n0=10, n=2_000, seed=seed)
    assert timed == [64, 128]
    g.certify(X, mode="fixed", n0=10, n=30_000, seed=1)
    assert len(timed) == len(set(timed)) > 2


SCRATCH = torch.zeros(2048, 3)


class WritesToItsModuleForManyRows(nn.Module):
    """Copies share the scratch, which only batches of more than 16 rows write to."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(16, 3)

    def forward(self, x):
        out = self.body(x.flatten(1))
        if len(x) <= 16:
            return out
        SCRATCH[: len(x)] = out
        return SCRATCH[: len(x)].clone()


def test_lanes_are_not_guessed_from_fewer_rows_than_a_batch_has(monkeypatch):
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 2)
    monkeypatch.setattr(BaseClassifier, "copies", lambda self, count: [self.again() for _ in range(count)])
    torch.manual_seed(0)
    g = certify.Smoothed(WritesToItsModuleForManyRows().eval(), 0.25, num_classes=3)
    g.certify(X, mode="fixed", n0=10, n=1_500, seed=3)
    assert g._probed[1] == 1


def test_a_guess_is_made_once(monkeypatch):
    watched = []
    original = tuning.keeps_to_itself
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 2)
    monkeypatch.setattr(
        tuning, "keeps_to_itself", lambda f, rows: watched.append(len(rows)) or original(f, rows)
    )
    g = smoothed()
    for seed in range(3):
        g.certify(X, mode="fixed", n0=10, n=1_000, seed=seed)
    assert watched == [64]


def test_no_copies_are_looked_for_where_there_can_be_none(monkeypatch):
    """Of a compiled network, and on a device: watching the model there costs a run of torch's compiler."""
    monkeypatch.setattr(tuning, "keeps_to_itself", lambda f, rows: pytest.fail("the model was watched"))
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 8)
    monkeypatch.setattr(BaseClassifier, "may_leave_its_thread", lambda self: False)
    classifier = BaseClassifier(nn.Linear(4, 3).eval(), num_classes=3)
    noise = certify.noise.make_noise("gaussian", sigma=0.5)
    assert tuning.choose_lanes(classifier, noise, torch.rand(4), 64) == 1
    assert tuning.guess_lanes(classifier, noise, torch.rand(4), 64, tuning.Timed()) == 1


@pytest.mark.parametrize("shape", [(2, 1, 6, 6), (2, 36)])
def test_a_call_too_short_for_a_race_of_lanes_has_them_and_the_same_votes(shape, monkeypatch):
    monkeypatch.setattr(tuning, "lanes_worth_trying", lambda model: 2)
    monkeypatch.setattr(tuning, "_fastest", None)  # nothing is raced
    torch.manual_seed(0)
    first = nn.Conv2d(1, 4, 3) if len(shape) == 4 else nn.Linear(36, 64)
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    g = certify.Smoothed(net, 0.25, num_classes=3)
    few = g.certify(x, mode="fixed", n0=10, n=1_500, seed=3)
    assert g._probed[1] == 2
    assert g._view.channels_last is (len(shape) == 4)
    assert g._lanes is None  # a longer call may still find out
    plain = certify.Smoothed(net, 0.25, num_classes=3, batch_size=2048).certify(
        x, mode="fixed", n0=10, n=1_500, seed=3
    )
    assert [r.counts for r in few] == [r.counts for r in plain]


@pytest.mark.parametrize("samples", [100, 2_000, 5_000, 20_000, 1_000_000])
def test_the_race_costs_its_share_at_most(samples):
    g = smoothed()
    sizes = []
    original = tuning._seconds_per_sample
    try:
        tuning._seconds_per_sample = lambda *args: sizes.append(args[-1]) or 1e-6
        best, all_tried = tuning.choose_batch_size(g.classifier, g.noise, X, samples=samples)
    finally:
        tuning._seconds_per_sample = original
    assert all(tuning.TRIES * size <= tuning.SHARE * samples for size in sizes)
    assert best in tuning.CPU_SIZES
    assert all_tried is (tuning.TRIES * max(tuning.CPU_SIZES) <= tuning.SHARE * samples)


def test_a_probe_for_small_batches_is_made_again_for_larger_ones():
    g = smoothed()
    g.certify(X, mode="fixed", n0=10, n=50, seed=1)
    first = g.probe
    g.certify(X, mode="fixed", n0=10, n=50, seed=2)
    assert g.probe is first
    g.predict(X, n=10, seed=1)
    assert g.probe is not None
    assert max(g.probe.batch_sizes) >= min(2048, g.batch_size or 0)


@pytest.mark.parametrize(
    ("mode", "options", "most"),
    [
        ("radius", {"n_max": 70}, 70),
        ("fixed", {"n0": 5, "n": 60}, 65),
        ("decide", {"radius": 0.1, "n_max": 80}, 80),
    ],
)
def test_most_samples_are_those_of_the_plan(mode, options, most):
    assert most_samples(make_procedure(mode, sigma=0.25, **options)) == most
