"""verify and merge, as commands: exit 0 for what holds, 1 for what does not, and its name."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


CODES = {"holds": 0, "fails": 1, "not checked": 3}


def verdict(cli, *args, outcome="fails"):
    """What fails (or was not checked, or holds), by name; the exit code is that of the outcome."""
    done = cli("verify", *args, "--json")
    body = json.loads(done.stdout)
    assert done.exit_code == CODES[body["outcome"]]
    assert body["ok"] == (body["outcome"] == "holds")
    return {c["name"]: c["detail"] for c in body["checks"] if c["outcome"] == outcome}


def test_an_honest_run_holds_at_every_level(cli, copy, checkpoint):
    for level in (1, 2, 3):
        assert verdict(cli, copy, "--level", level, "--model", checkpoint) == {}
    done = cli("verify", copy)
    assert done.exit_code == 0
    assert "the run holds" in done.stdout


def test_a_tampered_row_is_named(cli, copy):
    db = sqlite3.connect(copy / "records.sqlite")
    with db:
        db.execute(
            "UPDATE records SET record = replace(record, '\"samples\":', '\"samples\":1') WHERE idx = 2"
        )
    db.close()
    assert "input 2" in verdict(cli, copy)["records"]


def test_a_changed_alpha_is_named(cli, copy):
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"alpha": 0.001', '"alpha": 0.0001', 1))
    assert "alpha" in verdict(cli, copy, "--level", 1)["manifest"]


def test_a_swapped_model_is_named(cli, copy, tmp_path):
    other = tmp_path / "other.pt"
    assert (
        cli(
            "train", "--arch", "mlp", "--data", "digits", "--epochs", 1, "--seed", 5, "--out", other
        ).exit_code
        == 0
    )
    found = verdict(cli, copy, "--model", other)
    assert list(found) == ["same model"]
    assert set(verdict(cli, copy, "--level", 3, "--model", other)) == {"same model"}
    assert set(verdict(cli, copy, "--level", 3, "--model", other, outcome="not checked")) == {"replay"}


def test_merging_a_run_with_itself_is_the_run(cli, copy, tmp_path):
    done = cli("merge", copy, copy, "--out", tmp_path / "whole", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["inputs"] == 6
    assert verdict(cli, tmp_path / "whole") == {}


def test_replay_opens_the_data_again_and_refuses_others(cli, copy, monkeypatch):
    from dataclasses import replace

    from certify import data

    load = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: (d := load(*a, **k)) and replace(d, x=1 - d.x))
    assert "is not the one that" in verdict(cli, copy, "--level", 3)["data"]


def test_an_imported_log_is_never_verified(cli, copy, tmp_path):
    log = tmp_path / "log.tsv"
    assert cli("export", copy, "--to", "locuslab", "--out", log).exit_code == 0
    assert cli("import", log, "--sigma", 0.25, "--out", tmp_path / "imported").exit_code == 0
    assert "records" in verdict(cli, tmp_path / "imported", "--level", 1, outcome="holds")
    for level in (2, 3):
        words = (tmp_path / "imported", "--level", level)
        assert verdict(cli, *words) == {}
        assert "without the votes" in verdict(cli, *words, outcome="not checked")["bounds"]
    done = cli("verify", tmp_path / "imported")
    assert done.exit_code == 3
    assert "not checked: bounds; nothing else fails" in done.stdout
    assert "does not hold" not in done.stdout


@pytest.mark.parametrize("scores", [("soft",), ("distribution", "--mode", "fixed", "--n0", 50, "--n", 500)])
def test_soft_scores_are_sampled_again(cli, checkpoint, tmp_path, monkeypatch, scores):
    run = tmp_path / "soft"
    done = cli("radius", "-m", checkpoint, "-s", 0.25, "--limit", 4, "--n-max", 1000, "--out", run,
               "--scores", *scores)  # fmt: skip
    assert done.exit_code == 0, done.output
    again = cli("verify", run, "--level", 3)
    assert again.exit_code == 0, again.output
    assert "agree with fresh noise" in again.stdout
    from certify import Smoothed

    honest = Smoothed.score_histograms
    monkeypatch.setattr(Smoothed, "score_histograms", lambda *a, **k: honest(*a, **k)[:, :, ::-1])
    other = cli("verify", run, "--level", 3)
    assert other.exit_code == 1
    assert "the run does not hold: replay" in other.stdout
