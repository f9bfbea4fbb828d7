"""One suite that every registered denoiser passes: a fixed function of one input, in its own shape."""

import math
import pickle

import pytest
import torch
from torch import nn

import certify
from certify import registry
from certify.checkpoints import model_digest
from certify.contract import check_model
from certify.denoising import Denoised, level_told, takes_sigma
from certify.errors import ArchitectureMismatch, InvalidSetting
from pdenets.denoisers import denoiser_catalogue
from pdenets.denoisers.building import build_denoiser, is_learned
from pdenets.denoisers.diffusion import DiffusionDenoiser
from pdenets.denoisers.matching import match_denoiser

SHAPE, SIGMA = (2, 13, 10), 0.25
#: What a denoiser needs that has no default: its numbers; the diffusion model comes from a folder.
NUMBERS = {"heat": {"time": 0.4}, "tv": {"strength": 0.8}, "perona-malik": {"contrast": 1.0, "steps": 6}}


class Predictor(nn.Module):
    """A stand-in for a diffusion model's network: an untrained convolution that is told the step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(SHAPE[0], SHAPE[0], 3, padding=1)

    def forward(self, z, steps):
        return self.layer(z) + 1e-3 * steps.to(z).reshape(-1, 1, 1, 1)


def made(name):
    torch.manual_seed(0)
    if name == "diffusion":
        return DiffusionDenoiser(Predictor(), torch.linspace(0.999, 0.01, 200))
    found = build_denoiser(name, NUMBERS.get(name, {}), SHAPE).eval()
    if is_learned(registry.denoiser(name)):
        for parameter in found.parameters():  # an untrained one may begin as the identity
            nn.init.normal_(parameter, std=0.05)
    return found


def applied(denoiser, x, sigma=SIGMA):
    return denoiser(x, sigma=sigma) if takes_sigma(denoiser) else denoiser(x)


@pytest.fixture(params=registry.names(registry.DENOISERS))
def denoiser(request):
    return made(request.param)


@pytest.fixture
def x():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_the_ladder_is_registered():
    wanted = {"identity", "heat", "tv", "perona-malik", "dncnn", "unet", "diffusion"}
    assert wanted <= set(registry.names(registry.DENOISERS))
    assert all(text and source for _, text, source in denoiser_catalogue())


def test_shape_type_and_finiteness_are_kept(denoiser, x):
    check_model(denoiser)
    found = applied(denoiser, x)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert torch.isfinite(found).all()


def test_the_input_is_not_written_to(denoiser, x):
    before = x.clone()
    applied(denoiser, x)
    assert torch.equal(before, x)


def test_an_input_is_denoised_alike_alone_and_among_others(denoiser, x):
    together = applied(denoiser, x)
    alone = torch.cat([applied(denoiser, row[None]) for row in x])
    assert (together - alone).abs().max() < 1e-5
    assert (applied(denoiser, x.flip(0)).flip(0) - together).abs().max() < 1e-5


def test_it_is_a_fixed_function_without_random_numbers_of_its_own(denoiser, x):
    from certify.denoising import refuse_randomness

    found = Denoised(nn.Flatten().eval(), denoiser, sigma=SIGMA)
    refuse_randomness(found, x)
    state = torch.random.get_rng_state()
    assert torch.equal(found.clean(x), found.clean(x))
    assert torch.equal(state, torch.random.get_rng_state())


def test_gradients_flow_through_it(denoiser, x):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(applied(denoiser, leaf).square().sum(), leaf)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_its_settings_are_seen_in_the_identity_of_the_whole(denoiser):
    found = certify.denoised(nn.Flatten().eval(), denoiser, sigma=SIGMA)
    assert type(denoiser).__name__ in found.form
    assert all(str(value) in found.form for value in getattr(denoiser, "settings", {}).values())


def test_it_travels_to_another_process_as_the_same_function(denoiser, x):
    model = certify.denoised(nn.Flatten().eval(), denoiser, sigma=SIGMA)
    there = pickle.loads(pickle.dumps(model))
    assert torch.equal(there(x), model(x))
    assert model_digest(there) == model_digest(model)


def test_double_precision_changes_little(denoiser, x):
    single = applied(denoiser, x)
    assert (applied(denoiser.double(), x.double()) - single).abs().max() < 1e-4


def test_learned_ones_know_their_levels_and_take_one_per_image(x):
    for name in registry.names(registry.DENOISERS):
        if not is_learned(registry.denoiser(name)):
            continue
        torch.manual_seed(0)
        several = build_denoiser(name, {"sigmas": [0.5, 0.1, 0.25]}, SHAPE).eval()
        nn.init.normal_([p for p in several.parameters() if p.dim() == 4][-1], std=0.1)
        assert several.sigmas == (0.1, 0.25, 0.5)
        levels = torch.tensor([0.1, 0.25, 0.5, 0.1, 0.3])
        rows = torch.cat([several(row[None], float(s)) for row, s in zip(x, levels, strict=True)])
        assert (several(x, levels) - rows).abs().max() < 1e-5
        assert (several(x, 0.1) - several(x, 0.5)).abs().max() > 1e-4
        assert level_told(several, 0.3) == 0.3
        with pytest.raises(InvalidSetting, match="knows nothing of sigma"):
            level_told(several, 0.7)


@pytest.mark.parametrize("name", ["dncnn", "unet"])
def test_images_of_any_size_are_taken(name):
    found = made(name)
    for sides in ((1, 1), (3, 7), (32, 32), (9, 40)):
        assert applied(found, torch.rand(2, SHAPE[0], *sides)).shape == (2, SHAPE[0], *sides)


@pytest.mark.parametrize("sigmas", [[], [0.0], [-0.1, 0.2], [math.nan], ["a"], None])
def test_levels_that_are_none_are_refused(sigmas):
    with pytest.raises(InvalidSetting):
        build_denoiser("unet", {"sigmas": sigmas}, SHAPE)


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(ArchitectureMismatch, match="did you mean 'dncnn'"):
        build_denoiser("dncn", {}, SHAPE)
    with pytest.raises(ArchitectureMismatch, match="width"):
        build_denoiser("heat", {"time": 1.0, "width": 3}, SHAPE)
    with pytest.raises(InvalidSetting, match="depth 2"):
        build_denoiser("dncnn", {"depth": 2}, SHAPE)


def test_matching_takes_the_best_of_what_it_tried_and_more_noise_more_flow():
    data = certify.data.load("digits", split="train")
    found = match_denoiser("heat", data, sigma=0.25)
    tried = {row["time"]: psnr for row, psnr in found.tried}
    assert found.psnr == max(tried.values()) > tried[0.0] + 1
    assert tried[0.0] == pytest.approx(20 * math.log10(1 / 0.25), abs=0.1)  # no flow: the noise itself
    assert match_denoiser("heat", data, sigma=0.5).arguments["time"] > found.arguments["time"]
    assert match_denoiser("heat", data, sigma=0.25, arguments={"time": 0.05}).arguments == {"time": 0.05}
    assert found.denoiser.certify_header.task == "denoising"
    with pytest.raises(InvalidSetting):
        match_denoiser("heat", data, sigma=0.0)
