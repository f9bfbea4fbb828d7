"""The training loop: deterministic, resumable, self-describing, and never half written."""

import dataclasses

import pytest
import torch

import certify
from certify import checkpoints
from certify.data import load
from certify.errors import (
    ArchitectureMismatch,
    InvalidSetting,
    RunConflict,
    RunNotWritable,
    TrainingDiverged,
    UnreadableFile,
)
from pdenets import training
from pdenets.training import train
from pdenets.training_state import state_path


@pytest.fixture(autouse=True)
def _save_after_every_epoch(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)


@pytest.fixture(scope="module")
def moons():
    return load("moons", split="train", limit=120)


QUICK = {"arch": "convection-diffusion", "sigma": 0.2, "epochs": 4, "batch_size": 50}


class Interrupted(Exception):
    pass


def interrupt_at(epoch):
    def callback(progress):
        if progress.epoch == epoch and progress.step == 2:
            raise Interrupted

    return callback


def test_the_checkpoint_describes_itself(moons, tmp_path):
    out = tmp_path / "net.pt"
    result = train(moons, **QUICK, out=out)
    model = certify.load(out)
    header = model.certify_header
    assert (header.architecture, header.num_classes, tuple(header.input_shape)) == (
        "convection-diffusion", 2, (2,),
    )  # fmt: skip
    assert (header.low, header.high, header.grid) == (moons.low, moons.high, moons.grid)
    assert header.dataset["name"] == "moons"
    assert header.training["regulariser"] == "diffusion"
    assert header.training["diffusion_sigma"] == pytest.approx(0.2 / 2**0.5)
    assert header.training["final"] == dataclasses.asdict(result.final)
    assert [m.epoch for m in result.history] == [1, 2, 3, 4]
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert not model.training
    assert not state_path(out).exists()


def test_the_weights_are_those_of_the_last_epoch_and_the_metrics_belong_to_them(moons, tmp_path):
    held = load("moons", split="test", limit=300)
    result = train(moons, held, **QUICK, out=tmp_path / "net.pt")
    again = training.evaluate(certify.load(tmp_path / "net.pt"), held, sigma=0.2)
    assert result.final.accuracy == again.accuracy
    assert result.best.noisy_accuracy >= result.final.noisy_accuracy


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_interrupted_and_resumed_gives_the_same_weights(moons, tmp_path, suffix):
    straight = train(moons, **QUICK, out=tmp_path / f"a.{suffix}")
    out = tmp_path / f"b.{suffix}"
    with pytest.raises(Interrupted):
        train(moons, **QUICK, out=out, progress=interrupt_at(3))
    assert not out.exists()
    resumed = train(moons, **QUICK, out=out)
    assert (straight.resumed_from, resumed.resumed_from) == (0, 2)
    digests = {checkpoints.tensor_digest(checkpoints.read(r.path)[1]) for r in (straight, resumed)}
    assert len(digests) == 1
    assert straight.history == resumed.history


