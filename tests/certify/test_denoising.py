"""A classifier behind a denoiser is one base classifier: its identity holds both, and all else works."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.checkpoints import model_digest
from certify.contents import module_contents
from certify.denoising import Denoised, behind_denoiser
from certify.errors import (
    InvalidModel,
    InvalidSetting,
    NondeterministicModel,
    RunConflict,
)

SHAPE = (1, 4, 4)


class Blur(nn.Module):
    """A denoiser of one's own: a fraction of the mean, and nothing in the state dict."""

    def __init__(self, share=0.5):
        super().__init__()
        self.share = share

    def extra_repr(self):
        return f"share={self.share}"

    def forward(self, x):
        return (1 - self.share) * x + self.share * x.mean(dim=(2, 3), keepdim=True)


class Shrink(nn.Module):
    """Told the level: shrinks towards the middle of the range the more, the more noise there is."""

    sigmas = (0.1, 0.5)

    def forward(self, x, sigma):
        return 0.5 + (x - 0.5) / (1 + sigma)


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def shift(by):
    """A denoiser that differs in nothing but a weight."""
    found = nn.Conv2d(1, 1, 1).eval()
    nn.init.constant_(found.bias, by)
    return found


def pair(denoiser, *, seed=0, sigma=None):
    return certify.denoised(classifier(seed), denoiser.eval(), sigma=sigma)


