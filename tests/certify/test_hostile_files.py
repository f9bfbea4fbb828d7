"""Files made to run code, to exhaust memory, or damaged: each is refused by name, and nothing runs."""

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify import data
from certify.checkpoints import Header, load, read, save, tensor_digest
from certify.contract import check_model
from certify.errors import CertifyError, InvalidModel, UnreadableFile, UntrustedFile
from certify.files.safe import refuse_unsafe_environment
from tests.certify import hostile
from tests.certify.toy_networks import linear

REPOSITORY = Path(__file__).resolve().parents[2]
#: Small enough to tell a refusal from an attempt: the hostile files ask for 128 MB and up.
ALLOWED_GROWTH = 90 * 2**20
#: Files that hold no code and no lie about sizes, only nonsense; everything else is refused as untrusted.
MERELY_UNREADABLE = {
    "bare_pickle_named.safetensors", "torchscript_disguised.safetensors", "missing_storage.pt",
    "memo_bomb.pt", "deep_value.pt", "deep_nesting.pt", "list_of_itself.pt", "old_storage_is_missing.th",
    "header_length_is_a_lie.safetensors", "old_count_is_a_lie.th", "old_other_count.th",
    "code_in_the_header.npy", "header_without_end.npy", "quotes_without_end.csv", "data_nested.pt",
    "old_negative_count.th", "old_other_byte_order.th", "old_other_version.th",
    "deep_header.safetensors",
    "offsets_beyond_the_file.safetensors", "unknown_type.safetensors", "code_in_the_header.npz",
    "dimensions_are_a_lie.gz", "more_than_declared.gz",
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Every hostile file, opened in one process that is measured; {name: report} and the folder."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.make(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.certify.hostile", str(folder)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=280,
    )  # fmt: skip
    reports = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"stopped after {list(reports)[-1:]}: {done.stderr[-2000:]}"
    return reports, folder


@pytest.mark.parametrize("name", hostile.MAKERS)
def test_hostile_file_is_refused_without_running_or_allocating(opened, name):
    reports, folder = opened
    report = reports[name]
    if name in ("giant_by_arguments.pt", "thousand_networks.pt"):
        assert report["error"] == "ArchitectureMismatch"
    else:
        assert report["error"] == ("UnreadableFile" if name in MERELY_UNREADABLE else "UntrustedFile"), report
    assert report["grown"] < ALLOWED_GROWTH
    assert "why:" in report["text"]
    assert "do:" in report["text"]
    assert not (folder / hostile.MARKER).exists(), "code from a file was run"


def test_the_payloads_would_run_if_unpickled(tmp_path):
    """The marker proves something only if an unguarded reader does create it."""
    import pickle

    hostile.MAKERS["bare_pickle.pt"](tmp_path / "bare_pickle.pt")
    pickle.loads((tmp_path / "bare_pickle.pt").read_bytes())
    assert (tmp_path / hostile.MARKER).exists()


@pytest.mark.parametrize("name", hostile.GENUINE)
def test_honest_files_cost_about_their_size(opened, name):
    reports, folder = opened
    assert reports[name]["error"] == ""
    assert reports[name]["grown"] <= 2 * (folder / name).stat().st_size + 2**24


