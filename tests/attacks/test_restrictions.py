"""Masks, ranges per feature and the input lattice: against the reduced linear problem, exactly."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attacks import Threat, attack, load, save
from certify.errors import CertifyError, InvalidInput, InvalidSetting

NORMS = (1, 2, math.inf)
DUAL = {1: math.inf, 2: 2, math.inf: 1}


def linear(dim=12, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(dim, classes)).eval()


def network(dim=64, classes=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(dim, 32), nn.Tanh(), nn.Linear(32, classes)).eval()


def nearest(model, x, p, free):
    """Exact lp distances to another class of a linear model whose ``free`` coordinates move; no box."""
    weight, scores = model[1].weight.detach(), model(x).detach()
    y = scores.argmax(1)
    far = []
    for row, label in zip(scores, y, strict=True):
        gaps = (row[label] - row) / (weight[label] - weight)[:, free].norm(p=DUAL[p], dim=1)
        far.append(float(gaps[torch.arange(len(row)) != label].min()))
    return y, np.array(far)


@pytest.mark.parametrize("p", NORMS)
def test_a_mask_is_kept_exactly_and_the_reduced_optimum_found(p):
    model, x = linear(), torch.randn(20, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([True] * 5 + [False] * 7)
    y, exact = nearest(model, x, p, mask)
    run = attack(model, x, y, threat=Threat(p, bounds=None, mask=mask), preset="minimal")
    moved = np.stack([o.adversarial for o in run]) - x.numpy()
    assert all(o.broken for o in run)
    assert (moved[:, ~mask.numpy()] == 0).all()
    assert np.allclose([o.distance for o in run], exact, rtol=0.01)
    assert run[0].details["threat"] == {"movable": 5, "coordinates": 12}
    for factor, broken in ((1.02, True), (0.98, False)):
        one = attack(model, x[:1], y[:1], threat=Threat(p, exact[0] * factor, None, mask), preset="standard")
        assert one[0].broken is broken


@pytest.mark.parametrize("preset", ["quick", "standard", "black-box", "thorough"])
@pytest.mark.parametrize("p", NORMS)
def test_ranges_per_feature_are_never_left(p, preset):
    model, x = linear(seed=3), torch.rand(6, 12, generator=torch.Generator().manual_seed(2))
    low, high = torch.zeros(12), torch.linspace(0.2, 3.0, 12)
    low[3] = high[3] = 0.5  # stays
    x = torch.minimum(x, high)
    x[:, 3] = 0.5
    run = attack(model, x, threat=Threat(p, {1: 2.0, 2: 0.8, math.inf: 0.4}[p], (low, high)), preset=preset)
    found = [o for o in run if o.adversarial is not None]
    assert found, "the balls are large enough for this network"
    for o in found:
        assert (o.adversarial >= low.numpy()).all()
        assert (o.adversarial <= high.numpy()).all()
        assert o.adversarial[3] == 0.5
        assert o.in_box


def test_ranges_bind_where_they_should():
    """One feature alone decides; with its range closed on the way the rest must do it, at its exact price."""
    model = linear(2, 2)
    model[1].weight.data = torch.tensor([[0.0, 0.0], [4.0, 1.0]])
    model[1].bias.data = torch.tensor([1.0, 0.0])
    x = torch.zeros(1, 2)  # class 0 while 4 a + b < 1
    free = attack(model, x, threat=Threat(2, bounds=([-9, -9], [9, 9])), preset="minimal")[0]
    assert free.distance == pytest.approx(1 / math.sqrt(17), rel=0.01)
    held = attack(model, x, threat=Threat(2, bounds=([-9, -9], [0.1, 9])), preset="minimal")[0]
    assert held.distance == pytest.approx(math.hypot(0.1, 0.6), rel=0.01)
    stuck = attack(model, x, threat=Threat(2, bounds=([-9, -9], [0.1, 0.5])), preset="minimal")[0]
    assert not stuck.broken


def grey(n=40, side=8, seed=5):
    """8-bit images as float32, as torchvision's ToTensor gives them."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(n, 1, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(255))


def saved(image):
    """The image after a round trip through an 8-bit PNG file."""
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(file, "PNG")
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / np.float32(255))[None, None]


@pytest.mark.parametrize(("p", "preset", "eps"), [(2, "minimal", None), (1, "minimal", None),
                                                  (math.inf, "minimal", None), (2, "standard", 0.6),
                                                  (math.inf, "standard", 8 / 255),
                                                  (math.inf, "black-box", 16 / 255)])  # fmt: skip
def test_what_lies_on_the_lattice_survives_being_saved(p, preset, eps):
    model, x = network(), grey()
    y = model(x).argmax(1)
    run = attack(model, x, y, threat=Threat(p, eps, grid=1 / 255), preset=preset)
    free = attack(model, x, y, threat=Threat(p, eps), preset=preset)
    broken = [o for o in run if o.broken]
    assert len(broken) >= 0.9 * sum(o.broken for o in free) > 0
    for o in broken:
        again = saved(o.adversarial)
        assert torch.equal(again[0], torch.from_numpy(o.adversarial))
        assert model(again).argmax(1) != y[o.index]
        assert o.details["threat"] == {"grid": 1 / 255}
    if eps is not None:
        assert all(o.distance <= eps * (1 + 1e-6) for o in broken)


