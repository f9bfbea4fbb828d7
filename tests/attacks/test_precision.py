"""Models of every precision, and scores of every precision: attacked, or refused by name."""

import copy
import math

import pytest
import torch
from torch import nn

import certify
from attacks import AttackStatus, Budget, Threat, attack
from attacks.apgd import apgd_ce, apgd_margin, apgd_targeted
from attacks.close_calls import Round, close_calls
from attacks.fab import fab_targeted
from attacks.losses import cross_entropy
from attacks.minimal import deepened, growing, minimal
from attacks.oracle import Oracle
from attacks.pgd import pgd
from attacks.problem import Problem
from attacks.rays import rays
from attacks.square import coordinate, square
from attacks.under_attack import UnderAttack
from certify.errors import CertifyError, InvalidModel, NondeterministicModel

X = torch.round(torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 255) / 255
SMALL = Budget(confirm_samples=300, draws=4, refine_draws=4)


def network(classes=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, classes)).eval()


NET, TWO = network(), network(2)


def cast(dtype):
    return copy.deepcopy(NET).to(dtype)


def inside_autocast(z):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return NET(z)


MODELS = {
    "float64 weights": cast(torch.float64),
    "float16 weights": cast(torch.float16),
    "bfloat16 weights": cast(torch.bfloat16),
    "float64 scores": lambda z: NET(z).double(),
    "float16 scores": lambda z: NET(z).half(),
    "bfloat16 scores": lambda z: NET(z).bfloat16(),
    "autocast": inside_autocast,
    "probabilities": certify.wrap(nn.Sequential(NET, nn.Softmax(1)).eval(), scores="probabilities"),
    "one probability": certify.wrap(lambda z: TWO(z).softmax(1)[:, 1], binary=True, scores="probabilities"),
    "one logit": certify.wrap(lambda z: 9 * (TWO(z)[:, 1] - TWO(z)[:, 0] - 0.5), binary=True),
    "normalised half": certify.wrap(cast(torch.float16), mean=[0.5], std=[0.25]),
    "float64 inside, float32 out": lambda z: NET(z.double().float()),
}


def confirmed(model, x, y, run):
    """How many hits hold when the model itself is asked again, in the precision it computes in."""
    weights = (
        next((p.dtype for p in model.parameters()), torch.float32) if isinstance(model, nn.Module) else None
    )
    found = 0
    for o in run:
        if o.broken:
            point = torch.as_tensor(o.adversarial)[None].to(weights or torch.float32)
            with torch.no_grad():
                assert int(model(point).argmax(1)) != int(y[o.index]) == o.target
            assert float((point.double() - x[o.index].double()).abs().max()) < 1
            found += 1
    return found


FAST = ("quick", "minimal", "black-box")
LONG = ("standard", "thorough")


@pytest.mark.parametrize(
    ("name", "preset"),
    [(n, p) for n in MODELS for p in FAST]
    + [pytest.param(n, p, marks=pytest.mark.slow) for n in MODELS for p in LONG],
)
def test_every_preset_attacks_every_precision(name, preset):
    model = MODELS[name]
    eps = None if preset == "minimal" else 0.02 if preset in LONG else 1.5
    x = X[:1] if preset in LONG else X
    weights = (
        next((p.dtype for p in model.parameters()), torch.float32)
        if isinstance(model, nn.Module)
        else torch.float32
    )
    with torch.no_grad():
        y = model(x.to(weights)).argmax(1)
    run = attack(model, x, y, threat=Threat(2, eps), preset=preset, seed=1)
    assert all(o.clean_correct for o in run)
    hits = confirmed(model, x, y, run)
    assert preset in LONG or hits > 0, run


