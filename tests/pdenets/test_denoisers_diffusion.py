"""A diffusion model as a denoiser: its factors against a closed form, and the real package."""

import math

import pytest
import torch
from torch import nn

import certify
from certify.errors import InvalidSetting, MissingExtra, UnreadableFile
from pdenets.denoisers.building import build_denoiser
from pdenets.denoisers.diffusion import PREDICTIONS, DiffusionDenoiser

#: The schedule of DDPM: beta from 1e-4 to .02 in 1,000 steps.
ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


class GaussianTheory(nn.Module):
    """What a perfect model predicts where images s in [-1, 1] are independent normals of mean m and std c.

    Given z = sqrt(a) s + sqrt(1 - a) e, the mean of s is m + sqrt(a) c^2 (z - sqrt(a) m) / (a c^2 + 1 - a).
    """

    def __init__(self, mean, std, kind):
        super().__init__()
        self.mean, self.std, self.kind = mean, std, kind

    def forward(self, z, steps):
        a = ALPHAS[steps].reshape(-1, 1, 1, 1)
        s = self.mean + a.sqrt() * self.std**2 * (z - a.sqrt() * self.mean) / (a * self.std**2 + 1 - a)
        noise = (z - a.sqrt() * s) / (1 - a).sqrt()
        return {"sample": s, "epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * s}[
            self.kind
        ]


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (0.0, 255.0)])
@pytest.mark.parametrize("share", [0.06, 0.25, 1.0])
def test_it_is_the_posterior_mean_where_that_is_known(kind, low, high, share):
    """In the units of the inputs the prior is normal, so the best denoiser under sigma is a known line."""
    sigma, mean, std = share * (high - low), 0.1, 0.3
    prior_mean, prior_std = (mean + 1) / 2 * (high - low) + low, std / 2 * (high - low)
    denoiser = DiffusionDenoiser(
        GaussianTheory(mean, std, kind), ALPHAS, prediction=kind, low=low, high=high, clip=False
    )
    x = low + (high - low) * torch.rand(4, 1, 5, 5, dtype=torch.float64)
    weight = prior_std**2 / (prior_std**2 + sigma**2)
    wanted = prior_mean + weight * (x - prior_mean)
    # The schedule has 1,000 steps: its noise is off sigma by at most half a step, about half a percent.
    assert (denoiser(x, sigma) - wanted).abs().max() < 0.01 * (high - low)
    # A factor of 2 between pixels and [-1, 1] that is left out shows.
    for wrong in (sigma / 2, 2 * sigma):
        off = prior_std**2 / (prior_std**2 + wrong**2)
        if abs(off - weight) > 0.05:
            assert (denoiser(x, sigma) - prior_mean - off * (x - prior_mean)).abs().max() > 0.02 * (
                high - low
            )


def test_the_step_has_the_noise_of_twice_sigma_on_pixels():
    denoiser = DiffusionDenoiser(nn.Identity(), ALPHAS)
    for sigma in (0.12, 0.25, 0.5, 1.0):
        step, alpha = denoiser.step(sigma)
        assert math.sqrt((1 - alpha) / alpha) == pytest.approx(2 * sigma, rel=0.01)
        assert alpha == float(ALPHAS[step])
    steps = [denoiser.step(sigma)[0] for sigma in (0.12, 0.25, 0.5, 1.0)]
    assert steps == sorted(steps)


def test_predictions_are_clipped_to_the_range_of_images():
    denoiser = DiffusionDenoiser(GaussianTheory(0.0, 50.0, "sample"), ALPHAS, prediction="sample")
    found = denoiser(torch.full((1, 1, 2, 2), 7.0, dtype=torch.float64), 0.25)
    assert torch.equal(found, torch.ones_like(found))


def test_a_learned_variance_behind_the_prediction_is_left_alone():
    class Both(nn.Module):
        def forward(self, z, steps):
            return torch.cat([torch.zeros_like(z), torch.full_like(z, 9.0)], dim=1)

    x = torch.rand(2, 3, 4, 4)
    denoiser = DiffusionDenoiser(Both(), ALPHAS, clip=False)
    assert (denoiser(x, 0.25) - x).abs().max() < 1e-6  # no noise predicted: nothing taken away


