"""The benchmarks run at their smallest size and never report what they did not measure."""

import json

import pytest
import torch

from benchmarks import attack_fixtures, attack_strength, gpu


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


def test_strength_rows_compare_tools_on_the_same_inputs(monkeypatch):
    def nothing(model, x, y, p, eps):
        return x.clone()

    def outside(model, x, y, p, eps):
        return 1 - x

    tools = {
        "idle": ("torch", nothing, ("2",)),
        "cheat": ("torch", outside, ("2",)),
        "absent": ("no_such", nothing, ("2",)),
    }
    monkeypatch.setattr(attack_strength, "TOOLS", tools)
    torch.manual_seed(0)
    x = torch.rand(6, 1, 8, 8)
    model = attack_fixtures.small_mlp().eval()
    fixture = attack_fixtures.Fixture("mlp", model, x, model(x).argmax(1))
    ours, idle, cheat = attack_strength.compare(fixture, "2", 0.05)
    assert idle["survived"] == 1.0
    assert idle["we miss"] == 0
    assert idle["it misses"] == round(6 * (1 - ours["survived"]))
    assert cheat["survived"] == 1.0
    assert cheat["refused by the judge"] > 0
    assert ours["forwards per input"] > 100


@pytest.mark.slow
def test_what_one_draw_believes_is_refused_and_no_certificate_is_contradicted():
    models = attack_strength.fixtures(16, {"cnn-noise"})
    minimal, one, many = attack_strength.smoothed(models["cnn-noise"], n=20_000)
    assert minimal["contradictions"] == 0
    assert minimal["median certified / confirmed"] > 0.6
    assert one["count"] > 0
    assert one["contradictions"] == 0
    assert many["count"] <= one["count"]