@pytest.mark.parametrize("value", ["1", "true", "YES", "y", "anything"])
def test_the_variable_that_switches_safety_off_is_refused(tmp_path, monkeypatch, value):
    torch.save(hostile.state(), tmp_path / "a.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    with pytest.raises(UntrustedFile, match="unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        load(tmp_path / "a.pt", arch=hostile.ARCH, arguments={"hidden": 64})
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    refuse_unsafe_environment()
    load(tmp_path / "a.pt", arch=hostile.ARCH, arguments={"hidden": 64})


def checkpoint(folder, ending):
    torch.manual_seed(0)
    model = linear(num_classes=3, input_shape=(1, 4, 4))
    path = folder / f"good{ending}"
    save(path, model, Header(hostile.LINEAR, {}, 3, (1, 4, 4), 0.0, 1.0, 1 / 255, {"name": "toy"}))
    return path


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_checkpoint_cut_anywhere_is_an_error(tmp_path, ending):
    path = checkpoint(tmp_path, ending)
    whole = path.read_bytes()
    for end in [*range(0, len(whole), 5), *range(len(whole) - 130, len(whole))]:
        path.write_bytes(whole[:end])
        with pytest.raises((UnreadableFile, UntrustedFile)):
            read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises((UnreadableFile, UntrustedFile)):
        read(path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path, ending):
    path = checkpoint(tmp_path, ending)
    whole = path.read_bytes()
    header, state = read(path)
    draw = random.Random(0)
    refused = 0
    for _ in range(400):
        bit = draw.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            again = read(path)
        except CertifyError:
            refused += 1
        else:
            assert again[0] == header
            assert tensor_digest(again[1]) == tensor_digest(state)
    assert refused > 100, "most of the file matters"


def test_an_edited_header_is_noticed(tmp_path):
    path = checkpoint(tmp_path, ".safetensors")
    content = path.read_bytes()
    grid = repr(1 / 255).encode()
    assert grid in content
    path.write_bytes(content.replace(grid, repr(1 / 256).encode().ljust(len(grid), b"0")))
    with pytest.raises(UnreadableFile, match="damaged or was edited"):
        read(path)


def make_pipe(path):
    os.mkfifo(path)


PLACES = {
    "missing": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "a folder"),
    "empty": (lambda p: p.touch(), "empty"),
    "dangling link": (lambda p: p.symlink_to("nowhere"), "link to nowhere"),
    "link to itself": (lambda p: p.symlink_to(p.name), "symbolic links|link to"),
    "link to a device": (lambda p: p.symlink_to("/dev/zero"), "device"),
    "pipe": (make_pipe, "pipe"),
    "one byte": (lambda p: p.write_bytes(b"P"), "not a readable"),
    "text": (lambda p: p.write_text("<html>404 not found</html>" * 100), "not a readable"),
    "unreadable name": (None, "embedded null"),
}


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("case", PLACES)
def test_paths_that_are_no_file(tmp_path, case, ending):
    prepare, cause = PLACES[case]
    path = tmp_path / f"a{ending}" if prepare else Path(f"a\0{ending}")
    if prepare:
        prepare(path)
    with pytest.raises(UnreadableFile, match=cause):
        data.load(path) if ending == ".npz" else load(path)


def test_a_link_to_a_good_file_is_followed(tmp_path):
    checkpoint(tmp_path, ".pt")
    (tmp_path / "link.pt").symlink_to("good.pt")
    assert load(tmp_path / "link.pt", arch=hostile.LINEAR)


def test_views_into_one_storage_are_honest_when_they_fit(tmp_path):
    """Recurrent layers keep all weights in one block; channels-last weights have odd strides."""
    flat = torch.rand(320)
    state = {
        "body.weight": flat[:128].view(64, 2), "body.bias": flat[128:192],
        "head.weight": torch.rand(64, 3).t(), "head.bias": torch.rand(6)[::2],
    }  # fmt: skip
    torch.save(state, tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt", arch=hostile.ARCH, arguments={"hidden": 64})
    assert tensor_digest(loaded.state_dict()) == tensor_digest(state)


def test_compressed_arrays_are_read_when_they_are_honest(tmp_path):
    masks = np.zeros((20, 1, 64, 64), np.uint8)
    masks[:, :, 16:48, 16:48] = 255
    np.savez_compressed(tmp_path / "a.npz", x=masks, y=np.arange(20) % 2)
    assert data.load(tmp_path / "a.npz").x.sum() == 20 * 32 * 32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["script", "trace", "export"])
def test_programs_open_on_the_users_word_only(tmp_path, kind):
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    x = torch.rand(5, 2)
    path = tmp_path / "program.pt"
    if kind == "export":
        batch = torch.export.Dim("batch")
        torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), path)
    else:
        program = torch.jit.script(model) if kind == "script" else torch.jit.trace(model, x)
        program.save(str(path))
    with pytest.raises(UntrustedFile, match="--trust-model-file"):
        load(path)
    with pytest.raises(UntrustedFile, match="--trust-model-file"):
        read(path)
    trusted = load(path, trust_model_file=True)
    assert torch.allclose(trusted(x), model(x))
    assert trusted.certify_header is None
    check_model(trusted)


def test_a_program_exported_in_training_mode_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(model, (torch.rand(5, 2),)), path)
    with pytest.raises(InvalidModel, match="training mode"):
        load(path, trust_model_file=True)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_broken_program_or_header_never_escapes_as_another_error(tmp_path, ending):
    """Random bytes behind a true beginning: whatever happens has a name."""
    draw = random.Random(1)
    start = b"PK\3\4" if ending == ".pt" else struct.pack("<Q", 40) + b'{"'
    for size in (10, 100, 1000):
        path = tmp_path / f"a{size}{ending}"
        path.write_bytes(start + draw.randbytes(size))
        with pytest.raises(CertifyError):
            certify.load(path)
