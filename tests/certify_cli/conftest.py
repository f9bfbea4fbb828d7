"""One tiny checkpoint and one tiny run, made once through the command itself."""

import json

import pytest
from typer.testing import CliRunner

from certify_cli.main import app


@pytest.fixture(scope="session")
def cli():
    runner = CliRunner()

    def invoke(*args: object):
        return runner.invoke(app, [str(a) for a in args])

    return invoke


@pytest.fixture(scope="session")
def checkpoint(cli, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.pt"
    done = cli("train", "--arch", "mlp", "--data", "digits", "--epochs", 6, "--out", path)
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="session")
def run(cli, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
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
        out,
        "--json",
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["inputs"] == 6
    return out
