"""A denoiser on the command line: trained, matched, chosen, certified, attacked, verified."""

import json

import pytest
import torch
from typer.testing import CliRunner

import certify
from certify.checkpoints import model_digest, read
from certify.data import load
from certify_cli.main import app


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A clean network for digits, and a DnCNN trained for it by the command."""
    from pdenets.training import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    train(load("digits", split="train"), arch="cnn", out=folder / "clean.pt", sigma=0.0, epochs=6)
    run("train", "--denoiser", "dncnn", "--for", folder / "clean.pt", "--sigma", 0.25, "--epochs", 2,
        "--out", folder / "den.pt", "--denoiser-args", '{"depth": 3, "width": 8}')  # fmt: skip
    return folder


def run(*words, exit_code=0):
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == exit_code, found.output + str(found.exception)
    return found.output


def certified(models, out, *words):
    return json.loads(run("radius", "--model", models / "clean.pt", "--mode", "fixed", "--n0", 16, "--n", 128,
                          "--seed", 0, "--out", out, "--json", *words))  # fmt: skip


def test_the_checkpoint_says_what_it_was_trained_for(models):
    header, _ = read(models / "den.pt")
    clean = certify.load(models / "clean.pt")
    assert header.task == "denoising"
    assert header.dataset == {"name": "digits"}
    assert header.arguments == {"depth": 3, "width": 8, "sigmas": [0.25]}
    assert header.training["for"] == model_digest(clean)
    assert header.training["loss"] == "mse-stability"
    assert [stage[0] for stage in header.training["stages"]] == ["mse", "stability"]
    assert 0 <= header.training["final"]["agreement"]["0.25"] <= 1
    assert not (models / "den.pt.unfinished").exists()


def test_one_command_certifies_behind_it_and_the_level_needs_no_word(models, tmp_path):
    found = certified(models, tmp_path / "run", "--denoiser", models / "den.pt", "--limit", 4)
    assert found["settings"]["sigma"] == 0.25
    model = found["settings"]["model"]
    assert model["denoiser"]["architecture"] == "dncnn"
    assert model["denoiser"]["sigma"] == 0.25
    assert model["denoiser_path"] == str(models / "den.pt")
    assert model["classifier"]["digest"] == model_digest(certify.load(models / "clean.pt"))
    assert "this classifier behind this denoiser" in found["guarantee"]
    both = certify.denoised(certify.load(models / "clean.pt"), certify.load(models / "den.pt"))
    data = load("digits", limit=4)
    again = certify.Smoothed(both, 0.25, data=data).certify(
        data.x, data.y, ids=data.ids.tolist(), mode="fixed", n0=16, n=128
    )
    stored = certify.store.read_run(tmp_path / "run").run
    assert [r.counts for r in again] == [r.counts for r in stored]


@pytest.mark.parametrize("words", [
    ("--denoiser", "den.pt"), ("--denoiser", "heat", "--sigma", 0.25),
    ("--denoiser", "identity", "--sigma", 0.25),
    ("--denoiser", "tv", "--sigma", 0.25, "--denoiser-args", '{"strength": 0.5, "steps": 3}'),
], ids=["checkpoint", "heat", "identity", "tv"])  # fmt: skip
def test_a_run_is_verified_with_fresh_noise_and_attacked_behind_its_denoiser(models, tmp_path, words):
    words = [str(models / word) if word == "den.pt" else word for word in words]
    certified(models, tmp_path / "run", *words, "--limit", 3)
    out = run("verify", tmp_path / "run", "--level", 3, "--subset", 2, "--samples", 64, "--seed", 1)
    assert "the run holds" in out
    assert "the run holds" in run("verify", tmp_path / "run", "--model", models / "clean.pt")
    found = json.loads(run("attack", tmp_path / "run", "--limit", 2, "--json"))
    assert found["contradictions"] == []


def test_verify_notices_another_denoiser_or_classifier(models, tmp_path):
    den, place = models / "den.pt", tmp_path / "run"
    certified(models, place, "--denoiser", den, "--limit", 2)
    run("train", "--denoiser", "dncnn", "--data", "digits", "--epochs", 1, "--limit", 64,
        "--out", tmp_path / "o.pt", "--denoiser-args", '{"depth": 3, "width": 8}')  # fmt: skip
    clean = ("--model", models / "clean.pt")
    assert "the run holds" in run("verify", place, *clean, "--denoiser", den)
    assert "FAILS" in run("verify", place, *clean, "--denoiser", tmp_path / "o.pt", exit_code=1)
    run("train", "--arch", "cnn", "--epochs", 1, "--limit", 64, "--sigma", 0, "--out", tmp_path / "c.pt")
    assert "FAILS" in run("verify", place, "--model", tmp_path / "c.pt", exit_code=1)


def test_a_run_resumes_behind_the_same_denoiser_only(models, tmp_path):
    words = ("--denoiser", "heat", "--sigma", 0.25)
    certified(models, tmp_path / "run", *words, "--limit", 2)
    assert certified(models, tmp_path / "run", *words, "--limit", 3)["fresh_inputs"] == 1
    for other in ((), ("--denoiser", "tv"), ("--denoiser", "heat", "--denoiser-args", '{"time": 3.0}')):
        run("radius", "--model", models / "clean.pt", "--mode", "fixed", "--n0", 16, "--n", 128,
            "--sigma", 0.25, "--out", tmp_path / "run", "--limit", 3, *other, exit_code=2)  # fmt: skip


def test_pilot_inputs_choose_and_are_not_certified(models, tmp_path):
    words = (
        "--denoiser",
        f"identity,heat,{models / 'den.pt'}",
        "--pilot",
        0.3,
        "--sigma",
        0.25,
        "--limit",
        20,
    )
    found = certified(models, tmp_path / "run", *words)
    choice, scores = found["settings"]["denoiser_choice"], found["settings"]["environment"]["denoiser_scores"]
    assert choice["chosen"] == max(scores, key=scores.get)
    assert set(scores) == set(choice["candidates"])
    pilot = found["settings"]["environment"]["pilot_inputs"]
    assert found["inputs"] == 20 - pilot
    assert pilot >= 1
    # The same inputs are left out whatever part of the data a session looks at.
    whole = {r.index for r in certify.store.read_run(tmp_path / "run").run}
    for shard in ("1/2", "2/2"):
        certified(models, tmp_path / shard.replace("/", "of"), *words, "--shard", shard)
    parts = [{r.index for r in certify.store.read_run(tmp_path / place).run} for place in ("1of2", "2of2")]
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]
    run("merge", tmp_path / "1of2", tmp_path / "2of2", "--out", tmp_path / "merged")
    merged = certify.store.read_run(tmp_path / "merged").run
    assert [r.counts for r in merged] == [r.counts for r in certify.store.read_run(tmp_path / "run").run]


def test_no_pilot_input_is_ever_certified_whatever_the_seed_of_a_session(models, tmp_path):
    words = ("radius", "--model", models / "clean.pt", "--mode", "fixed", "--n0", 16, "--n", 128,
             "--denoiser", "identity,heat", "--pilot", 0.3, "--sigma", 0.25)  # fmt: skip
    run(*words, "--limit", 12, "--seed", 5, "--out", tmp_path / "run")
    run(*words, "--limit", 20, "--out", tmp_path / "run")  # goes on with the run's own seed
    run(*words, "--limit", 20, "--out", tmp_path / "drawn")
    seen = [{r.index for r in certify.store.read_run(tmp_path / p).run} for p in ("run", "drawn")]
    assert seen[0] == seen[1]
    assert len(seen[0]) < 20


def test_classical_denoisers_are_matched_by_train_and_used_as_checkpoints(models, tmp_path):
    found = json.loads(run("train", "--denoiser", "perona-malik", "--data", "digits", "--sigma", 0.25,
                           "--json", "--out", tmp_path / "pm.safetensors"))  # fmt: skip
    assert found["psnr"] == max(psnr for _, psnr in found["tried"])
    header, tensors = read(tmp_path / "pm.safetensors")
    assert header.arguments == found["arguments"]
    assert tensors == {}
    one = certified(models, tmp_path / "a", "--denoiser", tmp_path / "pm.safetensors", "--limit", 2)
    assert one["settings"]["sigma"] == 0.25
    assert one["settings"]["model"]["denoiser"]["arguments"] == found["arguments"]
    # By name, the same numbers are found on the training split.
    two = certified(models, tmp_path / "b", "--denoiser", "perona-malik", "--sigma", 0.25, "--limit", 2)
    assert two["settings"]["model"]["digest"] == one["settings"]["model"]["digest"]


def test_query_access_asks_for_labels_only(models, tmp_path):
    run("train", "--denoiser", "unet", "--for", models / "clean.pt", "--query-access",
        "--sigmas", "0.25,0.5", "--epochs", 2, "--limit", 200,
        "--denoiser-args", '{"width": 8}', "--out", tmp_path / "q.pt")  # fmt: skip
    record = read(tmp_path / "q.pt")[0].training
    assert record["access"] == "labels"
    assert record["queries"] == 200
    assert record["surrogate"]["architecture"] == "cnn"
    assert record["for"] == model_digest(certify.load(models / "clean.pt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.pt"]
    for told in ({}, {"sigma": 0.5}):
        words = ("--denoiser-args", json.dumps(told)) if told else ()
        found = certified(models, tmp_path / f"run{len(told)}", "--denoiser", tmp_path / "q.pt",
                          "--sigma", 0.25, "--limit", 1, *words)  # fmt: skip
        assert found["settings"]["model"]["denoiser"]["sigma"] == told.get("sigma", 0.25)


def test_plan_and_attack_take_a_denoiser(models):
    words = ("--model", models / "clean.pt", "--denoiser", models / "den.pt")
    found = json.loads(run("plan", *words, "--pilot", 2, "--pilot-samples", 20, "--json"))
    assert found["samples_per_second"] > 0
    found = json.loads(run("attack", *words, "--eps", 0.3, "--preset", "quick", "--limit", 3, "--json"))
    assert found["inputs"] == 3


@pytest.mark.parametrize(("words", "says"), [
    (("radius", "--denoiser", "heat"), "noise level is missing"),
    (("radius", "--denoiser", "heat,tv", "--sigma", "0.25"), "where one is used"),
    (("radius", "--denoiser", "heat", "--sigma", "0.25", "--pilot", "0.1"), "no meaning without a choice"),
    (("radius", "--pilot", "0.1", "--sigma", "0.25"), "no meaning without a choice"),
    (("radius", "--denoiser", "heat,tv", "--sigma", "0.25", "--pilot", "1.5"), "no share"),
    (("radius", "--denoiser", "heat,tv", "--sigma", "0.25", "--pilot", "0.1", "--limit", "1"), "of 1 inputs"),
    (("radius", "--denoiser", "heat,heat", "--sigma", "0.25", "--pilot", "0.1"), "one thing twice"),
    (("radius", "--denoiser", "heat,tv", "--denoiser-args", "{}", "--pilot", "0.1"), "cannot be shared"),
    (("radius", "--denoiser-args", "{}", "--sigma", "0.25"), "no meaning without a denoiser"),
    (("radius", "--denoiser", "dncnn", "--sigma", "0.25"), "has to be trained first"),
    (("radius", "--denoiser", "heatt", "--sigma", "0.25"), "did you mean 'heat'"),
    (("radius", "--denoiser", "CLEAN", "--sigma", "0.25"), "is no denoiser"),
    (("radius", "--denoiser", "missing.pt", "--sigma", "0.25"), "missing.pt"),
    (("radius", "--denoiser", "DEN", "--sigma", "0.5"), "knows nothing of sigma = 0.5"),
    (("radius", "--denoiser", "DEN", "--denoiser-args", '{"time": 1}'), "has no meaning for"),
    (("radius", "--denoiser", "DEN", "--denoiser-args", '{"sigma": "x"}'), "is no number"),
    (("radius", "--denoiser", "heat", "--split", "train", "--sigma", "0.25"), "cannot be matched here"),
    (("radius", "--denoiser", "tv", "--denoiser-args", '{"strength": -1}', "--sigma", "0.25"), "no total"),
    (("plan", "--denoiser", "heat,tv", "--sigma", "0.25"), "where one is used"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(models, words, says):
    places = {"CLEAN": models / "clean.pt", "DEN": models / "den.pt"}
    verb, *rest = [places.get(word, word) for word in words]
    found = CliRunner().invoke(app, [str(w) for w in (verb, "--model", models / "clean.pt", *rest)])
    assert found.exit_code == 2, found.output
    assert says in found.stderr


@pytest.mark.parametrize(("words", "says"), [
    (("--denoiser", "heat", "--epochs", "2"), "no meaning for heat"),
    (("--denoiser", "heat", "--sigmas", "0.1,0.2"), "no meaning for heat"),
    (("--denoiser", "dncnn", "--nesterov"), "no meaning for a denoiser"),
    (("--denoiser", "dncnn", "--loss", "stability"), "needs a classifier"),
    (("--denoiser", "dncnn", "--loss", "l1"), "is unknown"),
    (("--denoiser", "dncnn", "--query-access"), "no meaning without a classifier"),
    (("--denoiser", "dncnn", "--for", "CLEAN", "--surrogate", "cnn"), "no meaning without --query-access"),
    (("--denoiser", "dncnn", "--for", "CLEAN", "--data", "moons"), "does not fit"),
    (("--denoiser", "dncnn", "--data", "moons"), "no form for inputs of shape"),
    (("--denoiser", "dncnn", "--sigmas", "a,b"), "no list of noise levels"),
    (("--denoiser", "dncnn", "--sigma", "0"), "cannot be used"),
    (("--denoiser", "dncnn", "--for", "CLEAN", "--epochs", "1"), "no two stages"),
    (("--denoiser", "dncnn", "--start", "CLEAN"), "are not those of this dncnn"),
    (("--denoiser", "nothing"), "there is no denoiser"),
    (("--loss", "mse"), "no meaning without --denoiser"),
    (("--for", "CLEAN"), "no meaning without --denoiser"),
])  # fmt: skip
def test_training_that_cannot_be_meant_is_refused_and_writes_nothing(models, tmp_path, words, says):
    words = [str(models / "clean.pt") if word == "CLEAN" else word for word in words]
    found = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "x.pt")])
    assert found.exit_code == 2, found.output
    assert says in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_denoiser_is_not_certified_as_a_model(models):
    found = CliRunner().invoke(app, ["radius", "--model", str(models / "den.pt"), "--sigma", "0.25"])
    assert found.exit_code == 2
    assert "is a denoiser" in found.stderr or "for denoising" in found.stderr


def test_stability_needs_gradients_and_says_so_for_onnx(models, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "net.onnx"
    torch.onnx.export(certify.load(models / "clean.pt"), (torch.zeros(1, 1, 8, 8),), path,
                      dynamic_shapes=({0: "batch"},), external_data=False, dynamo=True)  # fmt: skip
    words = ("train", "--denoiser", "dncnn", "--data", "digits", "--for", path, "--limit", 100, "--epochs", 2,
             "--denoiser-args", '{"depth": 3, "width": 4}', "--out", tmp_path / "d.pt")  # fmt: skip
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == 2
    assert "gives no gradients" in found.stderr
    assert "--query-access" in found.stderr
    run(*words, "--query-access")
    found = json.loads(run("radius", "--model", path, "--denoiser", tmp_path / "d.pt", "--data", "digits",
                           "--limit", 1, "--mode", "fixed", "--n0", 8, "--n", 32, "--json",
                           "--out", tmp_path / "run"))  # fmt: skip
    assert found["inputs"] == 1
    assert "the run holds" in run("verify", tmp_path / "run", "--level", 3, "--subset", 1, "--samples", 16)


def test_bounds_behind_a_denoiser_leave_out_what_no_theorem_covers(models, tmp_path):
    certified(models, tmp_path / "run", "--denoiser", models / "den.pt", "--limit", 2)
    found = json.loads(run("bounds", tmp_path / "run", "--points", 40, "--json"))
    names = {row["name"] for row in found["results"]}
    assert "test set, Clopper-Pearson" in names
    assert not any("PAC-Bayes" in name or "spectral" in name.lower() for name in names)
    assert "the denoiser in front" in json.dumps(found["left_out"])
    refused = CliRunner().invoke(app, ["bounds", str(tmp_path / "run"), "--points", "40", "--pac-bayes"])
    assert refused.exit_code == 2
    assert "has no form for a classifier behind a denoiser" in refused.stderr
