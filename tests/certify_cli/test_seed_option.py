"""``--seed``: drawn by default, printed and recorded; shards share one or are told to."""

import json
import re

import pytest

from certify.store import read_run


def radius(cli, checkpoint, place, *options):
    return cli(
        "radius",
        "--model",
        checkpoint,
        "--sigma",
        0.25,
        "--limit",
        4,
        "--n-max",
        400,
        "--out",
        place,
        *options,
    )


def test_a_drawn_seed_is_printed_recorded_and_kept(cli, checkpoint, tmp_path, drawn_seeds):
    done = radius(cli, checkpoint, tmp_path / "a")
    assert done.exit_code == 0, done.output
    [seed] = drawn_seeds
    assert f"seed: {seed.value} (drawn for this run)" in done.stdout
    assert read_run(tmp_path / "a").settings["seed"] == str(seed.value)
    again = radius(cli, checkpoint, tmp_path / "a", "--json")
    assert json.loads(again.stdout)["fresh_inputs"] == 0
    other = radius(cli, checkpoint, tmp_path / "b", "--seed", seed.value)
    assert f"seed: {seed.value} (as given)" in other.stdout
    assert "chosen by the user" in " ".join(other.stdout.split())
    a, b = (read_run(tmp_path / name).run for name in "ab")
    assert [r.counts for r in a] == [r.counts for r in b]
    refused = radius(cli, checkpoint, tmp_path / "a", "--seed", 5)
    assert refused.exit_code == 2
    assert "seed" in refused.output


def test_the_same_command_without_out_finds_its_run_again(
    cli, checkpoint, tmp_path, drawn_seeds, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ("radius", "--model", checkpoint, "--sigma", 0.25, "--limit", 2, "--n-max", 400, "--json")
    first, second = (json.loads(cli(*command).stdout) for _ in range(2))
    assert first["run"] == second["run"]
    assert second["fresh_inputs"] == 0
    assert len(drawn_seeds) == 1


def test_shards_without_a_seed_are_told_one_and_merge_with_it(cli, checkpoint, tmp_path, drawn_seeds):
    refused = radius(cli, checkpoint, tmp_path / "s1", "--shard", "1/2")
    assert refused.exit_code == 2
    told = re.search(r"--seed (\d+)", " ".join(refused.output.split()))
    assert told is not None
    assert not (tmp_path / "s1").exists()
    for i in (1, 2):
        done = radius(cli, checkpoint, tmp_path / f"s{i}", "--shard", f"{i}/2", "--seed", told[1])
        assert done.exit_code == 0, done.output
    on = radius(
        cli, checkpoint, tmp_path / "s1", "--shard", "1/2", "--json"
    )  # a run that is there has its seed
    assert json.loads(on.stdout)["fresh_inputs"] == 0
    merged = cli("merge", tmp_path / "s1", tmp_path / "s2", "--out", tmp_path / "whole")
    assert merged.exit_code == 0, merged.output
    alone = radius(cli, checkpoint, tmp_path / "one", "--shard", "1/1", "--json")
    assert alone.exit_code == 0, alone.output


@pytest.mark.parametrize("seed", [2**128, 2**200])
def test_more_than_128_bits_are_refused(cli, checkpoint, tmp_path, seed):
    done = radius(cli, checkpoint, tmp_path / "a", "--seed", seed)
    assert done.exit_code == 2
    assert "cannot key the noise" in done.output
