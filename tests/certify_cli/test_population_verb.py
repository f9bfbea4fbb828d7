"""``certify population`` as a command: its JSON, resumption, shards, gates, audits and refusals."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pytest

from certify.canonical import canonical, sha256_text
from certify.population.statements import DOCUMENT
from certify.store import read_run

ASK = (
    "--radius",
    0.25,
    "--samples",
    8,
    "--limit",
    120,
    "--confidence",
    0.95,
    "--seed",
    3,
    "--batch-size",
    64,
)
KEYS = {
    "radius", "samples_per_input", "inputs", "passes", "lower", "upper", "confidence", "method", "one_pass",
    "statement",
}  # fmt: skip


def ask(cli, checkpoint, out, *more, code=0):
    done = cli("population", "--model", checkpoint, "--sigma", 0.25, *ASK, "--out", out, *more)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def made(cli, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("population") / "run"
    body = json.loads(ask(cli, checkpoint, out, "--json").stdout)
    return out, body


def test_one_object_says_what_is_stated(made):
    out, body = made
    assert set(body) >= KEYS
    assert body["radius"] == 0.25
    assert body["passes"] == body["fresh_passes"] == 120 * 8
    assert (body["inputs"], body["pilot"], body["counted"]) == (120, 12, 108)
    assert 0 < body["lower"] < body["upper"] <= 1
    assert body["one_pass"] is None
    assert "No input is certified by itself" in body["statement"]
    assert body["complete"]
    assert len({r.index for r in read_run(out).run}) == 120


def test_the_same_command_samples_nothing_again_and_says_the_same(cli, checkpoint, made):
    out, body = made
    again = json.loads(ask(cli, checkpoint, out, "--json").stdout)
    assert again["fresh_passes"] == 0
    assert {k: again[k] for k in KEYS} == {k: body[k] for k in KEYS}
    table = ask(cli, checkpoint, out).stdout
    assert "certify verify" in table
    assert "at least" in table


@pytest.mark.parametrize(
    "more", [("--radius", 0.3), ("--samples", 9), ("--limit", 121), ("--pilot", 0.2), ("--confidence", 0.9),
             ("--seed", 4), ("--one-pass",), ("--noise", "gaussian")],
)  # fmt: skip
def test_a_run_does_not_go_on_with_other_settings(cli, checkpoint, made, more):
    """Else the best of several sizes, radii or draws could be kept."""
    assert "RunConflict" in ask(cli, checkpoint, made[0], *more, code=2).output


def test_several_radii_and_the_one_copy_classifier_share_the_level(cli, checkpoint, tmp_path):
    more = ("--radius", 0.1, "--one-pass", "--shift", 0.05, "--json")
    body = json.loads(ask(cli, checkpoint, tmp_path / "run", *more).stdout)
    assert [s["radius"] for s in body["statements"]] == [0.25, 0.1]
    assert body["lower"] < body["statements"][1]["lower"]
    assert body["one_pass"] < body["statements"][1]["one_pass"] < 1
    assert body["shifted"] > 0
    assert "shared by 3 statements" in body["statement"]


def test_one_pass_per_input_is_enough(cli, checkpoint, tmp_path):
    out = tmp_path / "run"
    done = cli(
        "population", "--model", checkpoint, "--radius", 0.1, "--one-pass", "--limit", 150, "--out", out,
        "--confidence", 0.95, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["passes"] == 150
    assert 0.2 < body["one_pass"] < 1
    assert body["pilot"] == 0


def test_a_gate_passes_on_what_is_proved(cli, checkpoint, made):
    out, body = made
    low, high = f"population@0.25>={body['lower'] - 0.01}", f"population@0.25>={body['lower'] + 0.01}"
    assert ask(cli, checkpoint, out, "--require", low, "--json")
    done = ask(cli, checkpoint, out, "--require", high, "--json", code=1)
    assert json.loads(done.stdout)["requirements"][0]["met"] is False
    assert "EvidenceFails" in done.output


@pytest.mark.parametrize(
    "gate",
    [
        "population@0.3>=0.5",
        "one_pass@0.25>=0.5",
        "population@0.25>=90",
        "population>=0.5",
        "certified@0.25>=0.5",
    ],
)
def test_a_gate_about_what_is_not_stated_is_refused(cli, checkpoint, made, gate):
    assert "--require" in ask(cli, checkpoint, made[0], "--require", gate, code=2).output


def test_shards_merge_and_meet_no_gate_before(cli, checkpoint, made, tmp_path):
    parts = [tmp_path / "1", tmp_path / "2"]
    for i, part in enumerate(parts):
        done = ask(cli, checkpoint, part, "--shard", f"{i + 1}/2", "--json")
        body = json.loads(done.stdout)
        assert body["complete"] is False
        assert body["lower"] is None
        assert "no counts" in body["statement"]
        gate = ("--shard", f"{i + 1}/2", "--require", "population@0.25>=0")
        ask(cli, checkpoint, part, *gate, code=1)
        assert json.loads(cli("verify", part, "--json").stdout)["outcome"] == "not checked"
    done = cli("merge", *parts, "--out", tmp_path / "whole")
    assert done.exit_code == 0, done.output
    assert read_run(tmp_path / "whole").documents[DOCUMENT] == read_run(made[0]).documents[DOCUMENT]
    assert cli("verify", tmp_path / "whole").exit_code == 0


def test_an_audit_samples_again_and_finds_forged_counts(cli, checkpoint, made, tmp_path):
    out = made[0]
    held = cli("verify", out, "--level", 3, "--model", checkpoint, "--seed", 1, "--json")
    assert held.exit_code == 0, held.output
    shutil.copytree(out, tmp_path / "run")
    forge(tmp_path / "run")
    assert cli("verify", tmp_path / "run").exit_code == 0, "the arithmetic alone holds"
    found = cli("verify", tmp_path / "run", "--level", 3, "--model", checkpoint, "--seed", 1, "--json")
    assert found.exit_code == 1
    assert [c["name"] for c in json.loads(found.stdout)["checks"] if c["outcome"] == "fails"] == ["replay"]


def forge(path):
    """Every copy of every input is right, and all else follows from it."""
    from dataclasses import replace

    from certify.population.statements import state
    from certify.records import Run
    from certify.store import _text
    from certify.store.database import seal
    from certify.store.manifest import write_evidence

    stored = read_run(path)
    n = stored.settings["mode_options"]["n"]
    records = []
    for r in stored.run:
        votes = [0] * len(r.counts)
        votes[r.target] = n
        records.append(replace(r, counts=tuple(votes)))
    document = state(Run(records, stored.settings, stored.guarantee)).to_json()
    db = sqlite3.connect(path / "records.sqlite")
    with db:
        for r in records:
            text = _text(r)
            row = (text, sha256_text(text), seal(stored.run_id, r.index, text, r.seconds), r.index)
            db.execute("UPDATE records SET record = ?, sha256 = ?, seal = ? WHERE idx = ?", row)
        body = canonical(document)
        db.execute("UPDATE documents SET body = ?, sha256 = ?", (body, sha256_text(body)))
    db.close()
    write_evidence(path)


def test_the_report_and_what_is_refused_for_such_a_run(cli, checkpoint, made, tmp_path):
    out = made[0]
    done = cli("report", out, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "With confidence 0.95" in done.stdout
    assert (tmp_path / "plots" / "counts.svg").is_file()
    for verb in (("attack", out), ("compare", out)):
        refused = cli(*verb)
        assert refused.exit_code == 2
        assert "certified none of them by itself" in refused.output
    assert cli("export", out, "--to", "locuslab").exit_code == 2
    assert cli("export", out).stdout.count("counted") == 120


def test_what_is_no_sample_is_refused(cli, checkpoint, tmp_path):
    trained = cli(
        "population", "--model", checkpoint, "--radius", 0.1, "--split", "train", "--out", tmp_path / "a"
    )
    assert trained.exit_code == 2
    assert "trained on" in trained.output
    x = np.zeros((40, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "same.npz", x=x, y=np.zeros(40, dtype=np.int64))
    ask_of = ("population", "--model", checkpoint, "--radius", 0.1, "--out", tmp_path / "b")
    same = cli(*ask_of, "--data", tmp_path / "same.npz")
    assert same.exit_code == 2
    assert "repeat others" in same.output
    np.savez(tmp_path / "bare.npz", x=np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32))
    bare = cli(*ask_of, "--data", tmp_path / "bare.npz")
    assert bare.exit_code == 2
    assert not (tmp_path / "b").exists()


def test_a_shard_without_a_seed_would_draw_other_inputs(cli, checkpoint, tmp_path):
    done = cli(
        "population", "--model", checkpoint, "--radius", 0.1, "--shard", "2/2", "--out", tmp_path / "a"
    )
    assert done.exit_code == 2
    assert "--seed" in done.output
