"""Training a denoiser: both stages, resumption to the same weights, a frozen classifier, honest metrics."""

import copy
import math

import pytest
import torch
from torch import nn

import certify
from certify.checkpoints import read, tensor_digest
from certify.errors import ArchitectureMismatch, InvalidSetting, RunConflict, TrainingDiverged
from certify.files.safe import open_regular
from pdenets.denoisers.losses import Restoration, Stability, noised
from pdenets.denoisers.measuring import frozen, measure
from pdenets.denoisers.surrogate import answers, surrogate_for
from pdenets.denoisers.training import train_denoiser

SMALL = {"denoiser": "dncnn", "arguments": {"depth": 3, "width": 8}, "batch_size": 32}


@pytest.fixture(scope="module")
def digits():
    torch.set_num_threads(1)
    return certify.data.load("digits", split="train", limit=320)


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def test_training_restores_and_the_file_describes_itself(digits, tmp_path):
    found = train_denoiser(digits, out=tmp_path / "d.pt", sigmas=(0.5, 0.25), epochs=4, lr=5e-3, **SMALL)
    assert [m.stage for m in found.history] == ["mse"] * 4
    for sigma in (0.25, 0.5):
        assert (
            found.final.psnr[f"{sigma:g}"] > -20 * math.log10(sigma) + 1
        )  # better than leaving the noise in
    header, tensors = read(tmp_path / "d.pt")
    assert header.task == "denoising"
    assert header.training["sigmas"] == [0.25, 0.5]
    assert header.training["history"][-1]["psnr"] == found.final.psnr
    network = certify.load(tmp_path / "d.pt")
    assert network.sigmas == (0.25, 0.5)
    assert not network.training
    assert tensor_digest(network.state_dict()) == tensor_digest(tensors)
    with open_regular(tmp_path / "d.pt", "checkpoint") as file:
        assert file.read(2) == b"PK"