@pytest.mark.parametrize("p", [1, 2])
def test_the_lattice_costs_little_distance(p):
    model, x = network(), grey()
    y = model(x).argmax(1)
    free = attack(model, x, y, threat=Threat(p), preset="minimal").outcomes
    on = attack(model, x, y, threat=Threat(p, grid=1 / 255), preset="minimal").outcomes
    ratios = [a.distance / b.distance for a, b in zip(on, free, strict=True) if a.broken and b.broken]
    assert len(ratios) == len(x)
    assert np.median(ratios) <= 1.05
    assert max(a.distance - b.distance for a, b in zip(on, free, strict=True)) <= 4 / 255


def test_in_linf_the_distance_is_the_next_whole_step_or_one_more():
    model, x = network(), grey()
    y = model(x).argmax(1)
    free = attack(model, x, y, threat=Threat("inf"), preset="minimal").outcomes
    on = attack(model, x, y, threat=Threat("inf", grid=1 / 255), preset="minimal").outcomes
    steps = [round(o.distance * 255) for o in on]
    assert all(abs(o.distance * 255 - k) < 1e-3 for o, k in zip(on, steps, strict=True))
    late = [k - math.ceil(o.distance * 255) for o, k in zip(free, steps, strict=True)]
    assert np.mean(np.array(late) <= 1) >= 0.9


def test_masks_and_the_lattice_work_together_and_in_double_precision():
    model, x = network().double(), grey(6).double()
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :6] = True
    free = attack(model, x, threat=Threat(2, mask=mask), preset="minimal")
    run = attack(model, x, threat=Threat(2, grid=1 / 255, mask=mask), preset="minimal")
    assert sum(o.broken for o in run) >= sum(o.broken for o in free) - 1 >= 4
    for o in (o for o in run if o.broken):
        assert (o.adversarial[~mask.numpy()] == x[o.index].numpy()[~mask.numpy()]).all()
        assert np.allclose(o.adversarial * 255, (o.adversarial * 255).round(), atol=1e-3)


@pytest.mark.parametrize("options", [
    {"mask": torch.zeros(3)}, {"mask": "all"}, {"mask": [0.5, 1]}, {"mask": 3}, {"mask": [[1, 0], [1]]},
    {"grid": 0.3001}, {"grid": -1.0}, {"bounds": ([0, 0], [1, -1])}, {"bounds": ([0, float("nan")], [1, 1])},
    {"bounds": ([0, 0], [1, 1, 1])}, {"bounds": (0.0,)}, {"bounds": (1.0, 1.0)},
])  # fmt: skip
def test_threats_that_say_nothing_are_refused(options):
    with pytest.raises(InvalidSetting):
        Threat(2, 0.1, **options)


def test_restrictions_that_do_not_fit_the_inputs_are_refused():
    model, x = linear(4, 2), torch.rand(2, 4)
    for threat, words in ((Threat(2, 0.1, mask=torch.ones(3)), "mask of shape"),
                          (Threat(2, 0.1, (torch.zeros(5), torch.ones(5))), "bounds of shape"),
                          (Threat(2, 0.1, (torch.zeros(4), torch.full((4,), 1e-3))), "outside the bounds"),
                          (Threat(2, 0.1, grid=1 / 255), "is not on the grid")):  # fmt: skip
        with pytest.raises(InvalidInput, match=words):
            attack(model, x, threat=threat)


def test_equal_threats_are_equal():
    pair = (torch.zeros(3), torch.ones(3))
    assert Threat(2, 0.1, pair) == Threat(2, 0.1, ([0, 0, 0], [1, 1, 1]))
    assert Threat(2, 0.1, pair) != Threat(2, 0.1, ([0, 0, 0], [1, 1, 2]))
    assert hash(Threat(2, 0.1, pair)) == hash(Threat(2, 0.1, ([0, 0, 0], [1, 1, 1])))


def test_a_saved_attack_is_the_attack_again(tmp_path):
    model, x = linear(4, 3), torch.rand(8, 4, generator=torch.Generator().manual_seed(9))
    ranges = (torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 0.9]).clamp_min(x.amax(0)))
    for k, threat in enumerate((Threat(2, bounds=None), Threat("inf", 0.9, ranges, mask=[1, 1, 0, 1]))):
        run = attack(model, x, threat=threat, preset="minimal" if threat.eps is None else "quick")
        save(run, tmp_path / f"{k}.npz")
        again = load(tmp_path / f"{k}.npz")
        assert [o.to_json() for o in again] == [o.to_json() for o in run]
        assert again.threat == run.threat
        assert (again.threat.mask is None) == (run.threat.mask is None)
        assert again.preset == run.preset
        assert any(o.broken for o in run)
        for a, b in zip(again, run, strict=True):
            assert (a.adversarial is None) == (b.adversarial is None)
            assert a.adversarial is None or np.array_equal(a.adversarial, b.adversarial)
        with np.load(tmp_path / f"{k}.npz") as arrays:
            assert np.isnan(arrays["distance"]).tolist() == [not o.broken for o in run]


@pytest.mark.parametrize(
    "arrays", [{"x": np.zeros(3)}, {"outcomes": np.zeros(2, np.uint8), "threat": np.zeros(2)}, None]
)
def test_what_is_no_saved_attack_is_refused(tmp_path, arrays):
    path = tmp_path / "a.npz"
    if arrays is None:
        path.write_bytes(b"no archive")
    else:
        np.savez(path, **arrays)
    with pytest.raises(CertifyError):
        load(path)
    with pytest.raises(InvalidSetting, match="no known ending"):
        save(
            attack(linear(4, 2), torch.rand(1, 4), threat=Threat(2, 0.1), preset="quick"), tmp_path / "a.txt"
        )
