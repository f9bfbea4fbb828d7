"""Every verb that opens a run's data refuses other inputs or labels under the same path."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import certify
from certify.store import read_run, records_digest
from pdenets.baselines import linear

RADIUS = (
    "radius",
    "--model",
    "m.pt",
    "--sigma",
    0.1,
    "--mode",
    "fixed",
    "--n0",
    10,
    "--n",
    60,
    "--batch-size",
    30,
)
X = np.random.default_rng(0).integers(0, 256, (8, 3, 4, 4), dtype=np.uint8)
Y = (X.reshape(8, -1).mean(1) > 127).astype(int)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a linear model of the mean grey value, and its data."""
    monkeypatch.chdir(tmp_path)
    model = linear(num_classes=2, input_shape=(3, 4, 4))
    weight, bias = model.parameters()
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 48))
        bias.copy_(torch.tensor([24.0017, 0.0]))  # no lattice point is a tie
    put()
    certify.save(model.eval(), "m.pt", data="d.npz", architecture="linear")
    return tmp_path


def put(x=X, y=Y):
    np.savez("d.npz", x=x, y=y)


def certified(cli, *more):
    done = cli(*RADIUS, "--data", "d.npz", "--seed", 0, *more)
    assert done.exit_code == 0, done.output
    return done


def refused(done, *words, code=1):
    assert done.exit_code == code, done.output
    for word in words:
        assert word in " ".join(done.output.split())


@pytest.mark.parametrize(("x", "y", "word"), [(X, 1 - Y, "label of input 0"), (255 - X, Y, "input 0 is not")])
def test_a_run_whose_file_was_changed_is_refused_by_every_verb_that_opens_it(cli, place, x, y, word):
    certified(cli, "--limit", 4, "--out", "r")
    put(x, y)
    refused(cli(*RADIUS, "--data", "d.npz", "--out", "r"), "EvidenceFails", word)
    for verb in ("attack", "bounds"):
        refused(cli(verb, "r"), "EvidenceFails", word)
    refused(cli("compare", "r"), "EvidenceFails", word)
    refused(cli("verify", "r", "--level", 3), word)
    assert cli("verify", "r").exit_code == 0
    assert len(read_run("r").sessions) == 1
    put()
    assert cli("verify", "r", "--level", 3).exit_code == 0
    assert len(read_run("r").run) == 4


@pytest.mark.parametrize(("x", "y"), [(X, 1 - Y), (255 - X, Y), (X, np.r_[Y[:1] ^ 1, Y[1:]])])
def test_shards_of_a_file_that_was_changed_in_between_are_not_merged(cli, place, x, y):
    certified(cli, "--shard", "1/2", "--out", "a")
    put(x, y)
    certified(cli, "--shard", "2/2", "--out", "b")
    refused(cli("merge", "a", "b", "--out", "w"), "certified different data")
    assert not (place / "w").exists()


def test_honest_shards_and_parts_are_the_whole_run(cli, place):
    certified(cli, "--out", "whole")
    for part, more in {"a": ("--shard", "1/2"), "b": ("--shard", "2/2"), "c": ("--limit", 3)}.items():
        certified(cli, *more, "--out", part)
    certified(cli, "--skip", 3, "--out", "d")
    digest = records_digest(read_run("whole").run)
    for parts in (("a", "b"), ("c", "d")):
        done = cli("merge", *parts, "--out", "w" + parts[0], "--json")
        assert json.loads(done.output)["digest"] == digest, done.output
        assert cli("verify", "w" + parts[0], "--level", 3).exit_code == 0
    put(255 - X, Y)
    refused(cli("merge", "c", "d", "--out", "again"), "EvidenceFails", "input 0 is not")
    (place / "d.npz").unlink()
    refused(cli("merge", "c", "d", "--out", "again"), "nothing shows", "--data-root", code=2)
    assert not (place / "again").exists()
    assert cli("merge", "a", "b", "--out", "again").exit_code == 0, "hashes need no file"


