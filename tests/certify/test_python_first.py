"""What a Python user does with a run: draw, show, save, report; and small courtesies of the API."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import analysis
import attacks
import certify
import reports
from certify.errors import InvalidArgument, InvalidSetting, RunConflict
from certify.records import Run
from certify.store import records_digest
from certify.verification import verify

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def g():
    model = nn.Linear(2, 3, bias=False).eval()
    model.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.3], [0.0, -1.0]])
    return certify.Smoothed(model, 0.5, num_classes=3, bounds=(-2.0, 2.0), grid=2**-8, noise="lattice")


@pytest.fixture(scope="module")
def x():
    return (torch.linspace(-1.5, 1.5, 20).reshape(10, 2) * 256).round() / 256


@pytest.fixture(scope="module")
def run(g, x):
    return g.certify(x, g(x, seed=3).clamp_min(0), n_max=3000, seed=1)


def test_the_drawn_curve_is_certified_accuracy(run):
    axes = Figure().subplots()
    assert run.plot(axes, label="mine", linestyle="--") is axes
    [line] = axes.lines
    at, shown = line.get_xdata(), line.get_ydata()
    assert np.allclose(shown, [e.value for e in run.accuracy(list(at))])
    assert shown[0] == run.accuracy()[0].value > 0.5
    assert shown[-1] == 0.0
    for r in run:  # a certificate of radius R still counts at R
        k = int(np.searchsorted(at, r.radius, side="left"))
        assert shown[k] == pytest.approx(run.accuracy([r.radius])[0].value)
    assert line.get_linestyle() == "--"
    assert axes.get_legend().get_texts()[0].get_text() == "mine"
    assert axes.get_ylabel() == "certified accuracy"
    assert "l2" in axes.get_xlabel()


def test_a_curve_of_many_radii_is_never_drawn_too_high(run):
    many = [replace(run[0], index=i, label=1, target=1, radius=(i + 1) / 1000) for i in range(1000)]
    [line] = Run(many, run.settings, "").plot(Figure().subplots()).lines
    at, shown = line.get_xdata(), line.get_ydata()
    assert len(at) < 500
    assert line.get_drawstyle() == "steps-pre"
    for radius in np.linspace(0, 1, 777):  # what stands at a radius is the value of the next corner
        exact = sum(r.radius >= radius for r in many) / 1000
        assert exact - 0.004 <= shown[np.searchsorted(at, radius, side="left")] <= exact


def test_without_labels_the_certified_share_is_drawn(g, x):
    axes = g.certify(x, n_max=500, seed=1).plot()
    assert axes.get_ylabel() == "certified share of inputs"
    assert not axes.collections, "no interval without labels"


def test_only_axes_are_drawn_on(run):
    with pytest.raises(InvalidSetting, match="cannot be drawn on"):
        run.plot("axes")


def test_a_notebook_shows_curve_table_and_guarantee(run):
    before = matplotlib.pyplot.get_fignums()
    shown = run._repr_html_()
    assert matplotlib.pyplot.get_fignums() == before
    assert shown.count("<svg") == 1
    assert "certified accuracy" in shown
    assert "with probability at least 0.999" in shown
    hostile = Run(list(run), run.settings, "<script>alert(1)</script>")
    assert "<script>" not in hostile._repr_html_()


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed", "n0": 20, "n": 300}, {"mode": "decide", "radius":
0.2},
                                  {"mode": "radius", "scores": "soft"}])  # fmt: skip
def test_a_run_in_memory_is_saved_and_holds(g, x, tmp_path, mode):
    run = g.certify(x, n_max=1000, seed=5, **mode) if "n" not in mode else g.certify(x, seed=5, **mode)
    assert run.save(tmp_path / "run") == tmp_path / "run"
    assert verify(tmp_path / "run").outcome == "holds"
    stored = certify.store.read_run(tmp_path / "run")
    assert records_digest(stored.run) == records_digest(run)
    options = mode if "n" in mode else {"n_max": 1000} | mode
    assert records_digest(g.certify(x, seed=5, store=tmp_path / "direct", **options)) == records_digest(run)
    assert stored.documents == certify.store.read_run(tmp_path / "direct").documents
    assert stored.run.save(tmp_path / "again") == tmp_path / "again"
    assert verify(tmp_path / "again").outcome == "holds"
    with pytest.raises(RunConflict):
        g.certify(x, n_max=1000, seed=6).save(tmp_path / "run")


def test_a_run_without_its_boundaries_is_not_saved(run, tmp_path):
    with pytest.raises(InvalidSetting, match="boundaries"):
        Run(list(run), run.settings, run.guarantee).save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_report_is_one_call_away(run, tmp_path):
    found = run.report(tmp_path / "run")
    assert found == reports.build(tmp_path / "run")
    assert found.html.exists()


def test_a_smoothed_classifier_predicts_when_it_is_called(g, x):
    asked = g.predict(x, n=400, seed=7)
    assert g(x, n=400, seed=7).tolist() == [-1 if p.label is None else p.label for p in asked]
    assert g(x).dtype == torch.int64
    with pytest.raises(InvalidArgument):
        g(x, seeds=1)


def test_people_call_presets_by_other_names():
    model = nn.Linear(2, 2).eval()
    for name, preset in (("autoattack", "standard"), ("AutoAttack", "standard"), ("PGD", "quick")):
        run = attacks.attack(model, torch.rand(2, 2), threat=attacks.Threat(2, 0.1), preset=name)
        assert run.preset == preset
        assert all(o.preset == preset for o in run)


def test_a_lipschitz_bracket_needs_no_points():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    bracket = analysis.lipschitz_bracket(model, (3, 2, 2))
    assert 0 < bracket.lower <= bracket.upper < float("inf")
    for shape in ((), (0, 2), (10**9,)):
        with pytest.raises(InvalidSetting, match="not the shape"):
            analysis.lipschitz_bracket(model, shape)


@pytest.mark.parametrize("package", [certify, attacks, analysis, reports])
def test_dir_shows_what_is_public(package):
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, name) for name in dir(package))
