"""``certify board``: runs and logs on one page, from the command line."""

import json

import pytest
from typer.testing import CliRunner

from certify_cli.app import app
from tests.certify.simulated_run import write
from tests.reports.test_board import drawn, log


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_runs_and_logs_stand_side_by_side(tmp_path):
    write(tmp_path / "own", "radius")
    logs = [log(tmp_path / f"mnist-x-{s}.tsv", drawn(k, float(s))) for k, s in enumerate(("0.25", "0.50"))]
    done = call("board", tmp_path / "own", *logs, "--out", tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert "claimed" in done.stdout
    assert "level 2: holds" in done.stdout
    found = json.loads((tmp_path / "site" / "board.json").read_text())
    assert [row["sigma"] for row in found["rows"]] == [0.5, 0.25, 0.5]
    assert (tmp_path / "site" / found["rows"][0]["report"]).exists()
    as_json = json.loads(call("board", *logs, "--out", tmp_path / "b", "--radius", 0.3, "--json").stdout)
    assert as_json["radii"] == [0.3]
    assert [v["family"] for v in as_json["envelopes"]] == ["mnist-x"]


def test_a_run_that_fails_makes_the_command_fail(tmp_path):
    write(tmp_path / "own", "radius", alpha=0.01)
    done = call("board", tmp_path / "own", "--out", tmp_path / "site")
    assert done.exit_code == 1
    assert "own fails verification" in done.stderr
    assert "level 2: fails" in (tmp_path / "site" / "index.html").read_text()


@pytest.mark.parametrize(("name", "words", "says"), [
    ("log.tsv", (), "the noise level of log.tsv is not known"), ("gone-0.5.tsv", (), "gone-0.5.tsv"),
    ("x-0.5.tsv", ("--sigma", "-1"), "sigma"), ("x-0.5.tsv", ("--radius", "nan"), "radius"),
])  # fmt: skip
def test_what_cannot_be_shown_is_named(tmp_path, name, words, says):
    if not name.startswith("gone"):
        log(tmp_path / name, [(1, 1, "0.5")])
    done = call("board", tmp_path / name, "--out", tmp_path / "site", *words)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert not (tmp_path / "site" / "index.html").exists()
