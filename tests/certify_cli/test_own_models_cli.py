"""The command with networks of one's own: state dict, own checkpoint, ONNX file, own data."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import certify

MODULE = """
from torch import nn


def net(*, num_classes, input_shape, hidden=8):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Tanh(), nn.Linear(hidden, num_classes))


class Net(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.layers = net(num_classes=3, input_shape=(2,), hidden=hidden)

    def forward(self, x):
        return self.layers(x)
"""
FAST = ("--n-max", 200, "--limit", 3, "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's own folder: a module, data, and one network in every form."""
    place = tmp_path_factory.mktemp("own")
    (place / "cli_own_net.py").write_text(MODULE, encoding="utf-8")
    rng = np.random.default_rng(0)
    x = (np.round(rng.uniform(-2, 2, (9, 2)) * 256) / 256).astype(np.float32)
    # Only two of the three classes occur.
    np.savez(place / "own.npz", x=x, y=np.arange(9) % 2, low=-2.0, high=2.0, grid=2.0**-8)
    sys.path.insert(0, str(place))
    import cli_own_net

    torch.manual_seed(0)
    network = cli_own_net.Net().eval()
    torch.save(network.layers.state_dict(), place / "weights.pt")
    torch.save(network.state_dict(), place / "class.pt")
    certify.save(network, place / "own.pt", data=str(place / "own.npz"), sigma=0.5)
    yield place
    sys.path.remove(str(place))
    del sys.modules["cli_own_net"]


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def ok(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def refused(done, error, word):
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(error), done.stderr
    assert word in done.stderr, done.stderr


def test_a_saved_network_goes_the_whole_way(cli, folder):
    refused(cli("radius", "-m", "own.pt"), "UntrustedFile", "--arch cli_own_net:Net")
    named = ("--arch", "cli_own_net:Net")
    table = cli("radius", "-m", "own.pt", *named, "--n-max", 200, "--limit", 3, "--out", "runs/whole")
    assert table.exit_code == 0, table.stderr
    assert "next: certify attack runs/whole --arch cli_own_net:Net" in table.stdout
    found = ok(cli("radius", "-m", "own.pt", *named, *FAST, "--out", "runs/whole"))
    assert found["settings"]["sigma"] == 0.5, "the default is that of the training"
    assert found["settings"]["grid"] == 2.0**-8
    refused(cli("attack", "runs/whole", "--limit", 1), "UntrustedFile", "--arch cli_own_net:Net")
    ok(cli("attack", "runs/whole", *named, "--limit", 1, "--json"))
    for words in (("--level", 3), ("--model", "own.pt")):  # equal weights alone are not the same function
        kept_out = cli("verify", "runs/whole", *words)
        assert kept_out.exit_code == 3, kept_out.output
        assert "--arch cli_own_net:Net" in " ".join(kept_out.stdout.replace("│", " ").split())
    ok(cli("verify", "runs/whole", *named, "--level", 3, "--subset", 1, "--samples", 50, "--json"))
    ok(cli("verify", "runs/whole", "--model", "own.pt", *named, "--json"))


def test_points_of_a_file_that_was_trained_on_are_no_held_out_points(cli, folder):
    """A file is one split: a bound from its points is one only if another file was trained on."""
    with np.load("own.npz") as own:
        np.savez("other.npz", **{**own, "x": -own["x"]})
    tiny = ("--draws", 10, "--json")
    trained = cli("train", "--arch", "mlp", "--data", "own.npz", "--epochs", 1, "--out", "of_own.pt")
    assert trained.exit_code == 0, trained.stderr
    for data in ("own.npz", "other.npz"):
        ok(cli("radius", "-m", "of_own.pt", "--data", data, *FAST, "--out", f"runs/{data}"))

    def from_held_out_points(*args):
        found = ok(cli("bounds", *args, *tiny))
        held_out = [r["name"] for r in found["results"] if "Clopper-Pearson" in r["name"]]
        assert bool(held_out) == ("measured_gap" in found) != ("left_out" in found)
        return bool(held_out)

    assert not from_held_out_points("--model", "of_own.pt")
    assert not from_held_out_points("runs/own.npz")
    assert cli("report", "runs/own.npz").exit_code == 0
    assert "Left out: bounds from held-out points" in (folder / "runs/own.npz/report.html").read_text()
    assert from_held_out_points("runs/other.npz")
    assert from_held_out_points("runs/own.npz", "--data", "other.npz"), "the user's word"
    assert not from_held_out_points("runs/other.npz", "--data", "other.npz")


@pytest.mark.parametrize(
    ("file", "arch", "classes"),
    [("weights.pt", "net", None), ("class.pt", "Net", 3)],
    ids=["factory", "class"],
)
def test_a_state_dict_needs_its_factory_and_its_data(cli, file, arch, classes):
    named = ("--arch", f"cli_own_net:{arch}", "--data", "own.npz")
    given = () if classes else ("--arch-args", '{"num_classes": 3}')
    out = f"runs/{arch}"
    found = ok(cli("radius", "-m", file, *named, *given, "-s", 0.5, *FAST, "--out", out))
    assert found["settings"]["num_classes"] == 3
    assert found["settings"]["model"]["architecture"] == f"cli_own_net:{arch}"
    refused(cli("attack", out, "--limit", 1), "UntrustedFile", "the run's word")
    ok(cli("attack", out, "--arch", named[1], "--limit", 1, "--json"))
    ok(cli("verify", out, "--model", file, "--arch", named[1], "--json"))


def test_what_is_missing_is_said(cli):
    refused(cli("radius", "-m", "weights.pt", "-s", 0.5, "--data", "own.npz"), "UnreadableFile", "--arch")
    named = ("--arch", "cli_own_net:net", "--data", "own.npz")
    refused(cli("radius", "-m", "weights.pt", "-s", 0.5, *named), "ArchitectureMismatch", "num_classes")
    refused(
        cli("radius", "-m", "weights.pt", "-s", 0.5, "--arch", "cli_own_net:nowhere", "--data", "own.npz"),
        "ArchitectureMismatch",
        "nowhere",
    )
    refused(cli("radius", "-m", "class.pt", "--arch", "cli_own_net:Net", "--data", "own.npz"),
            "InvalidSetting", "--sigma")  # fmt: skip


def test_a_runs_word_for_a_factory_runs_no_code(cli, tmp_path, folder):
    """A run directory from a stranger must not name a function that is then called."""
    from certify_cli.reopen import architecture

    shapes = {"num_classes": 3, "input_shape": [2]}
    forged = {"model": {"architecture": "os:system", "arguments": {"command": "touch pwned"}}, **shapes}
    with pytest.raises(certify.errors.UntrustedFile, match="os:system"):
        architecture(folder / "weights.pt", forged)
    honest = {"model": {"architecture": "mlp", "arguments": {"width": 4}}, **shapes}
    assert architecture(folder / "weights.pt", honest) == {"arch": "mlp", "arguments": {"width": 4, **shapes}}


def test_training_a_network_of_ones_own_says_how_to_go_on(cli):
    done = cli(
        "train", "--arch", "cli_own_net:net", "--data", "own.npz", "--epochs", 1, "--out", "trained.pt"
    )
    assert done.exit_code == 0, done.stderr
    assert "next: certify radius --model trained.pt --arch cli_own_net:net --sigma 0.25" in done.stdout
    done = cli("train", "--arch", "cli_own_net:Net", "--data", "own.npz", "--epochs", 1, "--out", "class2.pt")
    assert done.exit_code == 0, done.stderr


def test_an_onnx_file_is_certified_and_attacked_by_its_scores(cli, folder):
    onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    from onnx import TensorProto, helper, numpy_helper

    state = torch.load("weights.pt", weights_only=True)
    nodes = [
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["h"], transB=1),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "2.weight", "2.bias"], ["logits"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 2), ("logits", 3))
    ]
    weights = [numpy_helper.from_array(v.numpy(), k) for k, v in state.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "net.onnx")
    common = ("--data", "own.npz", "-s", 0.5)
    found = ok(cli("radius", "-m", "net.onnx", *common, *FAST, "--out", "runs/onnx"))
    same = ok(cli("radius", "-m", "own.pt", "--arch", "cli_own_net:Net", *FAST, "--out", "runs/torch"))
    assert found["certified_accuracy"] == same["certified_accuracy"]
    assert found["settings"]["num_classes"] == 3
    ok(cli("verify", "runs/onnx", "--level", 3, "--subset", 1, "--samples", 50, "--json"))
    ok(cli("verify", "runs/onnx", "--model", "net.onnx", "--json"))
    refused(cli("attack", "runs/onnx", "--limit", 1), "InvalidModel", "onnx2torch")
    data = ("--data", "own.npz", "--limit", 2)
    refused(cli("attack", "-m", "net.onnx", *data, "--eps", 0.1), "InvalidModel", "black-box")
    ok(cli("attack", "-m", "net.onnx", *data, "--eps", 0.1, "--preset", "black-box", "--json"))
    ok(cli("attack", "runs/onnx", "--base", "--eps", 0.1, "--preset", "black-box", "--limit", 1, "--json"))
    refused(cli("radius", "-m", "net.onnx", "-s", 0.5, "--out", "runs/no"), "InvalidSetting", "--data")


@pytest.mark.parametrize(("typed", "answer"), [("certify ra", "radius"), ("certify radius --sig", "--sigma")])
def test_the_shell_completes_verbs_and_options(typed, answer):
    asked = {"_CERTIFY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    code = "import sys; sys.argv = ['certify']; from certify_cli.main import app; app(prog_name='certify')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True
    )
    assert done.stdout.split() == [answer], done.stderr


def test_the_completion_script_is_shown(cli, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = cli("--show-completion", "bash")
    assert done.exit_code == 0
    assert "complete" in done.stdout
