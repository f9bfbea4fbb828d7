"""Every noise law names its ball and what its guarantee leaves out; nothing stands in for a missing one."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.errors import InvalidSetting
from certify.geometry import GaussianBall, make_geometry
from certify.inside.effective_sigma import NoiseStage
from certify.inside.internal_noise import InternalNoise, SmoothedInside
from certify.laws import LAWS, law_of
from certify.noise import NAMES, REGISTERED, make_noise
from certify.noise.gaussian import GaussianNoise
from certify.noise.l1 import UniformNoise
from certify.noise.lattice import LatticeNoise
from certify.verification.ball import reach_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
OWN_NORM = {"uniform": "1", "laplace": "1"}


def law(name):
    if name == "internal":
        return InternalNoise((NoiseStage(0.2, 1.0, 4), NoiseStage(0.1, 0.9, 4)))
    sigma = np.array([0.1, 0.2, 0.3, 0.4]) if name == "anisotropic" else 0.25
    return make_noise(name, sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))


def test_every_law_is_described_once_and_none_is_missing():
    assert set(LAWS) == {*NAMES, "internal"}
    assert {kind.name for kind in REGISTERED} == set(NAMES)
    assert [name for name in LAWS if LAWS[name].exact] == ["lattice"]


@pytest.mark.parametrize("name", LAWS)
def test_every_law_proves_what_the_second_implementation_proves(name):
    noise, norm = law(name), OWN_NORM.get(name, "2")
    assert noise.about is LAWS[name]
    assert (noise.label, noise.exact) == (LAWS[name].label, LAWS[name].exact)
    ball = make_geometry(noise, norm=norm, dim=4)
    sigma = float(np.min(noise.sigma))
    again = reach_of(
        {"noise": name, "sigma": sigma, "norm": norm, "dim": 4, "noise_settings": noise.settings()}
    )
    assert again is not None
    for p in (0.5, 0.6, 0.9, 0.999):
        assert ball.radius(p) == pytest.approx(again(p), rel=1e-9, abs=1e-12)
        assert ball.radius(p) <= again(p) * (1 + 1e-12)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("norm", ["1", "2", "inf", "3"])
def test_a_law_has_a_ball_of_its_own_or_refuses_the_norm(name, norm):
    only = {"uniform": "1", "laplace": "1", "anisotropic": "2"}.get(name)
    if only not in (None, norm):
        with pytest.raises(InvalidSetting, match=f"no certificate in norm {norm}"):
            make_geometry(law(name), norm=norm, dim=4)
    else:
        assert make_geometry(law(name), norm=norm, dim=4).norm == norm


class Cauchy(GaussianNoise):
    """Heavier tails, drawn in a way of its own; the ball was forgotten."""

    name = "cauchy"

    def law(self, shape):
        raise NotImplementedError


@dataclass(frozen=True)
class Coarse(LatticeNoise):
    """Another law on the grid, by another way to fill."""

    def fill(self, out, **keys):
        super().fill(out, **keys)
        out.mul_(0.5)


class Undecided(UniformNoise):
    def law(self, shape):
        raise NotImplementedError

    def ball(self, p, dim):
        return None


@pytest.mark.parametrize(
    "noise",
    [
        SimpleNamespace(name="student", sigma=0.25),
        Cauchy(sigma=0.25),
        Coarse(0.25, law("lattice").grid),
        Undecided(sigma=0.25),
    ],
    ids=["no ball", "inherited by another law", "inherited by another fill", "none"],
)
def test_a_law_without_a_ball_of_its_own_is_an_error_and_no_gaussian_ball(noise):
    with pytest.raises(InvalidSetting, match="proves no ball"):
        make_geometry(noise, norm="2", dim=4)


def test_a_law_that_names_its_own_ball_is_taken_at_its_word():
    class Narrower(GaussianNoise):
        def law(self, shape):
            return super().law(shape)

        def ball(self, p, dim):
            return GaussianBall(self.sigma / 2, p, dim)

    assert make_geometry(Narrower(sigma=0.5), norm="2", dim=4) == GaussianBall(0.25, 2.0, 4)
    assert make_geometry(replace(law("gaussian"), sigma=1.0), norm="2", dim=4).radius(0.9) > 1.28


class Inside(nn.Module):
    """Half-space in four coordinates with noise on all of them."""

    input_shape = (4,)

    def noise_stages(self):
        return (NoiseStage(0.25, 1.0, 4),)

    def noisy_logits(self, x, normals):
        score = (x + 0.25 * normals).sum(1, keepdim=True)
        return torch.cat([-score, score], dim=1)

    def forward(self, x):
        return self.noisy_logits(x, torch.zeros_like(x))


def guarantee(name):
    if name == "internal":
        g = SmoothedInside(Inside().eval(), num_classes=2, bounds=None, batch_size=50)
    else:
        g = certify.Smoothed(
            Inside().eval(), law(name).sigma, num_classes=2, noise=name, norm=OWN_NORM.get(name, "2"),
            grid=1 / 255, bounds=(0.0, 1.0), batch_size=50,
        )  # fmt: skip
    return g.certify(torch.ones(1, 4), mode="fixed", n0=10, n=100, seed=0)


@pytest.mark.parametrize("name", LAWS)
def test_the_guarantee_of_a_classifier_says_what_its_law_leaves_out(name):
    run = guarantee(name)
    assert LAWS[name].label in run.guarantee
    assert LAWS[name].excludes in run.guarantee
    assert ("not covered" in run.guarantee) != LAWS[name].exact
    assert law_of(run.settings) is LAWS[name]
    assert ("all points of the input grid" in run.guarantee) == LAWS[name].exact


@pytest.mark.parametrize("name", [n for n in NAMES if n != "anisotropic"])
def test_the_guarantee_of_a_segmentation_says_the_same(name):
    g = certify.SmoothedSegmentation(
        lambda x: torch.cat([x, 0.5 - x], dim=1), 0.25, num_classes=2, noise=name,
        norm=OWN_NORM.get(name, "2"), grid=1 / 255, bounds=(0.0, 1.0), batch_size=20,
    )  # fmt: skip
    text = g.certify(torch.ones(1, 1, 2, 2), n0=5, n=40, seed=0).guarantee
    assert LAWS[name].label in text
    assert LAWS[name].excludes in text
    assert ("not covered" in text) != LAWS[name].exact


def test_of_an_unknown_law_nothing_is_taken_for_granted():
    assert not law_of({}).exact
    for noise in ("student", {"name": "student"}, 3, ["lattice"], None):
        found = law_of({"noise": noise})
        assert not found.exact
        assert "not known here" in found.caveat
    assert law_of({"noise": {"name": "lattice"}}).exact


def test_the_truncations_that_are_named_are_those_of_the_sampler():
    assert math.sqrt(-2 * math.log(0.5 * 2.0**-31)) <= 6.67
    assert -math.log(0.5 * 2.0**-31) / math.sqrt(2) <= 15.7


def test_the_page_on_soundness_says_the_same_of_every_law():
    page = " ".join((DOCS / "soundness.md").read_text().split())
    for one in LAWS.values():
        assert f"`{one.name}`" in page
        assert one.excludes.removeprefix("not covered: ") in page
