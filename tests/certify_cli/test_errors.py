"""Every mistake a user can make in these verbs: a named error, its cause, a remedy, exit 2, no run left."""

import numpy as np
import pytest
import torch

RADIUS = ("radius", "--model", "{ckpt}", "--sigma", "0.25", "--limit", "2", "--out", "{out}")
TRAIN = ("train", "--data", "digits", "--out", "{tmp}/x.pt")

MISTAKES = [
    # (what is typed, the error's name, a word of the remedy or cause)
    ((*RADIUS, "--alpha", "0"), "InvalidSetting", "alpha"),
    ((*RADIUS, "--alpha", "0.7"), "InvalidSetting", "alpha"),
    ((*RADIUS, "--alpha", "nan"), "InvalidSetting", "alpha"),
    ((*RADIUS[:4], "0", *RADIUS[5:]), "InvalidSetting", "sigma"),
    ((*RADIUS[:4], "-1", *RADIUS[5:]), "InvalidSetting", "sigma"),
    ((*RADIUS[:4], "nan", *RADIUS[5:]), "InvalidSetting", "sigma"),
    ((*RADIUS[:4], "inf", *RADIUS[5:]), "InvalidSetting", "sigma"),
    ((*RADIUS, "--mode", "best"), "InvalidSetting", "radius, grid, decide, fixed"),
    ((*RADIUS, "--mode", "fixed", "--n", "0"), "InvalidSetting", "n"),
    ((*RADIUS, "--mode", "fixed", "--n0", "0"), "InvalidSetting", "n0"),
    ((*RADIUS, "--mode", "decide"), "InvalidSetting", "--radius"),
    ((*RADIUS, "--mode", "decide", "--radius", "-1"), "InvalidSetting", "radius"),
    ((*RADIUS, "--mode", "grid", "--step", "0"), "InvalidSetting", "step"),
    ((*RADIUS, "--n", "100"), "InvalidSetting", "--n"),
    ((*RADIUS, "--mode", "fixed", "--slack", "0.1"), "InvalidSetting", "--slack"),
    ((*RADIUS, "--n-max", "0"), "InvalidSetting", "n_max"),
    ((*RADIUS, "--slack", "2"), "InvalidSetting", "slack"),
    ((*RADIUS, "--noise", "pink"), "InvalidSetting", "lattice"),
    ((*RADIUS, "--grid", "0"), "InvalidSetting", "grid"),
    ((*RADIUS, "--device", "tpu"), "InvalidSetting", "--device auto"),
    ((*RADIUS, "--device", "cuda:99"), "InvalidSetting", "cpu"),
    ((*RADIUS, "--dtype", "int8"), "InvalidSetting", "fp32"),
    ((*RADIUS, "--batch-size", "0"), "InvalidSetting", "batch"),
    ((*RADIUS, "--data", "imagenette"), "DataNotFound", "imagenette"),
    ((*RADIUS, "--data", "moons"), "InvalidInput", "shape|takes"),
    ((*RADIUS, "--split", "validation"), "InvalidSetting", "split"),
    ((*RADIUS, "--skip", "100000"), "InvalidSetting", "skip"),
    ((*RADIUS, "--data", "{tmp}/none.npz"), "DataNotFound|UnreadableFile", "none.npz"),
    ((*RADIUS, "--data", "{offgrid}"), "InvalidInput", "grid"),
    ((*RADIUS, "--data", "{tripled}"), "InvalidInput", "range|bounds|outside"),
    ((*RADIUS, "--data", "{holes}"), "InvalidInput", "NaN|finite"),
    ((*RADIUS, "--arch-args", "width=3"), "InvalidSetting", "JSON"),
    (("radius", "--model", "{tmp}/nowhere.pt", "--sigma", "0.25"), "UnreadableFile", "nowhere.pt"),
    (("radius", "--model", "{garbage}", "--sigma", "0.25"), "UnreadableFile|UntrustedFile", "garbage"),
    (("radius", "--model", "{bare}", "--sigma", "0.25"), "ArchitectureMismatch|UnreadableFile", "arch"),
    (("radius", "-m", "{bare}", "-s", "0.25", "--arch", "no-net"), "ArchitectureMismatch", "no-net"),
    ((*RADIUS, "--norm", "0.5"), "InvalidSetting", "norm"),
    ((*RADIUS, "--norm", "two"), "InvalidSetting", "norm"),
    ((*RADIUS, "--noise", "uniform"), "InvalidSetting", "--norm 1"),
    ((*RADIUS, "--scores", "mean"), "InvalidSetting", "scores"),
    ((*RADIUS, "--scores", "distribution"), "InvalidSetting", "mode"),
    ((*RADIUS, "--shard", "3/2"), "InvalidSetting", "shard"),
    ((*RADIUS, "--shard", "half"), "InvalidSetting", "shard"),
    ((*RADIUS, "--engine", "spark"), "InvalidSetting", "ray"),
    ((*RADIUS, "--workers", "2"), "InvalidSetting", "--engine ray"),
    ((*RADIUS, "--require", "great"), "InvalidSetting", "certified@"),
    ((*RADIUS, "--noise", "internal"), "InvalidSetting", "--sigma"),
    (("radius", "-m", "{ckpt}", "--noise", "internal", "--out", "{out}"), "InvalidModel", "noisy-resnet"),
    (("plan", "-m", "{ckpt}", "-s", "0"), "InvalidSetting", "sigma"),
    (("verify", "{tmp}/norun"), "UnreadableFile", "run"),
    (("merge", "{tmp}/norun", "--out", "{tmp}/whole"), "UnreadableFile", "run"),
    (("import", "{garbage}", "--sigma", "0.25", "--out", "{tmp}/imported"), "UnreadableFile", "idx"),
    (("import", "{tmp}/no.tsv", "--sigma", "0.25", "--out", "{tmp}/imported"), "UnreadableFile", "no.tsv"),
    (("attack",), "InvalidSetting", "--model"),
    (("attack", "{tmp}/norun"), "UnreadableFile", "run directory"),
    (("attack", "{ckpt}"), "UnreadableFile", "a checkpoint is named with --model"),
    ((*RADIUS, "--data", "cifar10", "--data-root", "{tmp}"), "DataNotFound", "train --data cifar10"),
    (("attack", "{run}", "--norm", "7"), "InvalidSetting", "norm"),
    (("attack", "{run}", "--eps", "-1"), "InvalidSetting", "eps"),
    (("attack", "{run}", "--preset", "deadly"), "InvalidSetting", "preset"),
    (("attack",), "InvalidSetting", "neither"),
    (("bounds",), "InvalidSetting", "--data"),
    (("compare", "a", "b"), "InvalidSetting", "certify report a b --out"),
    (("bounds", "--data", "digits", "--weight-radius", "-1"), "InvalidSetting", "radius"),
    (("compare", "{tmp}/norun"), "UnreadableFile", "run directory"),
    (("report", "{tmp}/norun"), "UnreadableFile", "run directory"),
    (("export", "{tmp}/norun"), "UnreadableFile", "run directory"),
    (("export", "{run}", "--to", "xls"), "InvalidSetting", "csv"),
    (("train", "--data", "digits"), "InvalidSetting", "--out"),
    ((*TRAIN, "--arch", "transformer"), "ArchitectureMismatch", "transformer"),
    (("train", "--data", "nothing", "--out", "{tmp}/x.pt"), "DataNotFound", "nothing"),
    ((*TRAIN, "--sigma", "-1"), "InvalidSetting", "sigma"),
    ((*TRAIN, "--lr", "-1"), "InvalidSetting", "lr"),
    ((*TRAIN, "--regulariser", "magic"), "InvalidSetting", "magic"),
    ((*TRAIN, "--options", "[1]"), "InvalidSetting", "JSON"),
    (("train", "--data", "digits", "--out", "{tmp}/x.doc", "--epochs", "1"), "InvalidSetting", ".pt"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory, checkpoint, run):
    tmp = tmp_path_factory.mktemp("mistakes")
    (tmp / "garbage.pt").write_bytes(b"not a model at all" * 10)
    torch.save({"weight": torch.zeros(3)}, tmp / "bare.pt")
    x, y = np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64)
    np.savez(tmp / "offgrid.npz", x=x + 0.0123, y=y)
    np.savez(tmp / "tripled.npz", x=x + 3, y=y)
    np.savez(tmp / "holes.npz", x=x + np.nan, y=y)
    other = {f: tmp / f"{f}.npz" for f in ("offgrid", "tripled", "holes")}
    files = {"garbage": tmp / "garbage.pt", "bare": tmp / "bare.pt", "other": checkpoint}
    return {"tmp": tmp, "ckpt": checkpoint, "run": run, **files, **other}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "name", "word"), MISTAKES, ids=lambda v: " ".join(v)[:90] if isinstance(v, tuple) else None
)
def test_mistakes_are_named(cli, places, tmp_path, typed, name, word):
    out = tmp_path / "out"
    done = cli(*(str(a).format(out=out, **places) for a in typed))
    assert done.exit_code == 2, done.output
    first = done.stderr.splitlines()[0]
    assert first.split(":")[0] in name.split("|"), done.stderr
    assert "\n  why: " in done.stderr
    assert "\n  do:  " in done.stderr
    assert any(w in done.stderr for w in word.split("|")), done.stderr
    assert done.stdout == ""
    assert not out.exists(), "a refused run leaves nothing behind"
    assert not (places["tmp"] / "x.pt").exists()