def test_the_average_of_the_weights_is_the_recursion(moons, tmp_path):
    """avg <- d avg + (1 - d) w after every step, beginning with the first step's weights."""
    steps, decay = [], 0.7

    class Watched(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            super().step(*args, **kwargs)
            steps.append([p.detach().clone() for group in self.param_groups for p in group["params"]])

    settings = QUICK | {"arch": "mlp", "epochs": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Watched)
        train(moons, **settings, average=decay, out=tmp_path / "a.pt")
    average = steps[0]
    for weights in steps[1:]:
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    written = list(certify.load(tmp_path / "a.pt").parameters())
    assert len(steps) > 3
    for ours, theirs in zip(average, written, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    header, _ = checkpoints.read(tmp_path / "a.pt")
    assert header.training["average"] == decay


def test_an_averaged_training_that_was_interrupted_gives_the_same_weights(moons, tmp_path):
    train(moons, **QUICK, average=0.9, out=tmp_path / "whole.pt")

    def stop(progress):
        if progress.epoch == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(moons, **QUICK, average=0.9, out=tmp_path / "parts.pt", progress=stop)
    train(moons, **QUICK, average=0.9, out=tmp_path / "parts.pt")
    whole, parts = (certify.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


@pytest.mark.parametrize("average", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_no_average_is_refused(moons, tmp_path, average):
    with pytest.raises(InvalidSetting, match="average"):
        train(moons, **QUICK, average=average, out=tmp_path / "a.pt")


def test_an_unfinished_training_is_not_continued_with_other_settings(moons, tmp_path):
    out = tmp_path / "net.pt"
    with pytest.raises(Interrupted):
        train(moons, **QUICK, out=out, progress=interrupt_at(2))
    with pytest.raises(RunConflict, match="lr"):
        train(moons, **QUICK, out=out, lr=1e-4)
    assert not out.exists()


def test_a_damaged_state_file_is_named(moons, tmp_path):
    out = tmp_path / "net.pt"
    with pytest.raises(Interrupted):
        train(moons, **QUICK, out=out, progress=interrupt_at(2))
    path = state_path(out)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableFile, match="unfinished"):
        train(moons, **QUICK, out=out)


def test_the_seed_decides_and_the_callers_stream_is_left_alone(moons, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs = [train(moons, **QUICK, out=tmp_path / f"{i}.pt", seed=s) for i, s in enumerate((0, 0, 1))]
    assert torch.equal(torch.rand(3), expected)
    a, b, c = (checkpoints.tensor_digest(checkpoints.read(r.path)[1]) for r in runs)
    assert a == b != c


class Exploding(torch.nn.Module):
    """Returns NaN for the first ``bad`` training batches."""

    bad = 0

    def __init__(self, **_):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        out = self.layer(x)
        if self.training and Exploding.bad:
            Exploding.bad -= 1
            return out * float("nan")
        return out


@pytest.fixture
def exploding(monkeypatch):
    from certify import registry

    monkeypatch.setattr(registry, "architecture", lambda name: Exploding)
    return Exploding


def test_a_non_finite_step_is_skipped_and_counted(exploding, moons, tmp_path):
    exploding.bad = 3
    result = train(moons, **QUICK, out=tmp_path / "net.pt")
    assert result.skipped_steps == 3
    _, tensors = checkpoints.read(tmp_path / "net.pt")
    assert all(t.isfinite().all() for t in tensors.values())


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_constant_rate_and_nesterov_momentum_are_the_textbook_recursion(moons, tmp_path, nesterov):
    lr, decay, momentum, epochs = 0.05, 0.01, 0.9, 6
    net = {"arch": "mlp", "sigma": 0.0, "regulariser": "none", "batch_size": 120}
    settings = net | {"optimizer": "sgd", "lr": lr, "weight_decay": decay, "schedule": "constant"}
    train(moons, moons, **settings, nesterov=nesterov, epochs=epochs, out=tmp_path / "net.pt")
    found = certify.load(tmp_path / "net.pt").state_dict()
    train(moons, moons, **settings | {"lr": 1e-30}, epochs=1, out=tmp_path / "start.pt")
    model = certify.load(tmp_path / "start.pt").train()
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for _ in range(epochs):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(moons.x), moons.y).backward()
        with torch.no_grad():
            for p, v in zip(model.parameters(), velocity, strict=True):
                gradient = p.grad + decay * p
                v.mul_(momentum).add_(gradient)
                p -= lr * (gradient + momentum * v if nesterov else v)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_the_rates_of_a_schedule(moons, tmp_path, monkeypatch):
    rates = {}
    for schedule in ("cosine", "steps", "constant"):
        seen = rates[schedule] = []
        step = torch.optim.SGD.step

        def watched(self, *args, seen=seen, step=step):
            seen.append(self.param_groups[0]["lr"])
            return step(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", watched)
            settings = {"arch": "linear", "sigma": 0.0, "optimizer": "sgd", "lr": 0.5, "schedule": schedule}
            train(moons, moons, **settings, epochs=10, batch_size=60, out=tmp_path / f"{schedule}.pt")
    assert rates["constant"] == [0.5] * 20
    # Epochs 4, 7 and 9 of ten begin after 30, 60 and 80 %; an epoch is two steps.
    assert rates["steps"] == pytest.approx([0.5] * 6 + [0.1] * 6 + [0.02] * 4 + [0.004] * 4)
    assert rates["cosine"][0] == 0.5
    assert rates["cosine"][10] == pytest.approx(0.25)
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)


def test_persisting_non_finite_steps_stop_training_and_leave_no_checkpoint(exploding, moons, tmp_path):
    exploding.bad = 10**6
    with pytest.raises(TrainingDiverged, match="in a row"):
        train(moons, **{**QUICK, "epochs": 50}, out=tmp_path / "net.pt")
    exploding.bad = 0
    assert not (tmp_path / "net.pt").exists()


@pytest.mark.parametrize(
    "bad", [{"lr": -1.0}, {"epochs": -3}, {"optimizer": "lbfgs"}, {"schedule": "linear"}, {"nesterov": True}]
)
def test_settings_no_training_can_have_are_refused(moons, tmp_path, bad):
    with pytest.raises(InvalidSetting):
        train(moons, **{**QUICK, **bad}, out=tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"out": "net.onnx"}, InvalidSetting, "ending"),
        ({"out": "file.txt/net.pt"}, RunNotWritable, "folder"),
        ({"arguments": {"colour": "red"}}, ArchitectureMismatch, "colour"),
        ({"arch": "resnet", "arguments": {"depth": 20}}, InvalidSetting, "no form"),
        ({"arch": "perceptron"}, ArchitectureMismatch, "no architecture"),
        ({"options": {"weight": float("nan")}}, UnreadableFile, "JSON"),
        ({"regulariser": "magic"}, InvalidSetting, "unknown"),
    ],
)
def test_what_cannot_end_well_is_refused_before_the_first_step(moons, tmp_path, change, error, message):
    (tmp_path / "file.txt").write_text("")

    def never(progress):
        raise AssertionError("training started")

    settings = QUICK | {"out": "net.pt"} | change
    with pytest.raises(error, match=message):
        train(moons, **settings | {"out": tmp_path / settings["out"]}, progress=never)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_held_out_inputs_are_not_trained_on(moons):
    kept, held = training.hold_out(moons, seed=0, share=0.1)
    assert len(held) == 12
    assert sorted([*kept.ids.tolist(), *held.ids.tolist()]) == sorted(moons.ids.tolist())


def test_residual_training_learns_the_moons(tmp_path):
    data, held = load("moons", split="train"), load("moons", split="test", limit=500)
    result = train(
        data, held, arch="convection-diffusion", sigma=0.2, epochs=60, batch_size=100, out=tmp_path / "net.pt"
    )
    assert result.final.accuracy > 0.97
    assert result.final.noisy_accuracy > 0.95
