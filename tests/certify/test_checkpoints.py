"""Checkpoints: what is saved comes back, and nothing else is ever loaded."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import stat
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import certify
from certify import checkpoints, registry
from certify.checkpoints import Header, build, load, read, save, tensor_digest
from certify.errors import ArchitectureMismatch, InvalidModel, InvalidSetting, UnreadableFile, UntrustedFile
from tests.certify import toy_networks

TOY = "tests.certify.toy_networks"
FORMATS = ("a.pt", "a.safetensors")


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """The toy networks, registered the way an installed package would."""
    points = [
        importlib.metadata.EntryPoint(name, f"{TOY}:{name}", registry.GROUP)
        for name in ("linear", "normed", "shared", "computes_while_building", "giant", "not_a_module")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)


def header(architecture="normed", **changes):
    base = Header(
        architecture, {}, 3, (1, 4, 4), 0.0, 1.0, 1 / 255, {"name": "toy"}, {"epochs": 2, "loss": [0.5, 0.25]}
    )
    return dataclasses.replace(base, **changes)


def network(architecture="normed", seed=0, **arguments):
    torch.manual_seed(seed)
    factory = getattr(toy_networks, architecture)
    return factory(num_classes=3, input_shape=(1, 4, 4), **arguments)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("architecture", ["linear", "normed", "shared", "computes_while_building"])
def test_a_saved_network_comes_back_the_same(tmp_path, name, architecture):
    model = network(architecture)
    model(torch.rand(5, 1, 4, 4))  # moves the running statistics
    save(tmp_path / name, model, header(architecture))
    loaded = certify.load(tmp_path / name)
    x = torch.rand(7, 1, 4, 4)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.certify_header == header(architecture)
    assert not any(part.training for part in loaded.modules())
    assert os.listdir(tmp_path) == [name], "no temporary file is left"


@pytest.mark.parametrize("name", FORMATS)
def test_loading_leaves_the_callers_random_stream_alone(tmp_path, name):
    save(tmp_path / name, network(), header())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(tmp_path / name)
    assert torch.equal(torch.rand(3), expected)


def test_file_has_the_permissions_of_any_new_file(tmp_path):
    save(tmp_path / "a.pt", network(), header())
    (tmp_path / "other").touch()
    mode = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("a.pt", "other")]
    assert mode[0] == mode[1]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    save(tmp_path / "a.pt", network(seed=1), header())
    before = (tmp_path / "a.pt").read_bytes()

    def broken(content, file):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints.torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "a.pt", network(seed=2), header())
    assert (tmp_path / "a.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_digest_names_the_weights_and_nothing_else(tmp_path):
    model = network()
    digests = set()
    for name in ("a.pt", "b.pt", "c.safetensors"):
        save(tmp_path / name, model, header())
        digests.add(tensor_digest(read(tmp_path / name)[1]))
    state = model.state_dict()
    digests.add(tensor_digest(dict(reversed(state.items()))))
    digests.add(tensor_digest({k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v
                               for k, v in state.items()}))  # fmt: skip
    assert len(digests) == 1


def test_digest_changes_with_any_weight_name_shape_or_type():
    base = {"a": torch.arange(6.0), "b": torch.zeros(1)}
    changed = [
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1)},
        {"a": torch.arange(6.0).double(), "b": torch.zeros(1)},
        {"a": torch.arange(6.0), "c": torch.zeros(1)},
        {"a": torch.arange(6.0), "b": -torch.zeros(1)},
        {"a": torch.arange(6.0)},
        {"a": torch.arange(6).int(), "b": torch.zeros(1)},
    ]
    digests = [tensor_digest(s) for s in (base, *changed)]
    assert len(set(digests)) == len(digests)


def test_digest_is_the_documented_one():
    sha = hashlib.sha256(
        b'"a" float32 [3]\n' + struct.pack("<3f", 0, 1, 2) + b'"b" int64 []\n' + struct.pack("<q", 7)
    )
    assert tensor_digest({"b": torch.tensor(7), "a": torch.arange(3.0)}) == sha.hexdigest()


@given(st.dictionaries(st.text(max_size=8), st.lists(st.floats(width=32), max_size=5), max_size=4))
@settings(max_examples=40, deadline=None)
def test_digest_survives_any_order(values):
    state = {name: torch.tensor(row) for name, row in values.items()}
    assert tensor_digest(state) == tensor_digest(dict(reversed(state.items())))


@pytest.mark.parametrize("name", FORMATS)
def test_mismatch_names_the_keys_and_loads_nothing(tmp_path, name):
    save(tmp_path / name, network(width=4), header(arguments={"width": 8}))
    with pytest.raises(ArchitectureMismatch) as caught:
        load(tmp_path / name)
    assert "0.weight is (4, 1, 3, 3) in the file, (8, 1, 3, 3) in the network" in caught.value.why
    assert "more" in caught.value.why


def test_missing_and_unexpected_weights_are_named():
    state = network("linear").state_dict()
    state["head.weight"] = state.pop("1.weight")
    with pytest.raises(ArchitectureMismatch) as caught:
        build(header("linear"), state)
    assert "1.weight (3, 16) is missing" in caught.value.why
    assert "head.weight (3, 16) is not part" in caught.value.why


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.to(torch.complex64), InvalidModel),
        (lambda t: t.to(torch.int32), ArchitectureMismatch),
        (lambda t: t.double().fill_(1e300), InvalidModel),
        (lambda t: t.fill_(float("nan")), InvalidModel),
        (lambda t: t.fill_(float("inf")), InvalidModel),
    ],
    ids=["complex", "integer", "too large for float32", "nan", "inf"],
)
@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_a_wrong_kind_are_refused(tmp_path, name, change, error):
    state = network("linear").state_dict()
    state["1.weight"] = change(state["1.weight"])
    save(tmp_path / name, state, header("linear"))
    with pytest.raises(error) as caught:
        load(tmp_path / name)
    assert "1.weight" in str(caught.value)


def test_double_precision_weights_are_rounded_to_the_network_and_said(tmp_path):
    model = network("linear").double()
    model[1].weight.data += 2.0**-40
    save(tmp_path / "a.pt", model, header("linear"))
    loaded = load(tmp_path / "a.pt")
    assert torch.equal(loaded[1].weight, model[1].weight.float())
    assert loaded.certify_loaded.lines() == ["loaded: float64 weights rounded to float32"]


def test_half_precision_weights_are_read_exactly(tmp_path):
    model = network("linear").half()
    save(tmp_path / "a.pt", model, header("linear"))
    loaded = load(tmp_path / "a.pt")
    assert torch.equal(loaded[1].weight, model[1].weight.float())


def test_header_alone_cannot_import_a_module(tmp_path):
    name = f"{TOY}:linear"
    save(tmp_path / "a.pt", network("linear"), header(name))
    with pytest.raises(UntrustedFile, match="--arch tests"):
        load(tmp_path / "a.pt")
    assert load(tmp_path / "a.pt", arch=name).certify_header.architecture == name
    assert load(tmp_path / "a.pt", trust_model_file=True)(torch.rand(1, 1, 4, 4)).shape == (1, 3)


def test_arch_must_agree_with_the_header(tmp_path):
    save(tmp_path / "a.pt", network("linear"), header("linear"))
    with pytest.raises(ArchitectureMismatch, match="another network"):
        load(tmp_path / "a.pt", arch="normed")
    with pytest.raises(ArchitectureMismatch, match="another network"):
        load(tmp_path / "a.pt", arguments={"bias": False})
    load(tmp_path / "a.pt", arch="linear", arguments={})


@pytest.mark.parametrize("layout", ["plain", "nested", "parallel", "safetensors", "parameters"])
def test_bare_state_dict_with_the_users_own_network(tmp_path, layout):
    model = toy_networks.Own(5)
    state = model.state_dict()
    path = tmp_path / "w.pt"
    if layout == "plain":
        torch.save(state, path)
    elif layout == "nested":
        torch.save({"epoch": 3, "state_dict": state, "best": 0.5, "optimizer": {"state": {}}}, path)
    elif layout == "parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    elif layout == "parameters":
        torch.save(dict(model.named_parameters()), path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    loaded = load(path, arch=f"{TOY}:Own", arguments={"hidden": 5})
    x = torch.rand(4, 2)
    assert torch.equal(loaded(x), model(x))
    assert loaded.certify_header is None


def test_bare_state_dict_without_a_network_says_how_to_name_it(tmp_path):
    torch.save(toy_networks.Own(5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UnreadableFile, match="--arch module:factory"):
        load(tmp_path / "w.pt")
    with pytest.raises(UnreadableFile, match="--arch module:factory"):
        read(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("architecture", "arguments", "cause"),
    [
        ("linear", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("not_a_module", {}, "must return a torch.nn.Module"),
        ("normed", {"width": -1}, "RuntimeError"),
    ],
)
def test_arguments_that_do_not_build(architecture, arguments, cause):
    state = network("linear").state_dict()
    with pytest.raises(ArchitectureMismatch) as caught:
        build(header(architecture, arguments=arguments), state)
    assert cause in caught.value.why


def test_arguments_that_describe_a_giant_are_refused_not_allocated():
    state = network("linear").state_dict()
    with pytest.raises(UntrustedFile, match="would take"):
        build(header("giant", arguments={"width": 2**40}), state)
    assert build(header("giant", arguments={"width": 2**10}), state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", ""), ("architecture", 7), ("arguments", [1]), ("num_classes", 1),
        ("num_classes", 2.5), ("num_classes", True), ("input_shape", []), ("input_shape", [0, 3]),
        ("input_shape", [2**20, 2**20]), ("input_shape", "28"), ("low", float("nan")), ("low", 2.0),
        ("high", "1"), ("grid", 0.0), ("grid", -1), ("task", "regression"), ("dataset", None),
        ("training", 3),
    ],
)  # fmt: skip
def test_every_field_of_a_header_is_checked(tmp_path, field, value):
    row = json.loads(json.dumps(header("linear").to_json()))
    row[field] = value
    content = {"format": "certify-checkpoint", "version": 1, "header": row, "state_dict": {}}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UnreadableFile, match="header"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Header)][:7])
def test_missing_header_fields_are_named(field):
    row = header().to_json()
    del row[field]
    with pytest.raises(UnreadableFile, match=field):
        Header.from_json(row)


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": torch.ones(1)}, {1: {2}}])
def test_a_header_that_is_not_json_is_not_written(tmp_path, bad):
    with pytest.raises(UnreadableFile, match="JSON"):
        save(tmp_path / "a.pt", network(), header(training=bad))
    assert os.listdir(tmp_path) == []


def test_other_versions_and_endings(tmp_path):
    content = {"format": "certify-checkpoint", "version": 2, "header": {}, "state_dict": {}}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UnreadableFile, match="version 2"):
        read(tmp_path / "a.pt")
    with pytest.raises(InvalidSetting, match="ending"):
        save(tmp_path / "a.bin", network(), header())
    with pytest.raises(UnreadableFile, match="cannot be written"):
        save(tmp_path / "nowhere" / "a.pt", network(), header())


def test_shared_weights_stay_shared(tmp_path):
    model = network("shared")
    save(tmp_path / "a.pt", model, header("shared"))
    loaded = load(tmp_path / "a.pt")
    assert loaded[1] is loaded[3]
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_state_dict_must_hold_tensors_only(tmp_path):
    for content in ({}, {"a": 1}, [torch.ones(1)], {"state_dict": {}}, torch.ones(3)):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UnreadableFile, match="no state dict"):
            load(tmp_path / "a.pt", arch=f"{TOY}:Own", arguments={"hidden": 5})


def test_network_is_moved_to_the_device(tmp_path):
    save(tmp_path / "a.pt", network(), header())
    assert isinstance(load(tmp_path / "a.pt", device=torch.device("cpu")), nn.Module)
