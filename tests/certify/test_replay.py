"""What the sequential procedures cost on logs of counts like the published ones."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from certify.errors import InvalidInput
from certify.procedures import make_procedure

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench, twin = load("replay"), load("synthetic_log")


def log_of(profile, inputs=500, seed=7):
    rows = list(twin.synthetic_log(profile, inputs, n=100_000, seed=seed))
    right = np.array([r["predict"] == r["label"] for r in rows])
    return bench.Log(right, np.array([r["count"] for r in rows]), np.full(inputs, 100_000))


@pytest.mark.parametrize(
    ("profile", "sigma", "radius"), [("cifar", 0.25, 0.25), ("imagenet", 0.5, 0.5), ("noisy", 0.5, 0.5)]
)
def test_deciding_a_radius_costs_a_forty_fifth(profile, sigma, radius):
    procedure = make_procedure("decide", sigma=sigma, radius=radius)
    result = bench.replay(log_of(profile), procedure, sigma, alpha=1e-3, replays=10, radius=radius)
    assert result["samples_per_input"] <= 100_100 / 45
    assert result["worst_difference_points"] >= -0.05


@pytest.mark.parametrize(
    ("profile", "sigma"), [("cifar", 0.25), pytest.param("imagenet", 0.5, marks=pytest.mark.slow)]
)
def test_a_grid_costs_a_quarter(profile, sigma):
    procedure = make_procedure("grid", sigma=sigma, step=0.25)
    result = bench.replay(log_of(profile), procedure, sigma, alpha=1e-3, replays=10)
    assert result["samples_per_input"] <= 100_100 / 4
    assert result["worst_difference_points"] >= -0.05


def test_a_single_rival_costs_half_of_alpha_at_radius_zero():
    """A top class with 50,500 of 100,000 votes: certified unless one rival has all the others."""
    log = bench.Log(np.array([True]), np.array([50_500]), np.array([100_000]))
    procedure = make_procedure("grid", sigma=0.25, step=0.25)
    shares = {
        others: bench.replay(log, procedure, 0.25, alpha=1e-3, replays=40, others=others)
        for others in bench.OTHERS
    }
    at_zero = {others: result["certified_accuracy"][0] for others, result in shares.items()}
    assert at_zero["one"]["fixed"] == at_zero["spread"]["fixed"] == 1.0
    assert at_zero["spread"]["value"] > 0.7
    assert at_zero["one"]["value"] < 0.3


def test_radius_mode_keeps_most_of_the_radius():
    procedure = make_procedure("radius", sigma=0.25)
    result = bench.replay(log_of("cifar", 150), procedure, 0.25, alpha=1e-3, replays=2)
    assert result["saving"] > 3.5
    assert 0.94 < result["mean_radius_ratio"] <= 1.0


def test_the_command_reads_what_the_twin_writes(tmp_path):
    path = tmp_path / "log.csv"
    make = [sys.executable, str(BENCHMARKS / "synthetic_log.py"), "--inputs", "20", "--out", str(path)]
    subprocess.run(make, check=True)
    show = [sys.executable, str(BENCHMARKS / "replay.py"), "--counts", str(path), "--sigma", "0.25"]
    done = subprocess.run([*show, "--radius", "0.25", "--json"], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["inputs"] == 20
    assert result["saving"] > 10


def test_a_replayed_path_ends_at_the_count_of_the_log():
    path = bench._Path(np.random.default_rng(0), 700, 1_000)
    seen = [path.seen(n) for n in (10, 100, 999, 1_000)]
    assert seen[-1] == 700
    assert all(b - a >= 0 for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("row", ["0,1,1,1001,1000", "0,1,1,-5,1000", "0,1,1,x,1000", "0,1,1"])
def test_impossible_rows_are_refused(tmp_path, row):
    path = tmp_path / "log.csv"
    path.write_text(f"index,label,predict,count,n\n{row}\n")
    with pytest.raises(InvalidInput):
        bench.read_log(str(path))


def test_an_abstention_without_a_count_is_replayed_as_the_dearest_case(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("index,label,predict,count,n\n0,1,-1,,1000\n1,2,2,990,1000\n")
    log = bench.read_log(str(path))
    assert log.counts.tolist() == [500, 990]
    assert log.right.tolist() == [False, True]


def test_rows_with_fewer_samples_go_on_at_their_frequency(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("index,label,predict,count,n\n0,1,1,100,100\n1,2,2,50000,100000\n")
    log = bench.read_log(str(path))
    procedure = make_procedure("decide", sigma=0.25, radius=0.5)
    result = bench.replay(log, procedure, 0.25, alpha=1e-3, replays=3, radius=0.5)
    assert result["fixed_samples_per_input"] == 100 + (100 + 100_000) / 2
    assert result["certified_accuracy"][0]["value"] == 0.5  # the unanimous one
    assert result["certified_accuracy"][0]["fixed"] == 0.0  # 100 votes alone prove less
