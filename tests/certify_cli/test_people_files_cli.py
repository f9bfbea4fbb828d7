"""The command says what it took from a file, keeps it with the run, and finds it again."""

import json

import numpy as np
import pytest
import torch

from tests.certify.people_files import BEHIND_A_NORM, NET, legacy, network, state

FAST = ("--n-max", 200, "--limit", 3, "--json", "-s", 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("people")
    images = np.random.default_rng(0).integers(0, 256, size=(6, 3, 8, 8), dtype=np.uint8)
    np.savez(place / "own.npz", x=images, y=np.arange(6) % 10, num_classes=10)
    legacy(lambda: {"state_dict": state("module."), "best_prec1": 91.7})(place / "net.th")
    torch.save({"model": state(), "ema": state(seed=1), "epoch": 3}, place / "both.pt")
    torch.save({"student": state(), "teacher": state(seed=1)}, place / "two.pt")
    torch.save(state(seed=1), place / "bare.pt")
    return place


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def ok(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


NAMED = ("--arch", NET, "--data", "own.npz")


def test_what_was_taken_is_printed_kept_and_found_again(cli):
    done = cli("radius", "-m", "net.th", *NAMED, *FAST, "--out", "runs/th")
    found = ok(done)
    assert "loaded: entry 'state_dict', prefix 'module.' removed" in done.stderr
    assert "ignored: best_prec1 (91.7)" in done.stderr
    loaded = found["settings"]["model"]["loaded"]
    assert (loaded["entry"], loaded["removed"], loaded["ignored"]) == (
        "state_dict", "module.", ["best_prec1 (91.7)"],
    )  # fmt: skip
    ok(cli("verify", "runs/th", "--arch", NET, "--level", 3, "--subset", 1, "--samples", 50, "--json"))
    ok(cli("attack", "runs/th", "--arch", NET, "--limit", 1, "--json"))


def test_an_entry_is_chosen_and_stays_chosen(cli):
    done = cli("radius", "-m", "both.pt", *NAMED, *FAST, "--entry", "ema", "--out", "runs/ema")
    ema = ok(done)["settings"]["model"]
    raw = cli("radius", "-m", "both.pt", *NAMED, *FAST, "--out", "runs/raw")
    assert "other weights in the file fit, too: --entry ema" in raw.stderr
    assert ok(raw)["settings"]["model"]["digest"] != ema["digest"]
    ok(cli("verify", "runs/ema", "--arch", NET, "--level", 3, "--subset", 1, "--samples", 50, "--json"))
    ok(cli("verify", "runs/ema", "--arch", NET, "--model", "bare.pt", "--json"))
    refused = cli("radius", "-m", "two.pt", *NAMED, *FAST, "--out", "runs/two")
    assert refused.exit_code == 2
    assert "--entry student" in refused.stderr
    # The same weights, packed otherwise: the same run goes on.
    again = cli("radius", "-m", "bare.pt", *NAMED, *FAST, "--out", "runs/ema")
    assert ok(again)["fresh_inputs"] == 0


def test_normalisation_from_the_command_is_part_of_the_model(cli, folder):
    torch.save({"inner." + k: v for k, v in network().state_dict().items()}, folder / "behind.pt")
    inside = ok(
        cli("radius", "-m", "behind.pt", "--arch", BEHIND_A_NORM, *NAMED[2:], *FAST, "--out", "runs/in")
    )
    options = ("--mean", "0.5,0.5,0.5", "--std", "0.25")
    front = ok(cli("radius", "-m", "net.th", *NAMED, *FAST, *options, "--out", "runs/front"))
    plain = ok(cli("radius", "-m", "net.th", *NAMED, *FAST, "--out", "runs/plain"))
    assert front["certified_accuracy"] == inside["certified_accuracy"]
    assert front["settings"]["model"]["digest"] != plain["settings"]["model"]["digest"]
    assert front["settings"]["model"]["normalise"] == {"mean": [0.5, 0.5, 0.5], "std": [0.25]}
    common = ("--arch", NET, "--level", 3, "--subset", 1, "--samples", 50, "--json")
    ok(cli("verify", "runs/front", *common))
    ok(cli("attack", "runs/front", "--arch", NET, "--limit", 1, "--json"))
    other = cli("radius", "-m", "net.th", *NAMED, *FAST, "--mean", 0.4, "--out", "runs/front")
    assert other.exit_code == 2
    assert "other settings" in other.stderr


def test_an_onnx_file_takes_normalisation_per_feature_from_the_command(cli, folder):
    onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w"], ["logits"], transB=1)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 3), ("logits", 2))
    ]
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "t.onnx"
    )
    x = np.round(np.random.default_rng(1).uniform(-4, 4, (6, 3)) * 64) / 64
    np.savez(folder / "table.npz", x=x.astype(np.float32), y=np.arange(6) % 2, low=-4, high=4, grid=2**-6)
    given = ("--data", "table.npz", *FAST, "--mean", "1,0.5,-1", "--std", "2,1,0.5", "--out", "runs/onnx")
    found = ok(cli("radius", "-m", "t.onnx", *given))
    import certify

    net = certify.wrap(certify.load("t.onnx"), mean=(1, 0.5, -1), std=(2, 1, 0.5))
    data = certify.data.load("table.npz", limit=3)
    run = certify.Smoothed(net, 0.25, data=data).certify(data.x, data.y, n_max=200, seed=0)
    assert [r.label for r in run] == [r.label for r in certify.store.read_run("runs/onnx").run]
    assert found["settings"]["model"]["normalise"]["std"] == [2.0, 1.0, 0.5]
    ok(cli("verify", "runs/onnx", "--level", 3, "--subset", 1, "--samples", 50, "--json"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--std", "0"), "not positive"),
        (("--mean", "a,b"), "--mean 0.485,0.456,0.406"),
        (("--mean", ""), "finite numbers"),
        (("--mean", "0.5,0.5"), "one per channel"),
        (("--entry", "nothing"), "no entry 'nothing'"),
    ],
)
def test_options_that_cannot_be_are_refused(cli, options, words):
    done = cli("radius", "-m", "net.th", *NAMED, *FAST, *options, "--out", "runs/no")
    assert done.exit_code == 2
    assert words in done.stderr


def test_options_of_a_file_mean_nothing_to_a_run(cli):
    cli("radius", "-m", "net.th", *NAMED, *FAST, "--out", "runs/th")
    for verb in ("attack", "bounds"):
        for option in ("--entry", "--mean", "--std"):
            done = cli(verb, "runs/th", "--arch", NET, option, "1")
            assert done.exit_code == 2
            assert f"{option} has no meaning with a run directory" in done.stderr
