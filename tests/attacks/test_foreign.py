"""Attacks of other libraries and plain functions: they search, the judge decides."""

import functools
import inspect
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import certify
from attacks import AttackStatus, Threat, attack
from certify.errors import InvalidSetting
from tests.attacks.models import at_distances, half_space

torchattacks = pytest.importorskip("torchattacks")

#: Small settings: what is tested is that they run and are judged, not how strong they are.
QUICK = {
    "steps": 10, "alpha": 0.05, "eot_iter": 1, "nb_iter": 3, "nb_sample": 8, "max_iterations": 20,
    "binary_search_steps": 2, "n_queries": 20, "max_patches": 5, "max_iteration": 3, "inf_batch": 32,
    "popsize": 4, "pixels": 2, "n_restarts": 1, "m": 2, "N": 2, "noise_batch_size": 2, "max_iter": 3,
    "restarts": 1, "gamma": 0.2, "num_iter_set": 5, "n_classes": 4,
}  # fmt: skip
#: What cannot be built from a model alone: a list of attacks, and training data.
OTHERS = ("MultiAttack", "LGV")
#: Attacks that change the class of some of the images below when any distance will do.
STRONG = ("FGSM", "BIM", "PGD", "MIFGSM", "UPGD", "APGD", "APGDT", "AutoAttack", "JSMA", "DeepFool", "CW",
          "PGDL2", "FAB")  # fmt: skip
CLASSES = [n for n in torchattacks.__all__ if n not in OTHERS] if hasattr(torchattacks, "__all__") else []


def images():
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 64, 4)
    ).eval()
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    return network, x, network(x).argmax(1)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_torchattacks_runs_and_is_judged(name):
    network, x, y = images()
    network[0].weight.requires_grad_(False)  # as the caller left it, so it must stay
    made = getattr(torchattacks, name)
    known = inspect.signature(made.__init__).parameters
    options = {k: v for k, v in QUICK.items() if k in known} | ({"eps": 0.3} if "eps" in known else {})
    if name == "CW":
        options = {"c": 5.0, "steps": 100, "lr": 0.05}
    network.train()
    before = torch.get_rng_state()
    run = attack(network, x, y, threat=Threat("inf"), with_=made(network, **options))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert run.preset == f"torchattacks.{name}"
    assert len(run) == 4
    network.eval()
    for o, clean in zip(run, x, strict=True):
        assert o.status in (AttackStatus.BROKEN, AttackStatus.SURVIVED, AttackStatus.UNCONFIRMED)
        if o.broken:
            point = torch.from_numpy(o.adversarial)
            assert network(point[None]).argmax(1) != y[o.index]
            assert o.distance == pytest.approx(float((point - clean).abs().max()), rel=1e-5)
            assert o.by_attack == f"torchattacks.{name}"
    if name in STRONG:
        assert run.counts()["broken"] >= 1
        assert all(o.forwards > 2 for o in run)


def walk(share, normal=None):
    """A function that goes to ``share`` of the exact distance from the half space's boundary."""

    def straight(x, y):
        signed = x @ normal
        return x - share * signed[:, None] * normal

    return straight


DISTANCES = torch.tensor([0.1, 0.4, -0.2, 0.9])


@pytest.mark.parametrize(("share", "eps", "statuses"), [
    (1.02, None, "BBBB"), (0.98, None, "SSSS"), (1.02, 0.5, "BBBU"), (1.02, 0.3, "BUBU"),
])  # fmt: skip
def test_what_a_function_finds_is_measured_exactly(share, eps, statuses):
    model, normal = half_space(8)
    x = at_distances(normal, DISTANCES)
    run = attack(model, x, model(x).argmax(1), threat=Threat(2, eps, None), with_=walk(share, normal))
    assert "".join(str(o.status)[0].upper() for o in run) == statuses
    for o, far in zip(run, DISTANCES.abs().tolist(), strict=True):
        assert o.distance is None if not o.broken else o.distance == pytest.approx(share * far, rel=1e-4)
    assert run.preset == "straight"


