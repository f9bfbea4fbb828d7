"""The forecast of a run's cost against what the run then costs."""

import numpy as np
import pytest
from scipy import special

from certify.errors import InvalidCounts, InvalidSetting
from certify.planning import forecast
from certify.procedures import make_procedure
from certify.records import Status


def population(rng, size):
    """Class probabilities (size, 3): confident, middling and ambiguous inputs."""
    top = special.ndtr(np.where(rng.random(size) < 0.4, 4.0, rng.uniform(-0.2, 3.0, size)))
    split = rng.random(size)[:, None]
    rest = (1 - top)[:, None] * np.concatenate([split, 1 - split], axis=1)
    return np.concatenate([top[:, None], rest], axis=1)


def cost(procedure, probabilities, rng):
    samples, certified = [], []
    for p in probabilities:
        progress, counts, n = procedure.start(), np.zeros(3, dtype=np.int64), 0
        while (wanted := progress.wanted()) is not None:
            counts = counts + rng.multinomial(wanted - n, p)
            n = wanted
            progress.look(counts)
        samples.append(n)
        certified.append(progress.outcome().status is Status.CERTIFIED)
    return np.mean(samples), np.mean(certified)


@pytest.mark.parametrize(
    ("mode", "options"), [("decide", {"radius": 0.25}), ("grid", {"step": 0.25}), ("radius", {})]
)
def test_a_pilot_forecasts_the_run(mode, options):
    rng = np.random.default_rng(61)
    procedure = make_procedure(mode, sigma=0.25, n_max=20_000, **options)
    pilot = np.stack([rng.multinomial(1_000, p) for p in population(rng, 120)])
    guess = forecast(pilot, procedure, inputs=500, generator=rng)
    mean, certified = cost(procedure, population(rng, 500), rng)
    # The interval is for the population's mean; the run's own mean scatters around it.
    assert 0.7 * guess.samples_per_input.low < mean < 1.3 * guess.samples_per_input.high
    assert guess.samples_per_input.low < guess.samples_per_input.value < guess.samples_per_input.high
    assert abs(guess.certified - certified) < 0.15


def test_fixed_mode_costs_what_it_says():
    rng = np.random.default_rng(0)
    procedure = make_procedure("fixed", sigma=0.25, n0=100, n=10_000)
    guess = forecast([[90, 10], [50, 50]], procedure, inputs=1_000, generator=rng)
    assert guess.samples_per_input.value == guess.samples_per_input.high == 10_100
    assert guess.samples == 10_100_000
    assert guess.hours(10_100 / 3.6).value == pytest.approx(1.0)
    assert guess.hours(10_100 / 3.6, workers=4).value == pytest.approx(0.25)
    assert guess.workers(10_100 / 3.6, hours=0.3) == 4
    assert guess.workers(1e9, hours=1) == 1


@pytest.mark.parametrize("pilot", [[], [[1, 2], [0, 0]], [[-1, 3]], [[0.5, 0.5]], [3, 4], [[5], [6]]])
def test_a_pilot_that_is_none_is_refused(pilot):
    procedure = make_procedure("fixed", sigma=0.25, n=100)
    with pytest.raises(InvalidCounts):
        forecast(pilot, procedure, inputs=10, generator=np.random.default_rng(0))


def test_what_cannot_be_forecast_is_refused():
    rng = np.random.default_rng(0)
    soft = make_procedure("radius", scores="soft", sigma=0.25)
    with pytest.raises(InvalidSetting):
        forecast([[9, 1]], soft, inputs=10, generator=rng)
    fixed = make_procedure("fixed", sigma=0.25, n=100)
    with pytest.raises(InvalidSetting):
        forecast([[9, 1]], fixed, inputs=0, generator=rng)
    with pytest.raises(InvalidSetting):
        forecast([[9, 1]], fixed, inputs=5, generator=rng).hours(0.0)
