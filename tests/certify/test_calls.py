"""Strange values at every argument of the public functions: an answer or an error of this package."""

import contextlib
import functools
import importlib
import inspect
import io
import pathlib
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import analysis
import attacks
import certify
import certify.data
import certify.store
import reports
from certify.bounds import binomial_interval, binomial_lower, binomial_upper
from certify.calls import checked
from certify.dense.correction import holm, simultaneous_lower
from certify.dense.procedure import make_pixel_tests
from certify.errors import CertifyError, InvalidArgument
from certify.geometry import GaussianBall
from certify.lipschitz import lipschitz_upper
from certify.noise import make_noise
from certify.planning import forecast
from certify.population import lower_bound, one_pass_accuracy
from certify.procedures import make_procedure
from certify.radii import formula_table, radius_between, radius_down, target_probability
from certify.randomised import randomised_lower
from certify.runner_up import told_apart
from certify.scores import means
from certify.simultaneous import simultaneous
from certify.transfer import transfer
from certify.verification import verify
from pdenets import burgers, evolution, inr, regularisers, training


class Hostile:
    """Fails at whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __len__(self):
        raise RuntimeError("no length")

    def __float__(self):
        raise RuntimeError("no number")


STRANGE = (
    None,
    True,
    -1,
    0,
    3,
    2**64,
    10**400,
    0.5,
    -0.25,
    1e-300,
    float("nan"),
    float("inf"),
    1j,
    "",
    "text",
    "cuda:99",
    b"bytes",
    [],
    (),
    [1, "a"],
    [None],
    [[1, 2], [3]],
    {},
    {"a": 1},
    {1, 2},
    range(3),
    object(),
    Hostile(),
    len,
    print,
    type,
    pathlib.Path("nowhere"),
    np.array(3),
    np.array([]),
    np.array(["a"]),
    np.array([1, None], dtype=object),
    np.float16(0.5),
    np.zeros((2, 2, 2)),
    torch.tensor(1.0),
    torch.empty(0),
    torch.zeros(2, 3, dtype=torch.bool),
    torch.zeros(4, 4, dtype=torch.complex64),
    torch.full((3, 4), torch.nan),
    torch.zeros(3, 4, dtype=torch.float16),
    torch.device("cpu"),
    torch.Generator(),
    nn.Linear(1, 1),
)

X = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
Y = [0, 1, 0]


@functools.cache
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def mlp():
    return certify.registry.architecture("mlp")(num_classes=2, input_shape=(4,), width=4).eval()


@functools.cache
def smoothed():
    return certify.Smoothed(net(), 0.25, num_classes=2, batch_size=16)


@functools.cache
def run():
    return smoothed().certify(X, Y, n_max=40, seed=1)


def dataset():
    return certify.data.as_dataset((X, torch.tensor(Y)), num_classes=2, low=0.0, high=1.0)


SAME = {"batch_size": 16, "num_classes": 2}
FEW = attacks.Budget(batch_size=4, rows=8, draws=2, refine_draws=2, confirm_samples=10, tries=1)
POINTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))

#: Name -> (function, arguments that work). Every one is replaced by every strange value in turn.
CALLS = {
    "Smoothed": (
        certify.Smoothed,
        {
            "model": net(),
            "sigma": 0.25,
            "num_classes": 2,
            "noise": "lattice",
            "norm": "2",
            "grid": 1.0,
            "bounds": (0.0, 1.0),
            "batch_size": 8,
            "device": "cpu",
            "dtype": "fp32",
            "compiled": False,
            "reduce": None,
        },
    ),
    "Smoothed.certify": (
        lambda **k: smoothed().certify(**k),
        {
            "x": X,
            "y": Y,
            "ids": [0, 1, 2],
            "alpha": 0.01,
            "mode": "radius",
            "scores": "votes",
            "n_max": 20,
            "seed": 1,
            "slack": 0.1,
        },
    ),
    "Smoothed.certify, fixed": (
        lambda **k: smoothed().certify(**k),
        {"x": X, "mode": "fixed", "n0": 5, "n": 10, "seed": 1},
    ),
    "Smoothed.certify, decide": (
        lambda **k: smoothed().certify(**k),
        {"x": X, "mode": "decide", "radius": 0.1, "n_max": 20, "seed": 1},
    ),
    "Smoothed.certify, grid": (
        lambda **k: smoothed().certify(**k),
        {"x": X, "mode": "grid", "step": 0.1, "n_max": 20, "seed": 1},
    ),
    "Smoothed.predict": (
        lambda **k: smoothed().predict(**k),
        {"x": X, "n": 10, "alpha": 0.01, "seed": 1, "ids": [0, 1, 2]},
    ),
    "Smoothed.score_histograms": (
        lambda **k: smoothed().score_histograms(**k),
        {"x": X, "n": 10, "bins": 8, "seed": 1, "ids": [0, 1, 2], "bets": "timed"},
    ),
    "SmoothedSegmentation": (
        certify.SmoothedSegmentation,
        {
            "model": net(),
            "sigma": 0.25,
            "num_classes": 2,
            "bounds": (0.0, 1.0),
            "batch_size": 8,
            "device": "cpu",
            "dtype": "fp32",
        },
    ),
    "denoised": (certify.denoised, {"model": net(), "denoiser": nn.Identity().eval(), "sigma": 0.25}),
    "wrap": (
        certify.wrap,
        {"model": net(), "mean": 0.5, "std": 0.5, "output": None, "scores": "logits", "binary": False},
    ),
    "make_noise": (make_noise, {"name": "lattice", "sigma": 0.25, "grid": 1 / 255, "bounds": (0.0, 1.0)}),
    "make_procedure": (
        make_procedure,
        {
            "mode": "radius",
            "alpha": 0.01,
            "sigma": 0.25,
            "n_max": 50,
            "tv": 0.0,
            "scores": "votes",
            "slack": 0.1,
        },
    ),
    "transfer": (
        transfer,
        {"run": None, "certified": None, "deployed": None, "x": X, "samples": 10, "alpha": 0.01, "seed": 1},
    ),
    "radius_down": (radius_down, {"p_lower": 0.9, "sigma": 0.25}),
    "target_probability": (target_probability, {"radius": 0.5, "sigma": 0.25}),
    "binomial_lower": (binomial_lower, {"k": 5, "n": 10, "alpha": 0.05}),
    "binomial_upper": (binomial_upper, {"k": 5, "n": 10, "alpha": 0.05}),
    "binomial_interval": (binomial_interval, {"k": 5, "n": 10, "alpha": 0.05}),
    "population.lower_bound": (
        lower_bound,
        {"counts": [9, 10, 8, 10], "n": 10, "p_target": 0.6, "confidence": 0.95},
    ),
    "population.one_pass_accuracy": (
        one_pass_accuracy,
        {"correct": 9, "inputs": 10, "radius": 0.1, "sigma": 0.25, "confidence": 0.95},
    ),
    "attack": (
        attacks.attack,
        {
            "model": net(),
            "x": X[:1],
            "y": Y[:1],
            "threat": attacks.Threat(2, 0.1),
            "preset": "quick",
            "seed": 0,
            "budget": FEW,
            "ids": [0],
            "device": "cpu",
        },
    ),
    "Threat": (attacks.Threat, {"norm": 2, "eps": 0.5, "bounds": (0.0, 1.0)}),
    "Budget": (
        attacks.Budget,
        {
            "batch_size": 4,
            "rows": 8,
            "draws": 2,
            "refine_draws": 2,
            "confirm_samples": 10,
            "alpha": 0.01,
            "tries": 1,
        },
    ),
    "Linear": (analysis.Linear, {"norm": 2, "radius": 1.0, "bias": 0.0}),
    "empirical_rademacher": (
        analysis.empirical_rademacher,
        {
            "cls": analysis.Linear(2, 1.0),
            "points": POINTS,
            "method": "auto",
            "draws": 20,
            "delta": 0.05,
            "interval": "t",
        },
    ),
    "heldout_bound": (analysis.heldout_bound, {"errors": 1, "n": 10, "delta": 0.05}),
    "kl_inverse": (analysis.kl_inverse, {"q": 0.1, "budget": 0.2}),
    "risk_at_radius": (analysis.risk_at_radius, {"records": None, "radii": [0.0, 0.1], "delta": 0.05}),
    "margin_distribution": (
        analysis.margin_distribution,
        {"logits": torch.zeros(3, 2), "labels": torch.tensor(Y)},
    ),
    "lipschitz_bracket": (analysis.lipschitz_bracket, {"model": net(), "x": X, "ascent_steps": 1}),
    "norm_bounds": (
        analysis.norm_bounds,
        {"model": net(), "x": X, "y": torch.tensor(Y), "delta": 0.05, "num_classes": 2},
    ),
    "pac_bayes_bounds": (
        analysis.pac_bayes_bounds,
        {
            "mean_error": 0.1,
            "kl": 1.0,
            "n": 100,
            "delta": 0.05,
            "draws": 10,
            "choices": 1,
            "prior": "zero",
            "predictor": "Gibbs",
        },
    ),
    "rank_correlations": (
        analysis.rank_correlations,
        {
            "measures": {"a": [1.0, 2.0, 3.0]},
            "gaps": [1.0, 2.0, 3.0],
            "level": 0.9,
            "resamples": 10,
            "seed": 0,
        },
    ),
    "radius_with_gap": (analysis.radius_with_gap, {"u_a": 0.9, "u_b": 0.1, "eta": 0.1, "sigma": 0.25}),
    "held_out": (analysis.held_out, {"train": None, "test": None}),
    "reports.build": (reports.build, {"run": None}),
    "reports.compare": (reports.compare, {"runs": []}),
    "forecast": (
        forecast,
        {
            "pilot": np.array([[9, 1], [5, 5]]),
            "procedure": make_procedure("radius", sigma=0.25, n_max=50),
            "inputs": 10,
        },
    ),
    "verify": (verify, {"path": "nowhere", "level": 2}),
    "load": (
        certify.load,
        {
            "path": "model.pt",
            "device": "cpu",
            "arch": None,
            "arguments": None,
            "data": None,
            "entry": None,
            "trust_model_file": False,
        },
    ),
    "save": (
        certify.save,
        {
            "model": None,
            "path": "saved.pt",
            "architecture": "mlp",
            "arguments": {"width": 4},
            "data": None,
            "num_classes": 2,
            "input_shape": [4],
            "bounds": (0.0, 1.0),
            "grid": 1 / 255,
            "sigma": 0.25,
        },
    ),
    "data.load": (
        certify.data.load,
        {
            "name_or_path": "moons",
            "split": "test",
            "root": None,
            "limit": 3,
            "skip": 0,
            "download": False,
            "seed": 0,
            "label": None,
        },
    ),
    "data.as_dataset": (
        certify.data.as_dataset,
        {
            "source": X,
            "y": Y,
            "label": None,
            "classes": None,
            "num_classes": 2,
            "low": 0.0,
            "high": 1.0,
            "grid": None,
            "limit": None,
            "name": "data",
            "split": "test",
        },
    ),
    "training.train": (
        training.train,
        {
            "train_data": None,
            "val_data": None,
            "arch": "mlp",
            "out": "trained.pt",
            "arguments": {"width": 4},
            "sigma": 0.25,
            "regulariser": None,
            "options": None,
            "epochs": 1,
            "lr": 1e-3,
            "batch_size": 3,
            "optimizer": "adam",
            "weight_decay": 0.0,
            "nesterov": False,
            "schedule": "cosine",
            "augment": None,
            "seed": 0,
            "device": "cpu",
        },
    ),
    "training.hold_out": (training.hold_out, {"data": None, "seed": 0, "share": 0.4}),
    "inverse_evolution": (
        evolution.inverse_evolution,
        {"name": "heat", "dt": 0.1, "steps": 2, "boundary": "zero"},
    ),
    "regulariser": (regularisers.regulariser, {"name": "gaussian", "sigma": 0.25}),
    "noisy": (
        regularisers.noisy,
        {"x": X, "sigma": 0.25, "generator": torch.Generator()},
    ),
    "lipschitz_upper": (lipschitz_upper, {"module": net(), "input_shape": (4,)}),
    "simultaneous": (simultaneous, {"run": None, "inputs": 5}),
    "open_run": (
        certify.store.open_run,
        {"path": "run", "settings": {"sigma": 1.0}, "guarantee": "none", "rows": None},
    ),
    "read_run": (certify.store.read_run, {"path": "run"}),
    "randomised_lower": (randomised_lower, {"k": 3, "n": 9, "alpha": 0.01, "uniform": 0.5}),
    "make_pixel_tests": (
        make_pixel_tests,
        {
            "geometry": GaussianBall(1.0, 2.0, 4),
            "correction": "holm",
            "radius": 0.5,
            "alpha": 0.01,
            "n0": 5,
            "n": 9,
            "tv": 0.0,
            "tolerate": 0.1,
        },
    ),
    "holm": (holm, {"p": [0.1, 0.2], "alpha": 0.05, "wrong": 0}),
    "simultaneous_lower": (simultaneous_lower, {"votes": [3, 4], "n": 9, "alpha": 0.05, "wrong": 0}),
    "told_apart": (told_apart, {"votes": 9, "rival": 2, "rivals": 3, "alpha": 0.05}),
    "formula_table": (formula_table, {"record": None, "sigma": 0.5, "dim": 4}),
    "radius_between": (radius_between, {"p_lower": 0.6, "pb_upper": 0.2, "sigma": 0.5}),
    "betting_lower": (means.betting_lower, {"values": [0.2, 0.9], "alpha": 0.05}),
    "hoeffding_lower": (means.hoeffding_lower, {"values": [0.2, 0.9], "alpha": 0.05}),
    "finite_volume": (
        burgers.finite_volume,
        {"start": X[0], "t": 0.1, "viscosity": 0.1, "courant": 0.4, "max_speed": None},
    ),
    "cole_hopf": (burgers.cole_hopf, {"x": X[0], "t": 0.1, "viscosity": 0.1, "nodes": 20}),
    "pixel_grid": (inr.pixel_grid, {"height": 3, "width": 4}),
    "cell_centres": (burgers.cell_centres, {"cells": 8}),
    "psnr": (inr.psnr, {"image": X, "reference": X + 0.1, "peak": 1.0}),
}


def working(name):
    function, given = CALLS[name]
    made = {
        "transfer": {"run": run, "certified": smoothed, "deployed": smoothed},
        "risk_at_radius": {"records": run},
        "held_out": {"train": dataset, "test": dataset},
        "save": {"model": mlp},
        "training.train": {"train_data": dataset},
        "training.hold_out": {"data": dataset},
        "simultaneous": {"run": run},
        "formula_table": {"record": lambda: run()[0]},
    }.get(name, {})
    return function, given | {key: make() for key, make in made.items()}


@pytest.mark.parametrize("name", CALLS)
def test_strange_arguments_end_with_an_answer_or_a_named_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = working(name)
    wrong = []
    for argument in given:
        for place, value in enumerate(STRANGE):
            if isinstance(value, torch.Generator):
                value = torch.Generator()
            call = given | {argument: value}
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                try:
                    function(**call)
                except CertifyError as refused:
                    if not (refused.why and refused.remedy):
                        wrong.append(f"{argument} = STRANGE[{place}]: an error that does not say why")
                except Exception as crash:  # that is what is looked for
                    wrong.append(f"{argument} = STRANGE[{place}]: {type(crash).__name__}: {str(crash)[:90]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("call", "given", "near"),
    [
        (lambda **k: smoothed().certify(X, **k), "nmax", "n_max"),
        (lambda **k: smoothed().certify(X, **k), "raduis", "radius"),
        (lambda **k: smoothed().predict(X, n=5, **k), "sead", "seed"),
        (lambda **k: certify.Smoothed(net(), 0.25, **k), "num_class", "num_classes"),
        (lambda **k: attacks.Threat(2, **k), "epsilon", "eps"),
        (lambda **k: attacks.attack(net(), X, Y, threat=attacks.Threat(2, 0.1), **k), "presets", "preset"),
        (lambda **k: reports.build("nowhere", **k), "output", "out"),
        (lambda **k: certify.wrap(net(), **k), "stds", "std"),
    ],
)
def test_an_unknown_keyword_names_the_nearest_one(call, given, near):
    with pytest.raises(InvalidArgument, match=f"has no argument '{given}'") as refused:
        call(**{given: 1})
    assert refused.value.remedy == f"use {near}"
    assert isinstance(refused.value, TypeError)


def test_a_missing_argument_is_named():
    with pytest.raises(InvalidArgument, match="cannot be called like this") as refused:
        certify.Smoothed(net())  # pyright: ignore[reportCallIssue]
    assert "sigma" in refused.value.why


def test_a_checked_function_keeps_its_signature_and_answers():
    @checked
    def add(a: "int", b: "int | None" = None) -> int:
        """Adds."""
        return a + (b or 0)

    assert str(inspect.signature(add)) == "(a: 'int', b: 'int | None' = None) -> int"
    assert add.__doc__ == "Adds."
    assert add(np.int64(2), b=3) == 5  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgument, match="a = 'x' cannot be used"):
        add("x")  # pyright: ignore[reportArgumentType]


def test_reading_calls_needs_no_torch():
    code = "import sys, certify.calls; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


#: Public functions that look at nothing which a caller could get wrong, or judge it themselves.
UNCHECKED = {
    "certify.bounds.check_alpha", "certify.bounds.check_counts", "certify.bounds.binomial_interval",
    "certify.bounds.binomial_lower", "certify.bounds.binomial_upper", "certify.runner_up.going_on",
    "certify.runner_up.share_of", "certify.runner_up.check_share", "certify.runner_up.raised",
    "certify.runner_up.rival_votes", "certify.dense.run.class_iou", "certify.dense.run.is_segmentation",
    "certify.dense.run.mean_known", "certify.dense.run.ratio_over_images",
    "certify.dense.run.refuse_segmentation", "certify.dense.maps.arrays_digest",
    "certify.dense.maps.arrays_name", "certify.dense.maps.preview", "certify.records.robust_low",
    "certify.checkpoints.tensor_digest", "certify.noise.standard_normal", "certify.registry.accepted",
    "certify.registry.missing", "certify.registry.reporter", "certify.simultaneous.geometry_of",
    "certify.simultaneous.joint_level",
    "pdenets.training.check_out", "pdenets.training.check_steps", "pdenets.training.check_training",
}  # fmt: skip


def test_every_public_function_is_checked_or_named_here():
    found = set()
    for page in (pathlib.Path(__file__).parents[2] / "docs" / "api").glob("*.md"):
        for module, name in re.findall(r"^### ([a-z_.]+)\.([a-z_]+)$", page.read_text(), re.MULTILINE):
            function = getattr(importlib.import_module(module), name)
            if inspect.isfunction(function) and not hasattr(function, "__wrapped__"):
                found.add(f"{module}.{name}")
    assert found == UNCHECKED
