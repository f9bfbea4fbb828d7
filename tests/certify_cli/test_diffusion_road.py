"""Networks of the diffusion family through the command: internal noise planned, the residual gap stored."""

import json

from certify.checkpoints import read
from certify.store import read_run


def test_a_network_with_noise_inside_is_planned_and_trains_without_more_noise(cli, tmp_path):
    path = tmp_path / "noisy.pt"
    done = cli(
        "train", "--arch", "noisy-resnet", "--data", "moons", "--sigma", 0.3, "--epochs", 2, "--out", path
    )
    assert done.exit_code == 0, done.output
    assert read(path)[0].training["regulariser"] == "none", "it draws its own noise in training"
    few = ("--data", "moons", "--pilot", 4, "--pilot-samples", 50, "--n-max", 500, "--json")
    planned = cli("plan", "--model", path, "--noise", "internal", *few)
    assert planned.exit_code == 0, planned.output
    assert len(json.loads(planned.stdout)["modes"]) == 4
    refused = cli("plan", "--model", path, "--noise", "internal", "--sigma", 0.3, *few)
    assert refused.exit_code != 0
    assert "no meaning for internal noise" in refused.output


def test_the_residual_gap_is_measured_with_the_bounds_and_enters_the_ledger(cli, tmp_path):
    path, run = tmp_path / "cd.pt", tmp_path / "run"
    cli(
        "train",
        "--arch",
        "convection-diffusion",
        "--data",
        "moons",
        "--sigma",
        0.3,
        "--epochs",
        2,
        "--out",
        path,
    )
    done = cli("radius", "--model", path, "--data", "moons", "--limit", 6, "--mode", "fixed", "--n", 300,
               "--out", run)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert cli("attack", run, "--limit", 3).exit_code == 0
    found = json.loads(cli("bounds", run, "--points", 50, "--draws", 20, "--json").stdout)["residual_gap"]
    stored = read_run(run).documents["residual_gap"]
    assert stored == found
    assert stored["inputs"] == 6
    assert stored["sigma"] == 0.3
    assert stored["attack_path"]["inputs"] >= 2
    claims = json.loads(cli("compare", run, "--points", 50, "--json").stdout)["claims"]
    row = next(c for c in claims if c["claim"] == "T9")
    assert row["measured"] == stored["largest"]
    assert "attack paths" in row["note"]
