"""The road a user takes, verb by verb, on a tiny model."""

import csv
import io
import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from certify.store import read_run
from certify_cli.main import app
from tests.test_docs_commands import parse

VERBS = sorted(command.name for command in app.registered_commands)


def test_radius_needs_only_model_and_sigma(cli, checkpoint, tmp_path, monkeypatch):
    """The command as printed in the README, on a self-describing checkpoint."""
    monkeypatch.chdir(tmp_path)
    done = cli("radius", "--model", checkpoint, "--sigma", 0.25, "--limit", 3, "--n-max", 500)
    assert done.exit_code == 0, done.output
    assert "certified accuracy" in done.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_radius_json_has_the_documented_fields(cli, checkpoint, run):
    done = cli(
        "radius",
        "--model",
        checkpoint,
        "--sigma",
        0.25,
        "--limit",
        6,
        "--n-max",
        2000,
        "--out",
        run,
        "--json",
    )
    out = json.loads(done.stdout)
    assert set(out) >= {
        "run", "inputs", "certified", "abstained", "failed", "clean_accuracy", "certified_accuracy",
        "mean_radius", "samples_per_input", "settings", "guarantee",
    }  # fmt: skip
    assert out["certified"] + out["abstained"] + out["failed"] == out["inputs"] == 6
    assert [set(row) for row in out["certified_accuracy"]] == [
        {"radius", "value", "low", "high", "level", "robust_low"}
    ] * 6
    assert out["fresh_inputs"] == 0, "the run directory was complete: nothing may be sampled again"
    assert "probability at least 0.999" in out["guarantee"]


@pytest.mark.parametrize(
    ("mode", "options"),
    [("fixed", ["--n0", 20, "--n", 300]), ("grid", ["--step", 0.1]), ("decide", ["--radius", 0.1])],
)
def test_every_mode_runs(cli, checkpoint, tmp_path, mode, options):
    cost = [] if mode == "fixed" else ["--n-max", 1000]
    done = cli("radius", "-m", checkpoint, "-s", 0.25, "--limit", 3, "--mode", mode, *options, *cost,
               "--out", tmp_path / "r", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"]["mode"] == mode


def test_batch_size_changes_no_byte_of_a_record(cli, checkpoint, tmp_path):
    rows = []
    for size in (1, 64):
        out = tmp_path / f"b{size}"
        cli("radius", "-m", checkpoint, "-s", 0.25, "--limit", 2, "--mode", "fixed", "--n0", 10, "--n", 200,
            "--batch-size", size, "--out", out)  # fmt: skip
        table = csv.DictReader(io.StringIO(cli("export", out, "--to", "csv").stdout))
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in table])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_attack_compare_bounds_report_export(cli, run, tmp_path):
    attacked = cli("attack", run, "--limit", 3, "--json")
    assert attacked.exit_code == 0, attacked.output
    assert json.loads(attacked.stdout)["contradictions"] == []
    bounded = json.loads(cli("bounds", run, "--points", 50, "--draws", 50, "--json").stdout)
    assert {"covering bound, as printed", "covering bound, corrected"} <= {
        r["name"] for r in bounded["results"]
    }
    compared = cli("compare", run, "--points", 50, "--json")
    assert compared.exit_code == 0, compared.output
    claims = {row["claim"]: row for row in json.loads(compared.stdout)["claims"]}
    assert {"T1", "T2", "T3", "T4", "T5", "R1"} <= set(claims)
    written = cli("report", run)
    assert written.exit_code == 0, written.output
    page = (run / "report.html").read_text()
    assert "not a certificate" in page
    locuslab = cli("export", run, "--to", "locuslab").stdout
    assert locuslab.splitlines()[0].split("\t") == ["idx", "label", "predict", "radius", "correct", "time"]


def test_compare_prints_a_line_per_claim_and_all_of_them_if_asked(cli, run):
    short, full = (cli("compare", run, "--points", 50, *more) for more in ((), ("--full",)))
    assert short.exit_code == full.exit_code == 0, short.output
    claims = [line.split("│")[1].strip() for line in short.stdout.splitlines() if line.startswith("│")]
    claims = [claim for claim in claims if claim]
    assert claims[:5] == ["T1", "T2", "T3", "T4", "T5"]
    assert len(claims) == len(set(claims)), "a claim has one line"
    assert f"certify compare {run} --full" in short.stdout
    assert "docs/theory.md" in short.stdout
    assert "refuted as printed" in short.stdout
    assert "half-space" not in short.stdout
    assert "half-space" in full.stdout
    assert len(full.stdout.splitlines()) > 2 * len(short.stdout.splitlines())