def test_points_on_the_surface_are_not_lost_to_rounding():
    """x + eps sign(g) computed in single precision leaves a ball by an ulp; that is no false claim."""
    model, normal = half_space(50, seed=2)
    x = at_distances(normal, torch.full((20,), 0.05))
    assert float(normal.abs().sum()) * 8 / 255 > 0.1, "the move is long enough to cross"
    move = -normal.sign() * torch.tensor(8 / 255)
    outside = (x + move).double().sub(x.double()).abs().amax(1) > 8 / 255 * (1 + 1e-6)
    assert outside.any()
    threat = Threat("inf", 8 / 255, None)
    run = attack(model, x, torch.zeros(20, dtype=torch.long), threat=threat, with_=lambda x, y: x + move)
    assert run.counts()["broken"] == 20
    assert all(o.distance <= 8 / 255 * (1 + 1e-6) for o in run)
    longer = attack(model, x, model(x).argmax(1), threat=threat, with_=lambda x, y: x + 1.001 * move)
    assert longer.counts()["unconfirmed"] == 20


def test_box_mask_and_lattice_hold_for_tools_that_know_none():
    model, normal = half_space(6, seed=1)
    x = (at_distances(normal, torch.tensor([0.3, -0.3])) * 8).round() / 8
    y = model(x).argmax(1)
    far = walk(4.0, normal)
    boxed = attack(model, x, y, threat=Threat(2, 9.0, (float(x.min()), float(x.max()))), with_=far)
    assert all(o.broken == (o.in_box is True) for o in boxed)
    mask = torch.tensor([1, 1, 1, 1, 1, 0])
    masked = attack(model, x, y, threat=Threat(2, bounds=None, mask=mask), with_=far)
    grid = attack(model, x, y, threat=Threat(2, bounds=None, grid=1 / 8), with_=far)
    assert masked.counts()["broken"] == grid.counts()["broken"] == 2
    for o, p in zip(masked, grid, strict=True):
        assert o.adversarial[5] == float(x[o.index, 5])
        assert np.array_equal(p.adversarial * 8, (p.adversarial * 8).round())


def test_leaving_the_box_is_no_break():
    model, normal = half_space(6, seed=1)
    x = 0.5 + 0.0 * at_distances(normal, torch.tensor([0.3]))
    y = model(x).argmax(1)
    run = attack(model, x, y, threat=Threat(2), with_=walk(20.0, normal))
    assert run[0].status is AttackStatus.UNCONFIRMED
    assert run[0].in_box is False


def library(model, inputs, labels, *, share=1.05):
    """A function in the call convention of adversarial-library."""
    inputs = inputs.clone().requires_grad_()
    scores = model(inputs)
    gap = scores.gather(1, labels[:, None]).squeeze(1) - scores.gather(1, 1 - labels[:, None]).squeeze(1)
    (g,) = torch.autograd.grad(gap.sum(), inputs)
    return (inputs - share * gap[:, None] * g / g.square().sum(1, keepdim=True)).detach()


library.__module__ = "adv_lib.attacks.walk"


def model_first(model, inputs, labels, share=1.05):
    return library(model, inputs, labels, share=share)


def test_a_function_that_takes_the_model_gets_it():
    model, normal = half_space(8)
    x, y = at_distances(normal, DISTANCES), (DISTANCES < 0).long()
    run = attack(model, x, y, threat=Threat(2, bounds=None), with_=functools.partial(library, share=1.1))
    assert [o.distance for o in run] == pytest.approx((1.1 * DISTANCES.abs()).tolist(), rel=1e-4)
    assert run.preset == run[0].by_attack == "adv_lib.library"
    assert attack(model, x, y, threat=Threat(2, bounds=None), with_=model_first).preset == "model_first"


class StandIn:
    """An attack in foolbox's call convention; its module says that it is one."""

    def __call__(self, model, inputs, criterion, *, epsilons, **options):
        assert model.bounds == (0.0, 1.0)
        raw = library(model.network, inputs, criterion)
        delta = raw - inputs
        size = delta.norm(dim=1, keepdim=True)
        clipped = inputs + delta * ((epsilons or math.inf) / size).clamp_max(1.0)
        return raw, clipped, model.network(clipped).argmax(1) != criterion


StandIn.__module__ = "foolbox.attacks.stand_in"


class WrappedModel:
    """What the stand-in needs of foolbox.PyTorchModel, which refuses models in training mode."""

    def __init__(self, network, *, bounds, device):
        assert not network.training
        self.network, self.bounds, self.device = network, bounds, device


