"""The presets against exact answers: linear models, and exhaustive search in the plane."""

import math

import pytest
import torch
from torch import nn

from attacks import Budget, Threat, attack
from attacks.apgd import apgd_targeted
from attacks.fab import fab_targeted
from attacks.losses import margin
from attacks.minimal import deepened, minimal
from attacks.oracle import Oracle
from attacks.problem import Problem
from attacks.square import coordinate
from tests.attacks.models import bumpy, linear, linear_distance

NORMS = [1.0, 2.0, math.inf]


def uniform(n, *shape, seed=5):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))


def plane_net(classes, seed):
    """A curved two-dimensional classifier."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, classes))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(2.5)
    return model.eval()


def plane_distance(model, x, y, p, *, low, high, rings=400, spokes=720):
    """Distance to the nearest other class in the box, by trying every direction and radius on a fine grid."""
    if p == 2:
        angle = torch.linspace(0, 2 * math.pi, spokes + 1)[:-1]
        direction = torch.stack([angle.cos(), angle.sin()], 1)
    else:
        t = torch.linspace(-1, 1, spokes // 4)
        one = torch.ones_like(t)
        square = torch.cat([torch.stack(s, 1) for s in ((t, one), (t, -one), (one, t), (-one, t))])
        direction = square if math.isinf(p) else square / square.abs().sum(1, keepdim=True)
    out = []
    for row, label in zip(x, y, strict=True):
        radius = torch.linspace(0, (high - low), rings)[1:]
        points = row + radius[:, None, None] * direction
        ok = ((points >= low) & (points <= high)).all(-1)
        with torch.no_grad():
            flipped = (model(points.flatten(0, 1)).argmax(1) != label).view(ok.shape) & ok
        first = flipped.any(1).nonzero()
        out.append(float(radius[first[0]]) if len(first) else math.inf)
    return torch.tensor(out)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_minimal_attack_is_exact_on_linear_models(p, classes):
    model, x = linear(classes, 20), uniform(15, 20) * 2 - 1
    y = model(x).argmax(1)
    exact = linear_distance(model, x, y, p)
    run = attack(model, x, y, threat=Threat(p, bounds=None), preset="minimal", seed=0)
    found = torch.tensor([o.distance for o in run])
    assert run.counts()["broken"] == 15
    assert (found >= exact * (1 - 1e-5)).all()
    assert (found <= exact * 1.01).all()


@pytest.mark.parametrize(
    ("p", "classes"),
    [(math.inf, 2), (2.0, 3)]
    + [
        pytest.param(p, c, marks=pytest.mark.slow)
        for p, c in [(1.0, 2), (1.0, 4), (2.0, 2), (2.0, 4), (math.inf, 4)]
    ],
)
def test_standard_decides_linear_models(p, classes):
    model, x = linear(classes, 20), uniform(24, 20) * 2 - 1
    y = model(x).argmax(1)
    exact = linear_distance(model, x, y, p)
    eps = float(exact.sort().values[11:13].mean())
    run = attack(model, x, y, threat=Threat(p, eps, bounds=None), preset="standard", seed=0)
    slack = 0.97 if p == 1 else 0.995
    for outcome, far in zip(run, exact.tolist(), strict=True):
        if outcome.broken:
            assert far <= eps * (1 + 1e-5)
        else:
            assert far >= slack * eps


@pytest.mark.parametrize("p", NORMS)
def test_minimal_distances_in_the_plane_match_exhaustive_search(p):
    model, x = plane_net(3, seed=1), uniform(16, 2) * 4 - 2
    y = model(x).argmax(1)
    exact = plane_distance(model, x, y, p, low=-2.0, high=2.0)
    run = attack(model, x, y, threat=Threat(p, bounds=(-2, 2)), preset="minimal", seed=0)
    for outcome, far in zip(run, exact.tolist(), strict=True):
        assert outcome.broken
        assert outcome.distance <= 1.02 * far + 1e-3
        assert outcome.distance >= far - 0.03  # the grid's own steps


@pytest.mark.parametrize("p", [2.0, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_standard_in_the_plane_misses_nothing_that_exhaustive_search_finds(p):
    model, x = plane_net(2, seed=3), uniform(16, 2) * 4 - 2
    y = model(x).argmax(1)
    exact = plane_distance(model, x, y, p, low=-2.0, high=2.0)
    eps = float(exact.sort().values[8])
    run = attack(model, x, y, threat=Threat(p, eps, bounds=(-2, 2)), preset="standard", seed=0)
    for outcome, far in zip(run, exact.tolist(), strict=True):
        assert outcome.broken or far > eps - 0.02
        assert not outcome.broken or far < eps + 0.02


@pytest.mark.parametrize("p", NORMS)
def test_the_unit_of_the_inputs_does_not_matter(p):
    """Pixels 0..255 with an offset instead of 0..1: the same verdicts, distances times 255."""
    model, x = bumpy(dim=12), uniform(12, 12)

    def scaled(z):
        return model((z + 40) / 255)

    y = model(x).argmax(1)
    small = attack(model, x, y, threat=Threat(p), preset="minimal", seed=0)
    large = attack(scaled, x * 255 - 40, y, threat=Threat(p, bounds=(-40, 215)), preset="minimal", seed=0)
    for a, b in zip(small, large, strict=True):
        assert a.broken
        assert b.broken
        assert b.distance == pytest.approx(255 * a.distance, rel=0.02)


class Steps(nn.Module):
    """A linear classifier behind a staircase: right answers, zero gradients almost everywhere."""

    def __init__(self, dim):
        super().__init__()
        self.linear = linear(3, dim)

    def forward(self, x):
        return self.linear((x.flatten(1) * 8).round() / 8)


@pytest.mark.parametrize("shape", [(12,), (1, 8, 8)])
def test_masked_gradients_raise_the_flag(shape):
    model, x = Steps(math.prod(shape)).eval(), uniform(8, *shape)
    run = attack(model, x, threat=Threat("inf", 0.3), preset="standard", seed=0)
    assert run.flags["square_improved"] >= 4
    honest = attack(model.linear, x.flatten(1), threat=Threat("inf", 0.3), preset="standard", seed=0)
    assert honest.flags["square_improved"] == 0


def convolution(classes=10):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, classes))
    with torch.no_grad():
        model[-1].weight.mul_(4)
    return model.eval()


@pytest.mark.parametrize(
    ("p", "eps"),
    [(math.inf, 0.04)] + [pytest.param(*c, marks=pytest.mark.slow) for c in [(2.0, 0.25), (1.0, 1.0)]],
)
def test_standard_on_images_keeps_its_word(p, eps):
    model, x = convolution(), uniform(8, 1, 8, 8)
    run = attack(model, x, threat=Threat(p, eps), preset="standard", seed=1)
    assert run.counts()["broken"] > 0
    for o in run:
        if not o.broken:
            continue
        adv = torch.from_numpy(o.adversarial)
        delta = (adv.double() - x[o.index].double()).flatten()
        assert float(torch.linalg.vector_norm(delta, p)) <= eps * (1 + 1e-6)
        assert ((adv >= 0) & (adv <= 1)).all()
        assert int(model(adv[None]).argmax(1)) == o.prediction != o.target
        assert int(convolution().double()(adv[None].double()).argmax(1)) != o.target
        assert o.margin32 < 0
        assert o.margin64 < 0


@pytest.mark.parametrize("p", [math.inf, pytest.param(2.0, marks=pytest.mark.slow)])
def test_standard_does_not_depend_on_the_batch(p):
    model, x = convolution(), uniform(8, 1, 8, 8)
    eps = 0.3 if p == 2 else 0.05
    threat = Threat(p, eps)
    whole = attack(model, x, threat=threat, preset="standard", seed=3)
    parts = attack(model, x, threat=threat, preset="standard", seed=3, budget=Budget(batch_size=5, rows=16))
    assert [o.status for o in whole] == [o.status for o in parts]


@pytest.mark.slow
@pytest.mark.parametrize("p", [2.0, math.inf])
@pytest.mark.parametrize("preset", ["standard", "minimal"])
def test_verdicts_are_the_same_for_batches_of_1_7_and_64(p, preset):
    model, x = convolution(), uniform(64, 1, 8, 8)
    eps = None if preset == "minimal" else 0.3 if p == 2 else 0.05
    runs = [
        attack(model, x, threat=Threat(p, eps), preset=preset, seed=3, budget=Budget(batch_size=b))
        for b in (1, 7, 64)
    ]
    assert [o.status for o in runs[0]] == [o.status for o in runs[1]] == [o.status for o in runs[2]]
    if preset == "minimal":
        for rows in zip(*runs, strict=True):
            assert max(o.distance for o in rows) <= 1.01 * min(o.distance for o in rows)


@pytest.mark.slow
def test_thorough_breaks_at_least_what_standard_breaks():
    model, x = convolution(), uniform(40, 1, 8, 8)
    threat = Threat(2, 0.25)
    standard = attack(model, x, threat=threat, preset="standard", seed=0)
    thorough = attack(model, x, threat=threat, preset="thorough", seed=0)
    for a, b in zip(standard, thorough, strict=True):
        assert b.broken or not a.broken


def test_a_model_is_never_asked_about_nothing():
    """Some models cannot take an empty batch; when every row has left, no attack may evaluate one."""
    model = linear(5, 12)

    def strict(z):
        assert len(z) > 0
        return model(z)

    x = uniform(6, 12)
    for preset, eps in (("standard", 1e-4), ("minimal", None)):
        assert len(attack(strict, x, threat=Threat(2, eps), preset=preset, seed=0)) == 6
    y = model(x).argmax(1)
    for search in (apgd_targeted, fab_targeted, coordinate):
        everywhere = Problem.of(Oracle(strict, 6), x, y, eps=5.0, p=2.0, box=(0.0, 1.0), seed=0, classes=5)
        assert (model(search(everywhere)).argmax(1) != y).all()


@pytest.mark.parametrize("p", NORMS)
def test_a_nearest_point_is_moved_off_the_boundary_where_the_ball_has_room(p):
    model, x = linear(3, 12), uniform(10, 12) * 0.2 + 0.4
    y = model(x).argmax(1)
    away = linear_distance(model, x, y, p)
    roomy = torch.arange(10) % 2 == 0
    eps = torch.where(roomy, 1.2 * away, 0.5 * away).double()
    problem = Problem.of(Oracle(model, 10), x, y, eps=eps, p=p, box=(0.0, 1.0), seed=0, classes=3)
    nearest = minimal(problem)[0]
    deep = deepened(problem, nearest)
    gained = margin(model(nearest), y) - margin(model(deep), y)
    assert (gained[roomy] > 0.01).all()
    assert torch.equal(deep[~roomy], nearest[~roomy]), "a point outside the ball stays where it is"
    assert ((deep - x).flatten(1).norm(p=p, dim=1)[roomy] <= eps[roomy]).all()