def test_an_interrupted_training_ends_with_the_same_weights_in_either_stage(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pdenets.denoisers.training.SAVE_EVERY", 0.0)
    options = {**SMALL, "epochs": 5, "classifier": classifier(), "seed": 3}
    train_denoiser(digits, out=tmp_path / "whole.pt", **options)
    whole = tensor_digest(read(tmp_path / "whole.pt")[1])

    class Stopped(Exception):
        pass

    for stop in (1, 2, 3, 4, 5):  # three epochs of mse, two of stability
        epochs = 0

        def stopping(progress, stop=stop):
            nonlocal epochs
            epochs += progress.step == 1
            if epochs == stop:
                raise Stopped

        out = tmp_path / f"stopped{stop}.pt"
        with pytest.raises(Stopped):
            train_denoiser(digits, out=out, progress=stopping, **options)
        assert not out.exists()
        found = train_denoiser(digits, out=out, **options)
        assert found.resumed_from == stop - 1
        assert [m.stage for m in found.history] == ["mse"] * 3 + ["stability"] * 2
        assert tensor_digest(read(out)[1]) == whole
        assert not out.with_name(out.name + ".unfinished").exists()


def test_an_unfinished_training_of_other_settings_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pdenets.denoisers.training.SAVE_EVERY", 0.0)
    out = tmp_path / "d.pt"
    calls = []

    def stopping(progress):
        calls.append(progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_denoiser(digits, out=out, epochs=3, progress=stopping, **SMALL)
    with pytest.raises(RunConflict, match="other settings"):
        train_denoiser(digits, out=out, epochs=3, sigmas=(0.3,), **SMALL)


def test_the_classifier_is_frozen_and_stays_as_it_was(digits, tmp_path):
    model = classifier()
    model.train()
    model[1].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    train_denoiser(digits, out=tmp_path / "d.pt", epochs=2, classifier=model, **SMALL)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    with frozen(model):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_stability_raises_the_share_of_answers_that_survive(tmp_path):
    from pdenets.training import train

    whole, test = (certify.data.load("digits", split=split) for split in ("train", "test"))
    train(whole, arch="cnn", out=tmp_path / "clean.pt", sigma=0.0, epochs=8)
    model = certify.load(tmp_path / "clean.pt")
    found = train_denoiser(
        whole, test, out=tmp_path / "d.pt", sigmas=(0.5,), loss="stability", classifier=model, epochs=8,
        lr=1e-2, **SMALL,
    )  # fmt: skip
    none = measure(Keep(), test, (0.5,), model).agreement["0.5"]
    assert found.final.agreement["0.5"] > none + 0.03


class Keep(nn.Module):
    def forward(self, x, sigma):
        return x


def test_metrics_are_what_they_say(digits):
    found = measure(Keep(), digits, (0.1, 1.0), classifier())
    assert found.psnr["0.1"] == pytest.approx(20, abs=0.1)
    assert found.psnr["1"] == pytest.approx(0, abs=0.1)
    assert found.clean_agreement == 1.0
    assert found.agreement["0.1"] > found.agreement["1"]
    assert measure(Keep(), digits, (0.1,)).agreement is None


def test_losses_are_the_textbook_ones(digits):
    x = digits.x[:16]
    generator = torch.Generator().manual_seed(0)
    value = Restoration((0.2,)).loss(Keep(), x, digits.y[:16], generator=generator)["mse"]
    assert float(value) == pytest.approx(0.04, rel=0.1)
    model = classifier()
    kept = Stability(model, (1e-6,)).loss(Keep(), x, digits.y[:16], generator=generator)["stability"]
    wanted = nn.functional.cross_entropy(model(x), model(x).argmax(1))
    assert kept.item() == pytest.approx(wanted.item(), abs=1e-4)


def test_levels_are_drawn_per_input_and_noise_has_their_size():
    x = torch.zeros(4000, 1, 4, 4)
    noisy, sigma = noised(x, (0.1, 0.5), torch.Generator().manual_seed(0))
    assert sorted({round(level, 6) for level in sigma.tolist()}) == [0.1, 0.5]
    for level in (0.1, 0.5):
        rows = noisy[(sigma - level).abs() < 1e-6]
        assert 1800 < len(rows) < 2200
        assert float(rows.std()) == pytest.approx(level, rel=0.02)


def test_training_starts_from_given_weights(digits, tmp_path):
    train_denoiser(digits, out=tmp_path / "a.pt", epochs=2, **SMALL)
    weights = read(tmp_path / "a.pt")[1]
    found = train_denoiser(digits, out=tmp_path / "b.pt", epochs=1, lr=1e-9, start=weights, **SMALL)
    later = read(tmp_path / "b.pt")[1]
    learned = [k for k in weights if "running" not in k and "num" not in k]
    assert all(torch.allclose(weights[k], later[k], atol=1e-6) for k in learned)
    assert found.history[0].psnr["0.25"] > 12.5
    assert read(tmp_path / "b.pt")[0].training["start"] == tensor_digest(weights)
    other = {**SMALL, "arguments": {"depth": 4}}
    with pytest.raises(ArchitectureMismatch, match="not those of this dncnn"):
        train_denoiser(digits, out=tmp_path / "c.pt", epochs=1, start=weights, **other)


def test_query_access_asks_once_per_input_and_never_for_gradients(digits, tmp_path):
    asked = []
    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))

    def oracle(x):
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        return nn.functional.one_hot((x.flatten(1) @ weights).argmax(1), 10).float()  # labels only

    labels = answers(oracle, digits)
    assert torch.equal(labels, (digits.x.flatten(1) @ weights).argmax(1))
    assert sum(asked) == len(digits)
    found = surrogate_for(oracle, digits, out=tmp_path / "s.pt", arch="mlp", epochs=10)
    assert found.queries == len(digits)
    assert found.agreement > 0.3
    asked.clear()
    again = surrogate_for(oracle, digits, out=tmp_path / "s.pt", arch="mlp", epochs=10)
    assert sum(asked) == len(digits)  # the same answers: nothing is trained again
    assert tensor_digest(again.network.state_dict()) == tensor_digest(found.network.state_dict())
    train_denoiser(digits, out=tmp_path / "d.pt", epochs=2, classifier=found.network, judge=oracle, **SMALL)


@pytest.mark.parametrize(("options", "kind", "match"), [
    ({"denoiser": "heat", "arguments": {"time": 1.0}}, ArchitectureMismatch, "sigmas"),
    ({"denoiser": "identity", "arguments": {}}, ArchitectureMismatch, "sigmas"),
    ({"sigmas": ()}, InvalidSetting, "noise levels"),
    ({"sigmas": (math.inf,)}, InvalidSetting, "noise levels"),
    ({"loss": "ce"}, InvalidSetting, "is unknown"),
    ({"loss": "stability"}, InvalidSetting, "needs a classifier"),
    ({"epochs": 0}, InvalidSetting, "no training"),
    ({"lr": math.nan}, InvalidSetting, "no training"),
    ({"schedule": "linear"}, InvalidSetting, "is unknown"),
    ({"augment": "mixup"}, InvalidSetting, "is unknown"),
    ({"classifier": lambda x: torch.zeros(len(x), 10), "loss": "stability"}, InvalidSetting, "no gradients"),
])  # fmt: skip
def test_what_is_no_training_is_refused_before_the_first_step(digits, tmp_path, options, kind, match):
    given = {**SMALL, "epochs": 2, **options}
    if not isinstance(given.get("classifier"), nn.Module) and "classifier" in given:
        given["classifier"] = Function(given["classifier"])
    with pytest.raises(kind, match=match):
        train_denoiser(digits, out=tmp_path / "d.pt", **given)
    assert not list(tmp_path.iterdir())


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.detach())


def test_a_training_that_diverges_says_so_and_writes_nothing(digits, tmp_path):
    with pytest.raises(TrainingDiverged):
        train_denoiser(digits, out=tmp_path / "d.pt", epochs=3, sigmas=(1e25,), **SMALL)
    assert not (tmp_path / "d.pt").exists()