#: Every search that some preset runs, cut short.
SEARCHES = {
    "pgd": lambda q: pgd(q, loss=cross_entropy, steps=3, restarts=2),
    "apgd-ce": lambda q: apgd_ce(q, steps=6),
    "apgd-margin": lambda q: apgd_margin(q, steps=6),
    "apgd-t": lambda q: apgd_targeted(q, steps=6),
    "fab-t": lambda q: fab_targeted(q, steps=6),
    "square": lambda q: square(q, queries=60),
    "coordinate": lambda q: coordinate(q, queries=60),
    "close-calls": lambda q: close_calls(q, rounds=(Round(4, 5, 1.0),)),
    "nearest": lambda q: deepened(q, minimal(q, ddn_steps=5, fab_steps=5, starts=1, targets=2)[0]),
    "rays": lambda q: rays(q, torch.ones_like(q.eps), directions=4),
    "growing": lambda q: growing(q, doublings=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_search_computes_in_one_precision(name):
    model = UnderAttack(MODELS[name])
    x = model.place(X)
    for p in (1.0, 2.0, math.inf):
        for preset, search in SEARCHES.items():
            problem = Problem.of(
                Oracle(model, len(x)), x, model.own(x).argmax(1), eps=0.5, p=p, box=(0.0, 1.0), seed=0,
                classes=3,
            )  # fmt: skip
            found = search(problem)
            assert found.dtype == x.dtype, preset
            assert found.shape == x.shape, preset
            assert found.isfinite().all(), preset


@pytest.mark.parametrize("eps", [None, 0.4])
@pytest.mark.parametrize(
    "name", ["float64 weights", "bfloat16 weights", "float64 scores", "probabilities", "one probability"]
)
def test_the_smoothed_preset_does_so_too(name, eps):
    model = MODELS[name]
    g = certify.Smoothed(model, 0.1, num_classes=2 if name.startswith("one") else 3, batch_size=64)
    run = attack(g, X[:2], threat=Threat(2, eps), preset="smoothed", seed=1, budget=SMALL)
    assert {o.status for o in run} <= {AttackStatus.BROKEN, AttackStatus.SURVIVED, AttackStatus.UNCONFIRMED}


def test_close_calls_of_wide_scores_keep_their_sign():
    """Two scores that float32 cannot tell apart: the search must still know who leads."""

    def close(z):
        lead = z.flatten(1)[:, :1].double() - 0.5
        return torch.cat([1e9 + 1e-3 * lead, torch.full_like(lead, 1e9)], 1)

    x = torch.tensor([[[[0.9]]], [[[0.1]]]])
    run = attack(close, x, torch.tensor([0, 1]), threat=Threat("inf", 0.6), preset="quick")
    assert [o.clean_correct for o in run] == [True, True]
    assert [o.status for o in run] == [AttackStatus.BROKEN] * 2
    assert all(o.margin32 < 0 for o in run)


REFUSED = {
    "complex scores": (lambda z: NET(z) * 1j, "complex64"),
    "whole scores": (lambda z: (NET(z) * 100).round().long(), "int64 scores"),
    "yes or no": (lambda z: NET(z) > 0, "bool scores"),
    "labels": (lambda z: NET(z).argmax(1), "labels, not scores"),
    "one sigmoid": (lambda z: TWO(z).softmax(1)[:, :1], "where it ends in a sigmoid"),
    "one score": (lambda z: TWO(z)[:, :1] * 9, r"certify\.wrap\(model, binary=True\)"),
    "an answer with names": (lambda z: {"logits": NET(z)}, "output='logits'"),
    "a tuple": (lambda z: (NET(z), z), "output=0"),
    "an array": (lambda z: NET(z).detach().numpy(), "torch.as_tensor"),
    "complex probabilities": (certify.wrap(lambda z: NET(z) * 1j, scores="probabilities"), "complex64"),
    "labels as one logit": (certify.wrap(lambda z: TWO(z).argmax(1), binary=True), "labels, not scores"),
    "its own error": (lambda z: NET(z.double()), "cannot take inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_answers_that_are_no_scores_have_a_name(case):
    model, text = REFUSED[case]
    with pytest.raises(InvalidModel, match=text):
        attack(model, X, threat=Threat(2, 0.1), preset="quick")
    with pytest.raises(InvalidModel, match=text):
        certify.Smoothed(model, 0.25, num_classes=2 if "one" in case else 3).certify(X, n_max=100)


class Detached(nn.Module):
    """Its weights have gradients, its inputs have none."""

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, z):
        return self.net(z.detach())


class Undifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clone()


WITHOUT = {
    "detach": lambda z: NET(z.detach()),
    "detach in a module": Detached().eval(),
    "no_grad": torch.no_grad()(lambda z: NET(z)),
    "inference mode": torch.inference_mode()(lambda z: NET(z)),
    "a copy through numpy": lambda z: NET(torch.from_numpy(z.detach().numpy())),
    "a function without backward": lambda z: NET(Undifferentiable.apply(z)),
    "argmax": lambda z: nn.functional.one_hot(NET(z).argmax(1), 3).float(),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_scores_cut_off_from_the_inputs_are_said_to_be(case):
    for preset, threat in (("quick", Threat(2, 0.1)), ("minimal", Threat(2))):
        with pytest.raises(InvalidModel, match=r'no gradients(.|\n)*preset="black-box"'):
            attack(WITHOUT[case], X, threat=threat, preset=preset)


def test_a_gradient_that_is_no_number_stops_no_search():
    root = nn.Linear(36, 3).eval()
    run = attack(
        lambda z: root((z.flatten(1) - 0.5).abs().sqrt() * (z.flatten(1) - 0.5).sign()),
        torch.full((2, 1, 6, 6), 0.5), threat=Threat("inf", 0.4), preset="quick",
    )  # fmt: skip
    assert all(o.status in (AttackStatus.BROKEN, AttackStatus.SURVIVED) for o in run)
    assert all(math.isfinite(o.distance) for o in run if o.broken)


def coupled_by_the_batch(z):
    return NET((z - z.mean(0)) * 3 + z.mean())


def coupled_by_a_step_size(z):
    step = 1 / z.flatten(1).norm(dim=1).max()  # all rows go as far as the stiffest of them allows
    return NET(z + step * torch.tanh(3 * z))


def coupled_by_the_first_row(z):
    return NET(z) + z[:1].flatten(1).sum(1, keepdim=True) * torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize("model", [coupled_by_the_batch, coupled_by_a_step_size, coupled_by_the_first_row])
def test_an_answer_that_changes_with_the_batch_is_refused_by_attack_and_certificate(model):
    for call in (
        lambda: attack(model, X, threat=Threat(2, 0.1), preset="quick"),
        lambda: certify.Smoothed(model, 0.25, num_classes=3).certify(X, n_max=100),
    ):
        with pytest.raises(NondeterministicModel, match="rest of the batch") as caught:
            call()
        assert "adaptive step size" in caught.value.why
        assert "rk4" in caught.value.remedy


def test_labels_alone_give_a_search_nothing_to_follow():
    def votes(z):
        return nn.functional.one_hot(NET(z).argmax(1), 3).float()

    run = attack(votes, X, threat=Threat(2, 0.05), preset="black-box")
    survivors = [o for o in run if o.status is AttackStatus.SURVIVED]
    assert survivors
    assert all(o.details["plateau"] for o in survivors)
    assert run.flags["plateau"] == len(survivors)
    assert "plateau" in repr(run)


def test_steps_in_the_scores_are_no_plateau():
    run = attack(lambda z: (NET(z) * 20).round() / 20, X, threat=Threat("inf", 0.3), preset="black-box")
    assert run.flags["plateau"] == 0
    assert "plateau" not in repr(run)
    saturated = attack(lambda z: (NET(z) * 1e4).softmax(1), X, threat=Threat(2, 1e-3), preset="black-box")
    assert saturated.flags["plateau"] == saturated.counts()["survived"] > 0


def test_a_break_needs_scores_that_are_numbers():
    def hole(z):
        return torch.where(z.flatten(1).sum(1, keepdim=True) > 18.2, math.nan, NET(z))

    def abyss(z):
        hit = z.flatten(1).sum(1, keepdim=True) > 18.2
        return torch.where(
            hit & (torch.arange(3) == 0), -math.inf, NET(z).clamp(-1, 1) + torch.tensor([9.0, 0, 0])
        )

    for model in (hole, abyss):
        with torch.no_grad():
            run = attack(model, X, threat=Threat("inf", 0.3), preset="black-box")
            for o in run:
                if o.broken:
                    assert model(torch.as_tensor(o.adversarial)[None]).isfinite().all()
            assert all(o.margin32 is None or math.isfinite(o.margin32) for o in run)


def test_a_break_does_not_hang_on_where_its_row_lies_in_memory():
    for seed in (2, 8):
        torch.manual_seed(seed)
        flat = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()
        flat[1].weight.data *= 1e-6
        flat[1].bias.data[:] = 3.0
        x = torch.rand(12, 1, 3, 3)
        y = flat(x).argmax(1)
        broken = [o for o in attack(flat, x, y, threat=Threat(2), preset="minimal", seed=1) if o.broken]
        assert broken
        for o in broken:
            for offset in range(16):
                place = torch.empty(9 + offset)[offset:]
                place.copy_(torch.as_tensor(o.adversarial).flatten())
                assert int(flat(place.view(1, 1, 3, 3)).argmax(1)) != int(y[o.index])


def test_named_errors_are_all_of_one_family():
    assert issubclass(NondeterministicModel, CertifyError)
