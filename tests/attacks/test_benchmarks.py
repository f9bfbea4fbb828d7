"""The benchmarks run at their smallest size and never report what they did not measure."""

import json

import pytest
import torch
from torch import nn

from benchmarks import (
    attack_fixtures,
    attack_fresh,
    attack_page,
    attack_strength,
    attack_summary,
    attack_tools,
    gpu,
)
from benchmarks.attack_tools import Tool


def test_the_gpu_benchmark_runs_on_a_cpu_and_names_what_it_left_out(monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    report = gpu.measure(torch.device("cpu"), tiny=True)
    json.dumps(report)
    assert report["device"] == "cpu"
    assert "gpu" not in report["hardware"]
    assert report["forward"]["float32"] > 0
    assert report["pgd"]["ours"] > 0
    assert report["pgd"]["torchattacks"] == {"skipped": "not installed"}
    assert sum(report["autoattack"]["ours"]["counts"].values()) == report["autoattack"]["inputs"]
    assert report["certification"]["lattice, float32"]["samples per second"] > 0
    assert "skipped" in report["certification"]["lattice, float32 compiled"]


def test_a_part_that_fails_has_no_figure():
    assert gpu.attempt(lambda: 1 / 0) == {"failed": "ZeroDivisionError: division by zero"}


def nothing(model, x, y, p, eps, seed):
    return x.clone()


def outside(model, x, y, p, eps, seed):
    return 1 - x


def mlp_fixture():
    torch.manual_seed(0)
    x = torch.rand(6, 1, 8, 8)
    model = attack_fixtures.small_mlp().eval()
    return attack_fixtures.Fixture("mlp", model, x, model(x).argmax(1))


def test_strength_rows_compare_tools_on_the_same_inputs(monkeypatch):
    tools = (
        Tool("idle", "torch", nothing, ("2",)),
        Tool("cheat", "torch", outside, ("2",)),
        Tool("absent", "no_such", nothing, ("2",)),
        Tool("another norm", "torch", nothing, ("inf",)),
    )
    monkeypatch.setattr(attack_strength, "TOOLS", tools)
    ours, idle, cheat = attack_strength.compare(mlp_fixture(), "2", 0.05)
    assert idle["survived"] == 1.0
    assert idle["we miss"] == 0
    assert idle["it misses"] == round(6 * (1 - ours["survived"]))
    assert cheat["survived"] == 1.0
    assert cheat["refused by the judge"] > 0
    assert ours["forwards per input"] > 100


def test_a_tool_sees_vectors_as_images_in_the_unit_box_and_is_judged_where_they_came_from():
    """A linear model on [-3, 5]^2: the tool's step, scaled back, breaks exactly the inputs it reaches."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    x = torch.tensor([[0.5, 1.0], [1.5, 1.0], [4.0, -2.0], [-0.5, 0.0]])
    fixture = attack_fixtures.Fixture("plane", model, x, torch.tensor([0, 0, 0, 0]), (-3.0, 5.0), 2)
    seen = []

    def left(model, z, y, p, eps, seed):
        seen.append((z.shape, float(z.min()), float(z.max()), eps, seed))
        step = torch.tensor([eps, 0.0]).view(1, 2, 1, 1)
        return (z - step).clamp(0, 1)

    found = attack_tools.run(Tool("left", "torch", left, ("inf",)), fixture, "inf", 1.0, seed=4)
    ((shape, low, high, eps, seed),) = seen
    assert (tuple(shape), eps, seed) == ((4, 2, 1, 1), 1 / 8, 4)
    assert 0 <= low < high <= 1
    assert found.claimed.tolist() == [True, False, False, False]
    assert found.broken.tolist() == [True, False, False, False]


def test_misses_are_counted_against_what_any_tool_broke_in_any_run(monkeypatch):
    """One tool that breaks everything on even seeds only: on odd seeds it misses what it broke before."""
    fixture = mlp_fixture()

    def sometimes(model, x, y, p, eps, seed):
        return x.clone() if seed % 2 else strong[: len(x)]

    nearest = attack_strength.attack(
        fixture.model, fixture.x, fixture.y, threat=attack_strength.Threat(2), preset="minimal"
    )
    far = max(o.distance or 0.0 for o in nearest)
    strong = torch.stack(
        [torch.from_numpy(o.adversarial) for o in nearest if (o.distance or 0.0) >= 0.9 * far]
    )
    monkeypatch.setattr(attack_strength, "TOOLS", (Tool("sometimes", "torch", sometimes, ("2",)),))
    ours, theirs = attack_strength.repeats(fixture, "2", 1.001 * far, range(3))
    assert ours["near"] == theirs["near"] == len(strong) == theirs["breakable"]
    assert theirs["misses"] == [0, len(strong), 0]
    assert ours["misses"] == [0, 0, 0]
    total = attack_summary.summed([ours, theirs])
    assert total[1]["misses per seed"]["mean"] == pytest.approx(len(strong) / 3, rel=1e-4)
    assert total[1]["standard's on the same"]["mean"] == 0


def test_the_page_says_what_the_table_says():
    def row(eps, tool, survived, we_miss, it_misses, seconds):
        return {
            "model": "m", "norm": "2", "eps": eps, "inputs": 10, "tool": tool, "survived": survived,
            "we miss": we_miss, "it misses": it_misses, "seconds": seconds, "cpu seconds": seconds / 2,
            "same parts": eps < 1,
        }  # fmt: skip

    rows = [
        row(0.1, "standard (ours)", 0.5, 0, 0, 6.0), row(0.1, "pyautoattack", 0.6, 0, 1, 10.0),
        row(0.2, "standard (ours)", 0.4, 0, 0, 8.0), row(0.2, "pyautoattack", 0.3, 1, 0, 10.0),
        row(0.2, "other", 0.2, 2, 0, 1.0),
        row(3.0, "standard (ours)", 0.4, 0, 0, 90.0), row(3.0, "pyautoattack", 0.4, 0, 0, 1.0),
    ]  # fmt: skip
    said = attack_page.section({"fresh": rows}, "summary-fresh")
    assert "3 threats" in said
    assert "or fewer, on 2;" in said
    assert "2 confirmed breaks of the others survive `standard`" in said
    assert "1 by pyautoattack, 0 by other" in said
    assert "0.70 of pyautoattack's (median; largest 0.80)" in said
    first, second, third = attack_page.by_threat(rows)
    assert third["CPU time / pyautoattack"] == ""
    assert (first["survived standard (ours)"], first["survived other"]) == (0.5, "")
    assert (second["we miss"], second["CPU time / pyautoattack"]) == (2, 0.8)
    assert attack_page.section({}, "summary-fresh") == attack_page.section({}, "fresh") == ""


def test_fresh_networks_are_not_those_that_the_presets_were_developed_on():
    known = {c[0] for c in (*attack_strength.DIGITS, *attack_strength.MNIST)}
    assert not known & set(attack_fresh.BUILDERS)
    assert {c[0] for c in attack_fresh.FRESH} == set(attack_fresh.BUILDERS)
    assert set(attack_fresh.REPEATED) <= set(attack_fresh.FRESH)
    wine = attack_fresh.fresh(40, {"wine"})["wine"]
    scores = wine.model(wine.x)
    assert scores.shape == (40, wine.classes) == (40, 3)
    assert float(wine.x.min()) < 0
    assert wine.x.abs().max() <= wine.bounds[1]
    assert (scores.argmax(1) == wine.y).float().mean() > 0.9


@pytest.mark.slow
def test_what_one_draw_believes_is_refused_and_no_certificate_is_contradicted():
    models = attack_strength.fixtures(16, {"cnn-noise"})
    minimal, one, many = attack_strength.smoothed(models["cnn-noise"], n=20_000)
    assert minimal["contradictions"] == 0
    assert minimal["median certified / confirmed"] > 0.6
    assert one["count"] > 0
    assert one["contradictions"] == 0
    assert many["count"] <= one["count"]