def test_report_says_what_was_written_and_what_it_shows(cli, run, tmp_path):
    done = cli("report", run, "--out", tmp_path)
    assert done.exit_code == 0
    first, second, third = done.stdout.splitlines()
    assert first == f"page: {tmp_path / 'report.html'} (one file; open it in a browser)"
    written = sorted(p.name for p in (tmp_path / "plots").iterdir())
    assert second == f"beside it: table.tex, card.md, badge.svg, plots/ ({len(written)} figures)"
    stored = read_run(run).run
    assert third.startswith("certified accuracy (6 inputs, l2 radii): ")
    for part in third.split(": ")[1].split(", "):
        share, radius = map(float, part.split(" at "))
        assert share == pytest.approx(stored.accuracy([radius])[0].value, abs=1e-3)
        assert share <= stored.accuracy([radius])[0].value
    both = cli("report", run, run, "--out", tmp_path)
    assert both.stdout.splitlines()[0].endswith("compare.html (one file; open it in a browser)")
    assert both.stdout.count("certified accuracy (6 inputs") == 2


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        (("attack", "{run}", "--limit", "1"), "certify bounds {run}"),
        (("attack", "--model", "{ckpt}", "--limit", "1", "--eps", "0.1", "--preset", "quick"),
         "certify radius --model {ckpt}"),
        (("bounds", "{run}", "--points", "20", "--draws", "20"), "certify compare {run}"),
        (("compare", "{run}", "--points", "20"), "certify report {run}"),
        (("plan", "--model", "{ckpt}", "--pilot", "2", "--pilot-samples", "10"),
         "certify radius --model {ckpt} --mode radius"),
        (("merge", "{run}", "--out", "{tmp}/whole"), "certify verify {tmp}/whole"),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)  # fmt: skip
def test_a_verb_names_the_next_step_and_it_can_be_typed(cli, checkpoint, run, tmp_path, verb, step):
    places = {"run": run, "ckpt": checkpoint, "tmp": tmp_path}
    done = cli(*(part.format(**places) for part in verb))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"next: {step.format(**places)}"
    parse(step.format(**places).split()[1:])


def test_norms_are_spelled_one_way(cli, checkpoint):
    for norm in ("1", "2", "inf"):
        done = cli(
            "attack", "-m", checkpoint, "--limit", 1, "--eps", 0.1, "--norm", norm, "--preset", "quick"
        )
        assert f"l{norm} within 0.1" in done.stdout


def test_formulas_flag_the_printed_one(cli, checkpoint, run):
    asked = ("--sigma", 0.25, "--limit", 6, "--n-max", 2000, "--out", run)
    done = cli("radius", "-m", checkpoint, *asked, "--formulas", "--json")
    rows = json.loads(done.stdout)["formulas"][0]["radii"]
    assert {row["name"]: row["sound"] for row in rows} == {
        "cohen": True, "margin": True, "lipschitz": True, "dimension": True, "as_printed": False,
        "one_sided": True,
    }  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_shows_an_example(verb):
    done = CliRunner().invoke(app, [verb, "--help"])
    assert done.exit_code == 0
    assert f"certify {verb}" in done.stdout.split("Example")[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['certify', '--help']\n"
        "from certify_cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'scipy', 'pandas', 'matplotlib')))"
    )
    began = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    print(f"certify --help took {time.perf_counter() - began:.2f} s")


def test_overlapping_balls_of_different_classes_fail_the_run(cli, tmp_path):
    """A liar certified under floating-point noise: the two images are closer than their radii reach."""
    import numpy as np
    import torch

    from tests import certify_cli

    x = np.zeros((2, 1, 28, 28), np.float32)
    x[1] += 1 / 255
    np.savez(tmp_path / "pair.npz", x=x, y=np.array([0, 1]))
    torch.save({"unused": torch.zeros(1)}, tmp_path / "liar.pt")
    name = f"{certify_cli.__name__}.liar:factory"
    asked = ("radius", "-m", tmp_path / "liar.pt", "-s", 0.25, "--data", tmp_path / "pair.npz")
    asked += ("--arch", name, "--grid", 1 / 255, "--n-max", 2000)
    lied = cli(*asked, "--noise", "gaussian", "--out", tmp_path / "lied")
    assert lied.exit_code == 1
    assert "contradict each other" in lied.stderr
    sound = cli(*asked, "--out", tmp_path / "sound")
    assert sound.exit_code == 0, sound.output


def test_compare_needs_no_data_set_of_a_run_made_in_python(cli, tmp_path):
    import torch

    import certify

    x = torch.round(torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 255) / 255
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    certify.Smoothed(net, 0.25, num_classes=3).certify(x, [0, 1, 2, 0], n_max=200, store=tmp_path / "run")
    done = cli("compare", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "complexity claims left out" in done.stderr
    named = cli("compare", tmp_path / "run", "--data", "digits", "--points", 50, "--json")
    assert named.exit_code == 0, named.output
    assert "left out" not in named.stderr
    assert cli("compare", tmp_path / "run", "--data", "nowhere").exit_code == 2


def test_compare_goes_on_without_a_data_set_that_is_gone(cli, run, tmp_path):
    import shutil

    from certify.store import open_run, read_run

    shutil.copytree(run, tmp_path / "moved")
    stored = read_run(tmp_path / "moved")
    settings = stored.settings | {"data": stored.settings["data"] | {"path": str(tmp_path / "gone.npz")}}
    with open_run(tmp_path / "other", settings, stored.guarantee) as store:
        store.add_all(stored.run)
    done = cli("compare", tmp_path / "other")
    assert done.exit_code == 0, done.output
    assert "complexity claims left out" in done.stderr