def test_a_run_that_grew_says_so_beside_its_interval(cli, place):
    certified(cli, "--limit", 4, "--out", "r")
    done = certified(cli, "--out", "r")
    assert "Inputs were added when 4 results were there" in " ".join(done.output.split())
    assert cli("report", "r").exit_code == 0
    assert "Inputs were added when 4 results were there" in (place / "r" / "report.html").read_text()
    assert cli("verify", "r", "--level", 3).exit_code == 0


def test_compare_without_training_data_leaves_out_what_needs_it(cli, place):
    for label, name in enumerate("ab"):
        folder = place / "photos" / "test" / name
        folder.mkdir(parents=True)
        for i in np.flatnonzero(label == Y)[:2]:
            Image.fromarray(X[i].transpose(1, 2, 0)).save(folder / f"{i}.png")
    done = cli(*RADIUS, "--data", "photos", "--out", "r")
    assert done.exit_code == 0, done.output
    done = cli("compare", "r", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert len(found["claims"]) > 5
    assert ["complexity claims left out" in part for part in found["left_out"]] == [True]
    assert "complexity claims left out" in cli("compare", "r").output
    assert cli("report", "r").exit_code == 0
    (place / "photos").rename(place / "gone")
    gone = json.loads(cli("compare", "r", "--json").stdout)["left_out"]
    assert len(gone) == 2
    assert "inputs and labels not compared" in gone[0]


def bounds(cli, *more):
    done = cli("bounds", "r", "--points", 8, "--draws", 10, "--json", *more)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def about_held_out(document):
    return [row for row in document["results"] if row["name"].startswith(("test set", "risk at l2 radius"))]


@pytest.mark.parametrize(
    "rows", [[0] * 8, [7, 6, 5, 4, 3, 2, 1, 0], [1, 2, 3], "one pixel up", "every pixel of one row up"]
)
def test_bounds_from_training_rows_are_left_out_however_they_are_arranged(cli, place, rows):
    """The checkpoint was made with d.npz; the run certifies a file of its rows."""
    if isinstance(rows, str):
        x = X.copy()
        x[(0, 0, 0, 0) if rows.startswith("one") else 0] ^= 1
        np.savez("copy.npz", x=x, y=Y)
    else:
        np.savez("copy.npz", x=X[rows], y=Y[rows], num_classes=2)
    done = cli(*RADIUS, "--data", "copy.npz", "--out", "r")
    assert done.exit_code == 0, done.output
    document = bounds(cli)
    assert about_held_out(document) == []
    assert "held-out points" in document["left_out"]
    assert "training rows" in document["left_out"]
    assert about_held_out(bounds(cli, "--data", "d.npz")) == []


def test_bounds_name_what_was_dropped_and_what_repeats(cli, place):
    fresh = np.random.default_rng(9).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    x = np.concatenate([X[:3], fresh, fresh[:2]])
    np.savez("mixed.npz", x=x, y=(x.reshape(10, -1).mean(1) > 127).astype(int))
    done = cli(*RADIUS, "--data", "mixed.npz", "--out", "r")
    assert done.exit_code == 0, done.output
    document = bounds(cli)
    found = about_held_out(document)
    assert len(found) == 4
    assert {(row["terms"]["n"], row["terms"]["distinct"]) for row in found} == {(7, 5)}
    assert all(any("3 of 10 rows occur among" in a for a in row["assumptions"]) for row in found)
    assert {k: document["held_out"][k] for k in ("rows", "held_out", "equal", "near", "repeats")} == {
        "rows": 10, "held_out": 7, "equal": 3, "near": 0, "repeats": 2,
    }  # fmt: skip
    assert "3 of 10 rows occur among the training rows and are left out" in cli("bounds", "r").output
    (place / "d.npz").unlink()
    gone = bounds(cli)
    assert about_held_out(gone) == []
    assert "the training data is not there" in gone["left_out"]
