"""Smoothing over internal noise: known radii, every mode, any batch size, and named refusals."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from certify.bounds import binomial_lower
from certify.errors import InvalidModel
from certify.inside.effective_sigma import NoiseStage
from certify.inside.internal_noise import SmoothedInside
from certify.records import Status


class LinearNoisy(nn.Module):
    """x -> a x + s_1 xi twice, then a half-space: everything is known in closed form."""

    input_shape = (3,)

    def __init__(self, gain=2.0, scales=(0.3, 0.5)):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.scales = scales
        self.eval()

    def noise_stages(self):
        gain = abs(float(self.gain.detach())) * (1 + 1e-12)
        return [NoiseStage(s, 1.0 if k == 0 else gain, 3) for k, s in enumerate(self.scales)]

    def noisy_logits(self, x, normals):
        first, second = normals.split(3, dim=1)
        z = self.gain * (x + self.scales[0] * first) + self.scales[1] * second
        return torch.stack([-z[:, 0], z[:, 0]], dim=1)

    def forward(self, x):
        return self.noisy_logits(x, x.new_zeros(len(x), 6))


TRUE_SIGMA = math.sqrt(0.3**2 + (0.5 / 2.0) ** 2)


def smoothed(**changes):
    return SmoothedInside(LinearNoisy(), num_classes=2, bounds=None, **changes)


def test_effective_sigma_of_the_linear_network():
    g = smoothed()
    assert g.sigma == pytest.approx(TRUE_SIGMA, rel=1e-9)
    assert g.sigma <= TRUE_SIGMA


@pytest.mark.parametrize("mode", ["fixed", "radius", "grid"])
def test_radius_stays_below_the_distance_and_comes_close(mode):
    distances = torch.linspace(0.2, 0.9, 12)
    x = torch.zeros(12, 3)
    x[:, 0] = distances
    options = {"fixed": {"n": 20_000}, "radius": {"n_max": 20_000}, "grid": {"n_max": 20_000, "step": 0.1}}
    run = smoothed(batch_size=500).certify(
        x, torch.ones(12, dtype=torch.long), alpha=1e-3, mode=mode, seed=3, **options[mode]
    )
    assert all(r.status is Status.CERTIFIED and r.label == 1 for r in run)
    slack = [float(t) - r.radius for t, r in zip(distances, run, strict=True)]
    assert sum(s < 0 for s in slack) <= 1  # each exceeds with probability 1e-3
    if mode == "fixed":
        assert all(r.radius > 0.8 * float(t) for t, r in zip(distances, run, strict=True))


def test_votes_follow_the_known_probability():
    x = torch.tensor([[0.2, 0.0, 0.0]])
    run = smoothed(batch_size=500).certify(x, mode="fixed", n=20_000, seed=1)
    p = stats.norm.cdf(0.2 / TRUE_SIGMA)
    votes = run[0].counts[1]
    assert stats.binomtest(votes, sum(run[0].counts), p).pvalue > 1e-5
    assert run[0].p_lower == pytest.approx(binomial_lower(votes, sum(run[0].counts), 1e-3), rel=1e-6)


def test_records_do_not_depend_on_the_batch_size():
    x = torch.tensor([[0.2, 0.0, 0.0], [-0.4, 1.0, 0.0]])
    runs = [smoothed(batch_size=b).certify(x, mode="fixed", n=2000, seed=5) for b in (64, 700, None)]
    assert len({tuple(r.counts for r in run) for run in runs}) == 1


def test_settings_and_guarantee_name_the_internal_noise():
    run = smoothed(batch_size=100).certify(torch.tensor([[1.0, 0, 0]]), mode="fixed", n=500, seed=0)
    assert run.settings["noise"] == "internal"
    assert run.settings["noise_settings"]["scales"] == [0.3, 0.5]
    assert "inside the network" in run.guarantee
    assert "exact arithmetic only" in run.guarantee


def test_prediction_uses_the_internal_noise_too():
    got = smoothed(batch_size=100).predict(torch.tensor([[0.05, 0, 0], [2.0, 0, 0]]), n=400, seed=2)
    assert got[1].label == 1
    assert got[0].counts[0] > 20  # without the noise every vote would be for class 1


def test_noisy_rows_carry_the_input_and_standard_normals():
    x = torch.tensor([0.5, -1.0, 2.0])
    rows = smoothed().noisy(x, 4000, seed=1, id=7)
    assert torch.equal(rows[:, :3], x.expand(4000, 3))
    assert stats.kstest(rows[:, 3:].flatten().double().numpy(), "norm").pvalue > 1e-4
    assert torch.equal(rows[10:20], smoothed().noisy(x, 10, seed=1, id=7, start=10))


def test_the_weights_that_run_are_the_weights_that_are_bounded():
    # A float64 network is cast to float32 to run: its bounds must be those of the cast weights.
    model = LinearNoisy(gain=2.0).double()
    model.gain.data = torch.tensor(2.0 + 2**-30, dtype=torch.float64)
    g = SmoothedInside(model, num_classes=2, bounds=None)
    assert g.stages[1].lipschitz == pytest.approx(float(model.gain.detach().float()), rel=1e-11)


def test_a_network_without_internal_noise_is_refused():
    with pytest.raises(InvalidModel, match="no noise inside"):
        SmoothedInside(nn.Linear(2, 2).eval(), num_classes=2)


def test_verification_works_the_effective_sigma_out_again():
    from certify.verification.ball import reach_of

    run = smoothed(batch_size=100).certify(torch.tensor([[1.0, 0, 0]]), mode="fixed", n=500, seed=0)
    reach = reach_of(run.settings)
    assert reach is not None
    assert reach(run[0].p_lower) == pytest.approx(run[0].radius, rel=1e-9)
    # A larger sigma written into the settings does not widen what verification accepts.
    lie = reach_of(run.settings | {"sigma": 9.0})
    assert lie is not None
    assert lie(run[0].p_lower) == pytest.approx(run[0].radius, rel=1e-9)
    silent = reach_of(run.settings | {"noise_settings": {}})
    assert silent is not None
    assert silent(run[0].p_lower) == 0.0
