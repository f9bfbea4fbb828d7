"""Train, certify, verify, report and export a tiny segmenter through the command."""

import json

import pytest

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
        cli("radius", "-m", segmenter, "--limit", 4, "--n0", 10, "--n", 120, "--batch-size", 7,
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
        (["--challenge"], "--challenge"),
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
    for verb in (["attack", place], ["bounds", place], ["compare", place], ["attack", "--model", segmenter],
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