def test_other_settings_are_refused_naming_first_what_was_typed(cli, checkpoint, run):
    asked = ("radius", "--model", checkpoint, "--limit", 6, "--n-max", 2000, "--out", run)
    done = cli(*asked, "--sigma", 0.5, "--alpha", 0.01)
    assert done.exit_code == 2
    assert done.stderr.startswith("RunConflict: ")
    why = done.stderr.split("why: ")[1].splitlines()[0]
    assert why.startswith(
        "sigma: 0.25 there, 0.5 now; alpha: 0.001 there, 0.01 now; and what follows from it ("
    )
    assert "diffusion_sigma" in why.split("follows")[1]
    assert "repeat the settings that are there: certify" in done.stderr
    other_mode = cli(*asked, "--sigma", 0.25, "--mode", "fixed", "--n", 100)
    assert 'why: mode: "radius" there, "fixed" now; and what follows' in other_mode.stderr
    only_slack = cli(*asked, "--sigma", 0.25, "--slack", 0.2)
    assert "why: slack: 0.05 there, 0.2 now\n" in only_slack.stderr


def test_another_model_cannot_pose_as_the_certified_one(cli, run, tmp_path, checkpoint):
    import certify
    from certify import checkpoints

    header, state = checkpoints.read(checkpoint)
    state = {k: v + 1e-3 for k, v in state.items()}
    network = checkpoints.build(header, state)
    checkpoints.save(tmp_path / "swapped.pt", network, header)
    from certify_cli.reopen import reopen

    with pytest.raises(certify.errors.EvidenceFails):
        reopen(run, model=tmp_path / "swapped.pt")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--shard", "١/٢"), ("--shard", "1/²"), ("--shard", "１/２"), ("--shard", "+1/2"),
        ("--shard", "1/2\n"), ("--limit", "1_0"), ("--limit", "٣"), ("--limit", " 2 "), ("--skip", "0_1"),
        ("--seed", "1_000"), ("--sigma", "0.2_5"), ("--sigma", "٠.٥"), ("--n-max", "５00"),
        ("--alpha", "0.00_1"),
    ],
)  # fmt: skip
def test_numbers_are_typed_in_the_digits_0_to_9(cli, checkpoint, tmp_path, option, value):
    done = cli("radius", "--model", checkpoint, option, value, "--out", tmp_path / "r")
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "r").exists()
    assert "digits" in done.output or "valid" in done.output
