"""Train, certify, verify, report and export a tiny segmenter through the command."""

import json

import numpy as np
import pytest

import attacks
from attacks.dense import PixelAttack
from certify.data import load
from certify.dense import work
from certify.store import read_run, records_digest


@pytest.fixture(scope="module")
def segmenter(cli, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "unet.pt"
    small = ["--arch-args", json.dumps({"width": 2, "depth": 1}), "--epochs", 3, "--lr", 0.02]
    done = cli("train", "--arch", "unet", "--data", "shapes", *small, "--out", path)
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def run(cli, segmenter, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pixels"
    done = cli("radius", "-m", segmenter, "--limit", 4, "--n0", 10, "--n", 120, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_sigma_data_and_task_come_from_the_checkpoint(run):
    _, found = run
    assert found["task"] == found["settings"]["task"] == "segmentation"
    assert found["settings"]["sigma"] == 0.25
    assert found["settings"]["data"]["name"] == "shapes"
    assert found["settings"]["mode_options"]["correction"] == "bonferroni"
    assert found["pixels"] == 4 * 32 * 32
    assert 0 < found["certified_pixels"] < found["pixels"]
    values = [row["value"] for row in found["certified_accuracy"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0
    assert 0 < found["mean_iou"] <= 1
    assert "all of them together" in found["guarantee"]


def test_the_same_command_goes_on_and_another_batch_size_changes_nothing(cli, segmenter, run, tmp_path):
    place, _ = run
    again = cli("radius", "-m", segmenter, "--limit", 4, "--n0", 10, "--n", 120, "--out", place, "--json")
    assert json.loads(again.stdout)["fresh_inputs"] == 0
    for shard in (1, 2):
        cli("radius", "-m", segmenter, "--limit", 4, "--n0", 10, "--n", 120, "--batch-size", 7, "--seed", 0,
            "--shard", f"{shard}/2", "--out", tmp_path / f"s{shard}")  # fmt: skip
    done = cli("merge", tmp_path / "s1", tmp_path / "s2", "--out", tmp_path / "whole")
    assert done.exit_code == 0, done.output
    assert records_digest(read_run(tmp_path / "whole").run) == records_digest(read_run(place).run)


def test_one_radius_is_tested_by_holm_and_printed_as_a_table(cli, segmenter, tmp_path):
    done = cli("radius", "-m", segmenter, "--limit", 2, "--radius", 0.1686, "--n0", 10, "--n", 120,
               "--out", tmp_path / "r")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "correction holm" in done.stdout
    assert "mean IoU" in done.stdout
    assert "0.1686" in done.stdout
    assert cli("verify", tmp_path / "r").exit_code == 0


def test_verify_replays_report_draws_export_writes(cli, run, segmenter):
    place, _ = run
    done = cli(
        "verify", place, "--level", 3, "--model", segmenter, "--subset", 2, "--samples", 60, "--seed", 1
    )
    assert done.exit_code == 0, done.output
    assert "agree with fresh noise" in done.stdout
    assert cli("report", place).exit_code == 0
    assert "segmentation" in (place / "report.html").read_text()
    assert cli("export", place).stdout.startswith("index,status,pixels")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "radius"], "--mode radius"),
        (["--mode", "decide", "--radius", 0.1], "--mode decide"),
        (["--mode", "grid", "--step", 0.1], "--mode grid"),
        (["--scores", "soft"], "--scores soft"),
        (["--n-max", 100], "--n-max"),
        (["--slack", 0.1], "--slack"),
        (["--step", 0.1], "--step"),
        (["--engine", "ray"], "--engine ray"),
        (["--formulas"], "--formulas"),
        (["--noise", "internal"], "--noise internal"),
        (["--require", "mean_radius>=0.1"], "--require mean_radius"),
        (["--correction", "holm"], "radius = None"),
        (["--correction", "bonferroni", "--radius", 0.1], "no meaning with correction bonferroni"),
        (["--data", "digits"], "does not fit the model"),
    ],
)
def test_what_a_segmenter_does_not_have_is_refused(cli, segmenter, tmp_path, options, said):
    done = cli("radius", "-m", segmenter, "--limit", 1, "--out", tmp_path / "r", *options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "why:" in done.stderr
    assert "do:" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_gate_fails_on_what_is_not_proved(cli, segmenter, run, tmp_path):
    common = ["radius", "-m", segmenter, "--limit", 4, "--n0", 10, "--n", 120, "--out", run[0]]
    assert cli(*common, "--require", "certified@0.1>=0.01").exit_code == 0
    missed = cli(*common, "--require", "certified@0.1>=0.999")
    assert missed.exit_code == 1
    assert "certified@0.1 is" in missed.stderr


def test_verbs_for_one_class_per_input_say_so(cli, segmenter, run, checkpoint, tmp_path):
    place, _ = run
    for verb in (["bounds", place], ["compare", place],
                 ["plan", "--model", segmenter, "-s", 0.25], ["export", place, "--to", "locuslab"],
                 ["report", place, place]):  # fmt: skip
        done = cli(*verb)
        assert done.exit_code == 2, (verb, done.output)
        assert "segmentation" in done.stderr
    done = cli(
        "radius", "-m", checkpoint, "-s", 0.25, "--limit", 1, "--correction", "holm", "--out", tmp_path / "r"
    )
    assert done.exit_code == 2
    assert "--correction" in done.stderr


def test_pixels_are_attacked_with_and_without_a_run_and_both_are_kept(cli, segmenter, run, tmp_path):
    place, _ = run
    kept = tmp_path / "found.npz"
    done = cli(
        "attack", "-m", segmenter, "--eps", 0.5, "--preset", "quick", "--limit", 2, "--out", kept, "--json"
    )
    assert done.exit_code == 0, done.output
    alone = json.loads(done.stdout)
    assert alone["accuracy"]["value"] < alone["clean_accuracy"]
    assert alone["survived"]["value"] <= alone["accuracy"]["value"]
    with np.load(kept, allow_pickle=False) as arrays:
        assert json.loads(str(arrays["summary"])) == alone
        far = np.linalg.norm(
            (arrays["x_adv"] - load("shapes", split="test", limit=2).x.numpy()).reshape(2, -1), axis=1
        )
        broken = (arrays["clean"] == arrays["label"]) & (arrays["attacked"] != arrays["label"])
    assert (far <= 0.5 * (1 + 1e-6)).all()
    assert broken.sum() == alone["pixels"]["broken"] > 0

    words = ["attack", place, "--eps", 0.5, "--base", "--preset", "quick", "--limit", 2, "--json"]
    stored = json.loads(cli(*words).stdout)
    assert stored == alone, "the run says which network and which images"
    rows = [row for row in read_run(place).attacks if row["eps"] == 0.5]
    assert [row["index"] for row in rows] == [0, 1]
    outcome = PixelAttack.of(rows[0], read_run(place).arrays(PixelAttack.stored_name(rows[0])))
    assert int(outcome.broken.sum()) == rows[0]["broken"]
    assert cli("verify", place).exit_code == 0

    done = cli("attack", place, "--eps", 0.1, "--limit", 1, "--json")
    assert done.exit_code == 0, done.output
    smoothed = json.loads(done.stdout)
    assert smoothed["preset"] == "smoothed"
    assert smoothed["contradictions"] == []
    again = cli("attack", place, "--eps", 0.1, "--limit", 1, "--json")
    assert json.loads(again.stdout) == smoothed, "what is stored is not attacked again"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "quick"], "needs a perturbation size"),
        (["--eps", 0.1, "--preset", "minimal"], "no preset 'minimal'"),
        (["--eps", 0.1, "--preset", "smoothed"], "does not attack a base network"),
        (["--eps", 0.1, "--preset", "quick", "--limit", 1, "--out", "maps.csv"], "no known ending"),
    ],
)
def test_attacks_on_pixels_say_what_they_need(cli, segmenter, options, said):
    done = cli("attack", "-m", segmenter, *options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_what_an_attack_on_a_classifier_found_is_kept(cli, checkpoint, tmp_path):
    done = cli("attack", "-m", checkpoint, "--eps", 0.1, "--norm", "inf", "--limit", 2, "--preset", "quick",
               "--out", tmp_path / "x.npz")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(attacks.load(tmp_path / "x.npz")) == 2
    refused = cli("attack", "-m", checkpoint, "--eps", 0.1, "--limit", 1, "--out", tmp_path / "x.txt")
    assert refused.exit_code == 2
    assert "no known ending" in refused.stderr


def test_a_challenge_of_an_honest_run_finds_nothing_and_is_kept(cli, segmenter, tmp_path):
    place = tmp_path / "challenged"
    done = cli("radius", "-m", segmenter, "--limit", 1, "--n0", 10, "--n", 120, "--out", place, "--challenge")
    assert done.exit_code == 0, done.output
    assert "no contradiction" in done.stderr
    stored = read_run(place)
    assert stored.documents["contradictions"]["hits"] == []
    assert [row["preset"] for row in stored.attacks] == ["challenge"]


def test_inflated_radii_are_contradicted_and_the_exit_code_says_so(cli, segmenter, tmp_path, monkeypatch):
    """A certifier whose radii are four times too large: the challenge it is followed by must fail."""
    proved = work.pixel_radii
    monkeypatch.setattr(work, "pixel_radii", lambda *given: 4 * proved(*given))
    place = tmp_path / "liar"
    words = ["radius", "-m", segmenter, "--limit", 1, "--n0", 10, "--n", 120, "--out", place]
    done = cli(*words, "--challenge")
    assert done.exit_code == 1, done.output
    assert "certified pixels were confirmed to change their class within their radius" in done.stderr
    found = read_run(place).documents["contradictions"]["hits"]
    assert found
    assert all(hit["distance"] <= hit["radius"] for hit in found)
    assert cli("report", place).exit_code == 0
    assert "This run is invalid" in (place / "report.html").read_text()