def test_an_object_in_the_convention_of_foolbox_gets_a_wrapped_model(monkeypatch):
    module = types.ModuleType("foolbox")
    module.PyTorchModel = WrappedModel
    monkeypatch.setitem(sys.modules, "foolbox", module)
    model, normal = half_space(8)
    centre = torch.full((8,), 0.5)
    model.bias.data = -(model.weight @ centre).detach()
    x, y = 0.05 * at_distances(normal, 4 * DISTANCES) + centre, (DISTANCES < 0).long()
    model.train()
    run = attack(model, x, y, threat=Threat(2, 0.1), with_=StandIn())
    assert [o.broken for o in run] == [True, True, True, False]
    assert run.preset == "foolbox.StandIn"
    free = attack(model, x, y, threat=Threat(2), with_=StandIn())
    assert [o.distance for o in free] == pytest.approx((1.05 * 0.2 * DISTANCES.abs()).tolist(), rel=1e-3)
    with pytest.raises(InvalidSetting, match="cannot attack this model"):
        attack(model, x, y, threat=Threat(2, bounds=None), with_=StandIn())


@pytest.mark.parametrize("name", ["LinfPGD", "L2DeepFoolAttack", "DDNAttack", "FGSM", "L2FMNAttack",
                                  "HopSkipJumpAttack", "L2CarliniWagnerAttack", "LInfFMNAttack",
                                  "L2PGD", "NewtonFoolAttack"])  # fmt: skip
def test_attacks_of_foolbox_run_and_are_judged(name):
    attacks = pytest.importorskip("foolbox.attacks")
    network, x, y = images()
    options = {"steps": 20} if "steps" in inspect.signature(getattr(attacks, name)).parameters else {}
    p = "inf" if "inf" in name.lower() or name == "FGSM" else 2
    run = attack(network, x, y, threat=Threat(p, 1.0), with_=getattr(attacks, name)(**options))
    assert run.counts()["broken"] + run.counts()["survived"] + run.counts()["unconfirmed"] == 4
    assert run.preset.startswith("foolbox.")


@pytest.mark.parametrize(("tool", "words"), [
    (3, "is no attack"), (torchattacks.CW, "this is a class"), (lambda x, y: None, "returned no inputs"),
    (lambda x, y: x[:, :3], "returned no inputs"), (lambda x, y: (x * 255).to(torch.uint8), "uint8"),
    (lambda x, y: 1 / 0, "failed on inputs"), (lambda x: x, "failed on inputs"),
])  # fmt: skip
def test_what_is_no_attack_is_refused(tool, words):
    model, normal = half_space(8)
    x = at_distances(normal, DISTANCES)
    with pytest.raises(InvalidSetting, match=words):
        attack(model, x, model(x).argmax(1), threat=Threat(2, 0.1, None), with_=tool)


def test_no_number_is_no_find_and_arrays_will_do():
    model, normal = half_space(8)
    x = at_distances(normal, DISTANCES)
    y = model(x).argmax(1)
    threat = Threat(2, bounds=None)
    lost = attack(model, x, y, threat=threat, with_=lambda x, y: x * float("nan"))
    assert lost.counts()["survived"] == 4
    found = attack(model, x, y, threat=threat, with_=lambda x, y: walk(1.1, normal)(x, y).numpy().astype("d"))
    assert found.counts()["broken"] == 4


def test_inputs_that_torchattacks_would_clip_are_refused():
    model, normal = half_space(8)
    x = at_distances(normal, DISTANCES)
    with pytest.raises(InvalidSetting, match="cannot take these inputs"):
        attack(model, x, model(x).argmax(1), threat=Threat("inf", 0.1, None), with_=torchattacks.PGD(model))


def test_only_correct_inputs_are_attacked_and_draws_follow_the_seed():
    model, normal = half_space(8)
    x, seen = at_distances(normal, DISTANCES), []

    def noisy(x, y):
        seen.append((len(x), y.tolist()))
        return x + 0.3 * torch.randn_like(x) + 0.1 * np.random.randn()  # noqa: NPY002

    y = torch.zeros(4, dtype=torch.long)
    runs = [attack(model, x, y, threat=Threat(2, bounds=None), with_=noisy, seed=s) for s in (1, 1, 2)]
    assert runs[0][2].status is AttackStatus.CLEAN_ERROR
    assert seen == [(3, [0, 0, 0])] * 3
    rows = [[(o.status, o.distance, o.margin32) for o in run] for run in runs]
    assert rows[0] == rows[1] != rows[2]


def test_a_smoothed_classifier_is_not_attacked_with_it():
    model, normal = half_space(8)
    smoothed = certify.Smoothed(model, 0.25, num_classes=2)
    with pytest.raises(InvalidSetting, match="smoothed classifier"):
        attack(smoothed, at_distances(normal, DISTANCES), threat=Threat(2), with_=walk(1.1, normal))