@pytest.mark.parametrize("sigma", [1e-5, 1e3])
def test_noise_beyond_the_schedule_is_refused(sigma):
    with pytest.raises(InvalidSetting, match="knows no noise"):
        DiffusionDenoiser(nn.Identity(), ALPHAS)(torch.zeros(1, 1, 2, 2), sigma)


@pytest.mark.parametrize(
    ("alphas", "options"),
    [([], {}), ([0.5, 1.5], {}), (ALPHAS, {"prediction": "x0"}), (ALPHAS, {"low": 1.0, "high": 1.0})],
)
def test_what_is_no_diffusion_model_is_refused(alphas, options):
    with pytest.raises(InvalidSetting):
        DiffusionDenoiser(nn.Identity(), alphas, **options)


def test_without_the_package_its_folder_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingExtra, match="diffusers"):
        build_denoiser("diffusion", {"folder": str(tmp_path)}, (1, 8, 8))


def tiny(folder, *, size=8, channels=1):
    """A tiny UNet2DModel of the real package, saved as a pipeline; returns (network, scheduler)."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return network, scheduler


def test_a_folder_of_the_real_package_opens_and_is_certified(tmp_path):
    network, scheduler = tiny(tmp_path)
    denoiser = build_denoiser("diffusion", {"folder": str(tmp_path)}, (1, 8, 8))
    assert torch.allclose(scheduler.alphas_cumprod.double(), torch.tensor(denoiser.schedule).double())
    x = torch.rand(3, 1, 8, 8)
    step, alpha = denoiser.step(0.25)
    with torch.no_grad():
        noise = network.eval()(math.sqrt(alpha) * (2 * x - 1), step).sample
    clean = ((2 * x - 1) - math.sqrt((1 - alpha) / alpha) * noise).clamp(-1, 1)
    assert (denoiser(x, 0.25) - (clean + 1) / 2).abs().max() < 1e-5
    model = certify.denoised(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), denoiser, sigma=0.25)
    data = certify.data.load("digits", limit=2)
    run = certify.Smoothed(model, 0.25, data=data).certify(data.x, data.y, mode="fixed", n0=8, n=32)
    assert len(run) == 2
    assert run.settings["model"]["denoiser"]["settings"]["prediction"] == "epsilon"


def test_a_folder_that_is_none_or_of_other_images_is_refused(tmp_path):
    tiny(tmp_path)
    with pytest.raises(UnreadableFile, match="holds no unet"):
        build_denoiser("diffusion", {"folder": str(tmp_path / "none")}, (1, 8, 8))
    with pytest.raises(InvalidSetting, match="does not fit"):
        build_denoiser("diffusion", {"folder": str(tmp_path)}, (1, 9, 9))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tiny_diffusion_model_certifies_a_classifier_that_never_saw_noise(tmp_path):
    """A minute of training on digits: behind it, the clean network is certified on more inputs than alone."""
    from torch.nn import functional as F

    from pdenets.training import train

    digits = certify.data.load("digits", split="train")
    train(digits, arch="cnn", out=tmp_path / "clean.pt", sigma=0.0, epochs=15)
    clean = certify.load(tmp_path / "clean.pt")
    network, scheduler = tiny(tmp_path)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        rows = torch.randint(len(digits), (32,), generator=generator)
        image, noise = 2 * digits.x[rows] - 1, torch.randn(32, 1, 8, 8, generator=generator)
        steps = torch.randint(1000, (32,), generator=generator)
        loss = F.mse_loss(network(scheduler.add_noise(image, noise, steps), steps).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(tmp_path / "unet")
    denoiser = build_denoiser("diffusion", {"folder": str(tmp_path)}, (1, 8, 8))
    test, accuracies = certify.data.load("digits", limit=100), []
    for model in (clean, certify.denoised(clean, denoiser, sigma=0.5)):
        run = certify.Smoothed(model, 0.5, data=test).certify(
            test.x, test.y, mode="decide", radius=0.5, n_max=1000
        )
        accuracies.append(run.accuracy([0.5])[0].value)
    assert accuracies[1] >= accuracies[0] + 0.1, accuracies