def inputs(count=6):
    """On the grid of 8-bit images."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator).float() / 255


def smoothed(model, sigma=0.25, **options):
    return certify.Smoothed(model, sigma, num_classes=3, **options)


def records(model, x, **options):
    run = smoothed(model).certify(x, mode="fixed", n0=16, n=200, seed=5, **options)
    return [r.to_json() | {"seconds": 0} for r in run]


def test_it_is_the_classifier_of_the_denoised_input():
    model, blur, x = classifier(), Blur().eval(), inputs()
    assert torch.equal(certify.denoised(model, blur)(x), model(blur(x)))
    assert torch.equal(certify.denoised(model, Shrink().eval(), sigma=0.25)(x), model(Shrink()(x, 0.25)))


def test_records_are_those_of_one_network_that_does_both():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.blur = classifier(), Blur()

        def forward(self, x):
            return self.model(self.blur(x))

    assert records(certify.denoised(classifier(), Blur().eval()), inputs()) == records(
        Both().eval(), inputs()
    )


def test_the_noisy_lattice_point_goes_in_and_the_denoiser_works_inside():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x * 0.3

    smoothed(certify.denoised(classifier(), Spy().eval())).certify(inputs(2), mode="fixed", n0=8, n=8)
    points = torch.cat([batch.flatten() for batch in seen[-2:]]).double() * 255
    assert (points - points.round()).abs().max() < 1e-4


def test_plain_identity_changes_no_record():
    from pdenets.denoisers.identity import Identity

    assert records(certify.denoised(classifier(), Identity()), inputs()) == records(classifier(), inputs())


@pytest.mark.parametrize(("one", "other"), [
    (lambda: pair(Blur(0.5)), lambda: pair(Blur(0.4))),
    (lambda: pair(Blur()), lambda: classifier()),
    (lambda: pair(Blur()), lambda: pair(Blur(), seed=1)),
    (lambda: pair(Shrink(), sigma=0.25), lambda: pair(Shrink(), sigma=0.3)),
    (lambda: pair(shift(0.1)), lambda: pair(shift(0.2))),
], ids=["a number", "no denoiser", "classifier", "level", "weights"])  # fmt: skip
def test_a_run_goes_on_with_the_same_two_parts_only(tmp_path, one, other):
    first, second = one(), other()
    assert model_digest(first) == model_digest(copy.deepcopy(first)) != model_digest(second)
    options = {"mode": "fixed", "n0": 8, "n": 16, "store": str(tmp_path / "run")}
    smoothed(first).certify(inputs(1), **options)
    assert len(smoothed(first).certify(inputs(2), **options)) == 2
    with pytest.raises(RunConflict):
        smoothed(second).certify(inputs(2), **options)


def test_settings_and_guarantee_say_that_two_parts_are_certified():
    model = certify.denoised(classifier(), Shrink().eval(), sigma=0.25)
    run = smoothed(model).certify(inputs(1), mode="fixed", n0=8, n=16)
    found = run.settings["model"]
    assert found["classifier"]["digest"] == model_digest(classifier())
    assert found["denoiser"]["sigma"] == 0.25
    assert found["denoiser"]["kind"].endswith("Shrink")
    assert found["digest"] == model_digest(model) != found["classifier"]["digest"]
    assert "this classifier behind this denoiser" in run.guarantee
    json.dumps(run.settings)


def test_weights_changed_after_smoothing_are_refused_in_either_part():
    for part in ("denoiser", "model"):
        model = certify.denoised(classifier(), nn.Conv2d(1, 1, 1).eval())
        g = smoothed(model)
        with torch.no_grad():
            next(getattr(model, part).parameters()).add_(1.0)
        with pytest.raises(InvalidModel, match="have changed"):
            g.certify(inputs(1))


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x + 0 * self.draw(x)


DRAWS = {
    "randn": torch.randn_like,
    "rand": lambda x: torch.rand(x.shape),
    "normal": lambda x: torch.normal(0.0, torch.ones_like(x)),
    "bernoulli": lambda x: torch.bernoulli(torch.full_like(x, 0.5)),
    "in place": lambda x: torch.empty_like(x).normal_(),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=True),
    "permutation": lambda x: x[torch.randperm(len(x))],
    "seeded by the global stream": lambda x: torch.manual_seed(0) and torch.randn_like(x),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_denoiser_with_randomness_of_its_own_is_refused_though_it_changes_nothing_yet(name):
    model = certify.denoised(classifier(), Noisy(DRAWS[name]).eval())
    with torch.random.fork_rng(), pytest.raises(NondeterministicModel, match="random numbers of its own"):
        smoothed(model).certify(inputs(1), mode="fixed", n0=8, n=16)


QUIET = {
    "dropout": nn.Dropout(0.5),
    "dropout of channels": nn.Dropout2d(0.5),
    "alpha dropout": nn.AlphaDropout(0.5),
    "random slopes": nn.RReLU(),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True),
}


@pytest.mark.parametrize("name", QUIET)
def test_layers_that_draw_in_training_only_are_no_randomness(name):
    class Quiet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = copy.deepcopy(QUIET[name])

        def forward(self, x):
            if name != "attention":
                return self.layer(x)
            rows = x[:, 0]
            return self.layer(rows, rows, rows, need_weights=False)[0][:, None]

    torch.manual_seed(0)
    model = certify.denoised(classifier(), Quiet().eval())
    assert len(smoothed(model).certify(inputs(1), mode="fixed", n0=8, n=16)) == 1


def test_it_is_refused_already_when_composed_where_the_shape_is_known(tmp_path):
    net = _linear(num_classes=3, input_shape=SHAPE)
    certify.save(net, tmp_path / "a.pt", architecture=f"{__name__}:_linear",
                 num_classes=3, input_shape=SHAPE)  # fmt: skip
    known = certify.load(tmp_path / "a.pt", arch=f"{__name__}:_linear")
    with pytest.raises(NondeterministicModel):
        certify.denoised(known, Noisy(torch.randn_like).eval())
    with pytest.raises(InvalidModel, match="cannot take inputs of shape"):
        certify.denoised(known, nn.Conv2d(3, 3, 1).eval())
    with pytest.raises(InvalidModel, match="returned \\(2, 16\\)"):
        certify.denoised(known, nn.Flatten().eval())


def _linear(*, num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), num_classes)).eval()


def test_keyed_noise_that_is_a_fixed_function_passes_and_other_keyed_noise_does_not():
    class Keyed(nn.Module):
        def __init__(self, per_input):
            super().__init__()
            self.per_input = per_input

        def forward(self, x):
            generator = torch.Generator().manual_seed(1)
            shape = x.shape[1:] if self.per_input else x.shape
            return x + 0.3 * torch.randn(shape, generator=generator)

    smoothed(certify.denoised(classifier(), Keyed(True).eval())).certify(inputs(1), mode="fixed", n0=8, n=16)
    with pytest.raises(NondeterministicModel):  # its noise depends on the place in the batch
        smoothed(certify.denoised(classifier(), Keyed(False).eval())).certify(
            inputs(1), mode="fixed", n0=8, n=16
        )


@pytest.mark.parametrize(("model", "denoiser", "kind", "match"), [
    (classifier(), nn.Conv2d(1, 1, 1), InvalidModel, "denoiser is in training mode"),
    (classifier(), nn.Sequential().eval().append(nn.Dropout()), InvalidModel, "denoiser is in training"),
    (classifier().train(), Blur().eval(), InvalidModel, "model is in training mode"),
    (classifier(), nn.BatchNorm2d(1, track_running_stats=False).eval(), InvalidModel, "depends on the batch"),
    (classifier(), 0.25, InvalidModel, "is a float"),
    (classifier(), "heat", InvalidModel, "is a str"),
    ("clean.pt", Blur().eval(), InvalidModel, "is a str"),
])  # fmt: skip
def test_what_is_no_fixed_pair_is_refused(model, denoiser, kind, match):
    with pytest.raises(kind, match=match):
        certify.denoised(model, denoiser)


def test_nan_weights_of_the_denoiser_are_refused():
    broken = nn.Conv2d(1, 1, 1).eval()
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(InvalidModel, match="NaN"):
        certify.denoised(classifier(), broken)


@pytest.mark.parametrize(("sigma", "match"), [
    (None, "must be told"), (0.05, "knows nothing"), (0.6, "knows nothing"), (float("nan"), "cannot be told"),
    (-0.25, "cannot be told"), (0.0, "cannot be told"),
])  # fmt: skip
def test_levels_the_denoiser_was_not_trained_for_are_refused(sigma, match):
    with pytest.raises(InvalidSetting, match=match):
        certify.denoised(classifier(), Shrink().eval(), sigma=sigma)


def test_the_callers_modules_stay_as_they_were():
    model, blur = classifier(), Blur().eval()
    whole = certify.denoised(model, blur)
    assert whole.model is model
    assert whole.denoiser is blur
    assert not any(part.training for part in whole.modules())


def test_it_is_found_inside_a_wrapping_and_wraps_one():
    inner = certify.denoised(certify.wrap(classifier(), mean=0.5, std=0.25), Blur().eval())
    outer = certify.wrap(inner, scores="logits")
    assert behind_denoiser(outer) is inner
    assert model_digest(outer) != model_digest(certify.wrap(certify.denoised(
        certify.wrap(classifier(), mean=0.5, std=0.25), Blur(0.1).eval())))  # fmt: skip
    assert smoothed(outer).certify(inputs(1), mode="fixed", n0=8, n=16).settings["model"]["denoiser"]


def test_plain_functions_are_told_apart_by_what_they_are_made_of(tmp_path):
    weights = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))

    def scores(x):
        return x.flatten(1) @ weights

    def soften(strength):
        return lambda x: x * strength

    options = {"mode": "fixed", "n0": 8, "n": 16, "store": str(tmp_path / "run")}
    smoothed(certify.denoised(scores, soften(0.5))).certify(inputs(1), **options)
    smoothed(certify.denoised(scores, soften(0.5))).certify(inputs(2), **options)
    with pytest.raises(RunConflict):
        smoothed(certify.denoised(scores, soften(0.9))).certify(inputs(2), **options)


def test_an_estimator_outside_torch_stands_behind_a_denoiser():
    sklearn = pytest.importorskip("sklearn.linear_model")
    digits = certify.data.load("digits", split="train")
    fitted = sklearn.LogisticRegression(max_iter=500).fit(digits.x.flatten(1).numpy(), digits.y.numpy())

    def probabilities(x):
        return torch.from_numpy(fitted.predict_proba(x.flatten(1).numpy()))

    model = certify.denoised(certify.wrap(probabilities, scores="probabilities"), Blur(0.1).eval())
    data = certify.data.load("digits", limit=4)
    run = certify.Smoothed(model, 0.25, data=data).certify(data.x, data.y, mode="fixed", n0=16, n=64)
    assert sum(r.certified for r in run) >= 1
    assert run.settings["model"]["unchecked"] is not None
    from attacks import Threat, attack

    with pytest.raises(InvalidModel, match="gives no gradients"):
        attack(model, data.x, data.y, threat=Threat(norm=2, eps=0.5), preset="quick", seed=0)
    found = attack(model, data.x, data.y, threat=Threat(norm=2, eps=0.5), preset="black-box", seed=0)
    assert len(found) == 4


def test_an_onnx_classifier_stands_behind_a_denoiser(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "net.onnx"
    net = classifier()
    torch.onnx.export(net, (torch.zeros(1, *SHAPE),), path, dynamic_shapes=({0: "batch"},),
                      external_data=False, dynamo=True)  # fmt: skip
    model = certify.denoised(certify.load(path), Blur().eval())
    x = inputs(2)
    assert torch.allclose(model(x), net(Blur()(x)), atol=1e-5)
    assert records(model, x) == records(certify.denoised(net, Blur().eval()), x)
    assert model_digest(model) != model_digest(certify.denoised(certify.load(path), Blur(0.1).eval()))


def test_segmenters_are_certified_behind_a_denoiser():
    torch.manual_seed(0)
    net = nn.Conv2d(1, 3, 3, padding=1).eval()
    x = inputs(2)
    whole = certify.SmoothedSegmentation(certify.denoised(net, Blur(0.2).eval()), 0.1, num_classes=3)
    run = whole.certify(x, radius=0.05, n0=8, n=64)
    assert len(run.run) == 2
    assert run.settings["model"]["denoiser"]["kind"].endswith("Blur")
    assert "this classifier behind this denoiser" in run.run.guarantee
    with pytest.raises(NondeterministicModel):
        certify.SmoothedSegmentation(
            certify.denoised(net, Noisy(torch.randn_like).eval()), 0.1, num_classes=3
        ).certify(x, radius=0.05, n0=8, n=64)


def test_both_dtypes_and_every_batch_size_give_the_same_votes():
    from pdenets.denoisers.heat import HeatFlow

    model = certify.denoised(classifier(), HeatFlow(input_shape=SHAPE, time=0.3))
    x = inputs(3)
    found = [
        [r.counts for r in smoothed(model, batch_size=size).certify(x, mode="fixed", n0=8, n=50, seed=1)]
        for size in (1, 7, 64)
    ]
    assert found[0] == found[1] == found[2]
    for dtype in ("fp64", "bf16"):
        run = smoothed(model, dtype=dtype).certify(x, mode="fixed", n0=8, n=50, seed=1)
        assert all(sum(r.counts) == 50 for r in run)
    assert not isinstance(model.denoiser.rows, type(None))
    assert model.denoiser.rows.dtype is torch.float32  # the caller's own was not touched


def test_attacks_differentiate_through_the_denoiser_and_confirm_no_contradiction():
    from attacks import Threat, attack, challenge
    from pdenets.denoisers.total_variation import TotalVariation

    tv = TotalVariation(input_shape=SHAPE, strength=0.5, steps=10)
    model = certify.denoised(classifier(), tv, sigma=0.25)
    x = inputs(8)
    y = model(x).argmax(1)
    base = attack(model, x, y, threat=Threat(norm=2, eps=2.0), preset="quick", seed=0)
    assert base.counts().get("broken", 0) > 0
    g = smoothed(model)
    run = g.certify(x, y, n_max=2000, seed=1)
    assert any(r.certified for r in run)
    assert not run.contradictions(challenge(g, run, x, seed=2))


def test_a_denoiser_given_as_the_model_is_refused():
    from pdenets.denoisers.matching import match_denoiser

    data = certify.data.load("digits", split="train", limit=50)
    heat = match_denoiser("heat", data, sigma=0.25).denoiser
    with pytest.raises(InvalidSetting, match="is a denoiser"):
        certify.Smoothed(heat, 0.25)
    with pytest.raises(InvalidSetting, match="is a denoiser"):
        certify.SmoothedSegmentation(heat, 0.25)
    with pytest.raises(InvalidSetting, match="each other's place"):
        certify.denoised(heat, heat)


def test_it_is_saved_as_its_two_parts(tmp_path):
    whole = certify.denoised(classifier(), Blur().eval())
    assert isinstance(whole, Denoised)
    with pytest.raises(InvalidSetting, match="two parts"):
        certify.save(whole, tmp_path / "both.pt", num_classes=3, input_shape=SHAPE)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("front", ["dncnn", "tv"])
def test_no_certified_ball_of_a_hundred_is_broken_by_attacks_through_the_denoiser(tmp_path, front):
    """Smoothed attacks with gradients through D, averaged over keyed noise; fresh noise confirms a hit."""
    from attacks import challenge
    from pdenets.denoisers.matching import match_denoiser
    from pdenets.denoisers.training import train_denoiser
    from pdenets.training import train

    digits = certify.data.load("digits", split="train")
    train(digits, arch="cnn", out=tmp_path / "clean.pt", sigma=0.0, epochs=10)
    clean = certify.load(tmp_path / "clean.pt")
    if front == "dncnn":
        train_denoiser(digits, denoiser="dncnn", out=tmp_path / "d.pt", classifier=clean, epochs=10)
        denoiser = certify.load(tmp_path / "d.pt")
    else:
        denoiser = match_denoiser("tv", digits, sigma=0.25).denoiser
    test = certify.data.load("digits", split="test", limit=160)
    g = certify.Smoothed(certify.denoised(clean, denoiser, sigma=0.25), 0.25, data=test)
    run = g.certify(test.x, test.y, n_max=2000, seed=3)
    assert sum(r.certified and r.radius > 0 for r in run) >= 100
    found = challenge(g, run, test.x, ids=test.ids.tolist(), seed=4)
    assert len(found) >= 100
    assert not run.contradictions(found)


def test_where_a_denoiser_came_from_is_no_part_of_its_identity():
    class Named(nn.Module):
        """A network whose code loads the name ``source``, as one from a file does for its messages."""

        def __init__(self) -> None:
            super().__init__()
            self.source = "a name"

        def forward(self, x):
            assert self.source
            return x.flatten(1)[:, :3]

    model = certify.denoised(Named().eval(), nn.Identity().eval())
    before = module_contents(model)
    model.certify_source = "/somewhere/d.pt"
    assert module_contents(model) == before
    model.model.source = "another"
    assert module_contents(model) != before
