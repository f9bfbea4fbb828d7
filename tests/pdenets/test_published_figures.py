"""The figures this package stands for, measured again; minutes each."""

import sys
from pathlib import Path

import pytest

import certify
from certify.data import load
from certify.errors import DataNotFound
from pdenets.training import train

pytestmark = pytest.mark.slow


def test_residual_and_matched_noise_both_harden_the_half_moons(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import halfmoon_sweep

    natural = halfmoon_sweep.one_run("none", 0.0, 0.0, 0)
    residual = halfmoon_sweep.one_run("residual", 1.0, 0.1, 0)
    control = halfmoon_sweep.one_run("gaussian", 0.0, 0.1, 0)
    for found, at in ((residual, "T"), (control, "T-1")):
        assert found[f"{at} linf 0"] >= 0.955
        assert found[f"{at} linf 0.3"] >= natural["T-1 linf 0.3"] + 0.2
    sys.modules.pop("halfmoon_sweep", None)


@pytest.mark.timeout(1800)
def test_one_epoch_of_mnist_already_certifies(tmp_path):
    try:
        data, test = load("mnist", split="train"), load("mnist", split="test", limit=100)
    except DataNotFound:
        pytest.skip("MNIST is not on this machine (CERTIFY_DATA)")
    train(data, test, arch="convection-diffusion", sigma=0.25, epochs=1, out=tmp_path / "mnist.pt")
    g = certify.Smoothed(certify.load(tmp_path / "mnist.pt"), sigma=0.25)
    run = g.certify(test.x, test.y, mode="fixed", n=1000, seed=0)
    at_zero, at_half = (estimate.value for estimate in run.accuracy(at=(0.0, 0.5)))
    assert at_zero >= 0.95
    assert at_half >= 0.85
