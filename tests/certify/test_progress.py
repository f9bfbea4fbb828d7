"""How far a call is and how long it may take: what is said against what came true."""

import io
import time

import numpy as np
import pytest
import torch

from certify import progress as progress_module
from certify.forecast import Forecast
from certify.noise import make_noise
from certify.procedures import make_procedure
from certify.progress import in_words, progress
from certify.sampling.classifier import BaseClassifier
from certify.sampling.engine import Sampler, drive, inputs_at_once, share_at_once
from tests.certify.test_lanes import SHAPE, network


def simulated(wanted, at_once, step=64):
    """Forecasts against the truth, (share of the time, ratio), of inputs that want so many samples each."""
    wanted = list(wanted)
    queue, active, samples, log = list(range(len(wanted))), {}, 0, []
    forecast = Forecast(len(wanted))
    while queue or active:
        while queue and len(active) < at_once:
            active[queue.pop(0)] = 0
        for i in list(active):
            more = min(max(step, active[i]), wanted[i] - active[i])
            active[i] += more
            samples += more
            if active[i] == wanted[i]:
                del active[i]
                forecast.done.append(wanted[i])
        forecast.under_way(list(active.values()))
        log.append((samples, forecast.samples_left()))
    return [(t / samples, left / (samples - t)) for t, left in log if left is not None and t < 0.95 * samples]


@pytest.mark.parametrize("hard", [0.0, 0.05, 0.3])
def test_the_forecast_is_within_a_factor_of_two_from_a_fifth_on(hard):
    generator = np.random.default_rng(3)
    ratios = []
    for _ in range(20):
        wanted = np.where(generator.random(600) < hard, 20_000, generator.integers(64, 1_000, 600))
        ratios += [ratio for share, ratio in simulated(wanted, share_at_once(600)) if share >= 0.2]
    wrong = [ratio for ratio in ratios if not 0.5 <= ratio <= 2.0]
    assert len(wrong) <= 0.02 * len(ratios), (
        wrong
    )  # of the last few inputs, how hard they are is anybody's guess


def test_nobody_knows_before_the_first_is_done():
    forecast = Forecast(10)
    forecast.drawn = 500
    assert forecast.left() is None
    forecast.done = [100] * 10
    assert forecast.samples_left() == 0
    forecast = Forecast(10)
    assert forecast.left() is None
    forecast.done, forecast.begun = (
        [100] * 5,
        [50] * 4,
    )  # fixed samples: four under way have 50 each, one is to come
    assert forecast.samples_left() == 4 * 50 + 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "about 1 s left"),
        (89.0, "about 89 s left"),
        (720.0, "about 12 min left"),
        (9000.0, "about 2.5 h left"),
    ],
)
def test_times_are_said_as_precisely_as_anybody_knows_them(seconds, words):
    assert in_words(seconds) == words


def test_what_an_earlier_call_did_is_no_speed_of_this_one():
    with progress("certifying", 100, done=90, every=60) as update:
        time.sleep(0.05)
        assert update.left == ""
        update(1)
        assert update.done == 91
        assert update.left == "about 1 s left"
        update(9)
        assert update.left == ""


def test_a_terminal_shows_the_note_and_the_time_left(monkeypatch):
    import rich.console

    shown = io.StringIO()
    console = rich.console.Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    with progress_module.progress("certifying", 40) as update:
        update(10, note="certified 75.0%", left=125.0)
        time.sleep(0.4)
    assert "10/40" in shown.getvalue()
    assert "about 2 min left, certified 75.0%" in shown.getvalue()


@pytest.mark.parametrize("at_once", [1, 3, None])
def test_results_do_not_depend_on_how_many_are_under_way(at_once):
    torch.manual_seed(0)
    classifier = BaseClassifier(network().eval(), num_classes=4)
    noise = make_noise("gaussian", sigma=0.25)
    images = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(1))
    found, finished_at = {}, []

    def run(most):
        sampler = Sampler(classifier, noise, seed=5, shape=SHAPE, batch_size=64)
        procedure = make_procedure("radius", sigma=0.25, n_max=2_000)
        inputs = [(i, noise.prepare(x)) for i, x in enumerate(images)]
        samples = []
        for id, outcome, _, _ in drive(sampler, procedure, inputs, on_samples=samples.append, at_once=most):
            yield id, outcome
            finished_at.append(sum(samples))

    expected = dict(run(None))
    finished_at.clear()
    found = dict(run(at_once))
    assert found == expected
    if at_once == 1:
        assert finished_at[0] < finished_at[-1] / 4  # the first result long before the last sample


def test_only_the_cpu_takes_inputs_a_few_at_a_time():
    classifier = BaseClassifier(network().eval(), num_classes=4)
    sampler = Sampler(classifier, make_noise("gaussian", sigma=0.25), seed=5, shape=SHAPE, batch_size=64)
    assert inputs_at_once(sampler, 1200) == 100
    assert inputs_at_once(sampler, 10) == 8
    assert inputs_at_once(object(), 1200) is None


def test_a_short_call_uses_every_lane(monkeypatch):
    classifier = BaseClassifier(network().eval(), num_classes=4)
    noise = make_noise("gaussian", sigma=0.25)
    lanes = [BaseClassifier(classifier.model, num_classes=4) for _ in range(2)]
    sampler = Sampler(classifier, noise, seed=5, shape=SHAPE, batch_size=512, lanes=lanes)
    assert [sampler._size_of(rows) for rows in (1, 64, 65, 300, 5000)] == [32, 32, 64, 160, 512]
    alone = Sampler(classifier, noise, seed=5, shape=SHAPE, batch_size=512)
    assert alone._size_of(64) == 512
