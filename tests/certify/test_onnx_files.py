"""ONNX files: the network they hold, and everything that would make a certificate for it false or unsafe."""

import copy
import hashlib
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.checkpoints import model_digest
from certify.checkpoints.onnx_file import OnnxModel
from certify.errors import ArchitectureMismatch, InvalidModel, InvalidSetting, UnreadableFile, UntrustedFile

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def linear(features=6, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(features, classes).eval()


def graph(nodes, *, inputs=None, outputs=None, weights=(), **options):
    made = helper.make_graph(
        nodes,
        "net",
        inputs or [helper.make_tensor_value_info("x", FLOAT, ["batch", 6])],
        outputs or [helper.make_tensor_value_info("logits", FLOAT, ["batch", 3])],
        list(weights),
    )
    domains = [helper.make_opsetid("", 17), *options.pop("domains", [])]
    return helper.make_model(made, opset_imports=domains, ir_version=9, **options)


def weights(net):
    return [
        numpy_helper.from_array(net.weight.detach().numpy(), "w"),
        numpy_helper.from_array(net.bias.detach().numpy(), "b"),
    ]


def as_onnx(net, inner="logits", more=(), **options):
    gemm = helper.make_node("Gemm", ["x", "w", "b"], [inner], transB=1)
    return graph([gemm, *more], weights=[*weights(net), *options.pop("weights", [])], **options)


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "net.onnx"
    onnx.save(as_onnx(linear()), place)
    return place


X = torch.rand(5, 6, generator=torch.Generator().manual_seed(1))


def test_the_network_answers_as_the_one_it_was_made_from(path):
    model = certify.load(path)
    torch.testing.assert_close(model(X), linear()(X))
    assert not model.training
    assert model.certify_header is None


def test_its_identity_is_the_file(path, tmp_path):
    model = certify.load(path)
    assert model_digest(model) == hashlib.sha256(path.read_bytes()).hexdigest()
    onnx.save(as_onnx(linear(seed=1)), tmp_path / "other.onnx")
    assert model_digest(certify.load(tmp_path / "other.onnx")) != model_digest(model)
    run = certify.Smoothed(model, 0.25, num_classes=3, noise="gaussian").certify(X[:1], n_max=100)
    assert run.settings["model"]["digest"] == model_digest(model)


def test_certificates_are_those_of_the_same_network_in_torch(path):
    runs = [
        certify.Smoothed(net, 0.25, num_classes=3, grid=2.0**-10).certify(
            certify.Smoothed(net, 0.25, num_classes=3, grid=2.0**-10).to_grid(X), n_max=1000, seed=3
        )
        for net in (certify.load(path), linear())
    ]
    first, second = ([(r.label, r.radius, r.counts) for r in run] for run in runs)
    assert first == second


def test_it_can_be_copied_and_sent_to_workers(path):
    model = certify.load(path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(X), model(X))


def test_wrapping_puts_normalisation_in_front(path):
    model = certify.load(path)
    assert torch.equal(certify.wrap(model, mean=0.5, std=2.0)(X), model((X - 0.5) / 2.0))
    onnx.save(as_onnx(linear(seed=1)), path)
    other = certify.load(path)
    wrapped = [certify.wrap(m, mean=k) for m in (model, other) for k in (0.5, 0.25)]
    assert len({model_digest(m) for m in wrapped}) == 4


def test_other_types_and_devices_are_refused(path):
    model = certify.load(path)
    with pytest.raises(InvalidSetting, match="fp32"):
        certify.Smoothed(model, 0.25, num_classes=3, dtype="bf16", noise="gaussian").certify(X[:1], n_max=100)
    with pytest.raises(InvalidSetting, match="--device cpu"):
        certify.load(path, device="cuda")
    with pytest.raises(ArchitectureMismatch, match="--arch"):
        certify.load(path, arch="mlp")


def refused(tmp_path, model, error, word):
    place = tmp_path / "bad.onnx"
    place.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(error, match=word) as caught:
        certify.load(place)
    assert "\n  do:  " in str(caught.value)


def test_a_fixed_batch_is_refused_with_the_way_to_export_again(tmp_path):
    fixed = [helper.make_tensor_value_info("x", FLOAT, [1, 6])]
    refused(tmp_path, as_onnx(linear(), inputs=fixed), InvalidModel, "batches of 1 only")


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"PK\x03\x04" + bytes(60), b"\x08\x09" * 9], ids=lambda b: repr(b[:8])
)
def test_other_files_are_unreadable(tmp_path, content):
    refused(tmp_path, content, UnreadableFile, "ONNX")


def test_a_truncated_file_is_unreadable(tmp_path, path):
    refused(tmp_path, path.read_bytes()[:-20], UnreadableFile, "ONNX")


def test_tensors_in_other_files_are_not_followed(tmp_path):
    model = as_onnx(linear())
    (tmp_path / "weights.bin").write_bytes(model.graph.initializer[0].raw_data)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    refused(tmp_path, model, UntrustedFile, "another file")


def test_tensors_in_other_files_are_found_in_nested_graphs(tmp_path):
    hidden = numpy_helper.from_array(np.zeros((1, 3), np.float32), "hidden")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    hidden.ClearField("raw_data")
    out = [helper.make_tensor_value_info("y", FLOAT, None)]
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=hidden)], "branch", [], out)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["logits"], then_branch=branch, else_branch=branch),
    ]
    refused(tmp_path, graph(nodes), UntrustedFile, "another file")


def test_operators_from_other_libraries_are_refused(tmp_path):
    node = helper.make_node("Run", ["x"], ["logits"], domain="com.evil")
    model = graph([node], domains=[helper.make_opsetid("com.evil", 1)])
    refused(tmp_path, model, UntrustedFile, "com.evil")


@pytest.mark.parametrize(
    ("node", "more"),
    [
        (helper.make_node("RandomNormalLike", ["inner"], ["logits"]), ()),
        (helper.make_node("Bernoulli", ["inner"], ["logits"]), ()),
        (
            helper.make_node("Dropout", ["inner", "ratio", "training"], ["logits"]),
            (
                numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
                numpy_helper.from_array(np.array(True), "training"),
            ),
        ),
    ],
    ids=lambda v: v.op_type if hasattr(v, "op_type") else "",
)
def test_what_is_no_fixed_function_is_refused(tmp_path, node, more):
    model = as_onnx(linear(), inner="inner", more=[node], weights=more)
    refused(tmp_path, model, InvalidModel, "no fixed function")


def test_dropout_in_evaluation_passes(tmp_path):
    off = numpy_helper.from_array(np.array(False), "training")
    ratio = numpy_helper.from_array(np.array(0.5, np.float32), "ratio")
    node = helper.make_node("Dropout", ["inner", "ratio", "training"], ["logits"])
    onnx.save(as_onnx(linear(), inner="inner", more=[node], weights=[ratio, off]), tmp_path / "ok.onnx")
    torch.testing.assert_close(certify.load(tmp_path / "ok.onnx")(X), linear()(X))


def test_more_inputs_or_outputs_are_named(tmp_path):
    two = [helper.make_tensor_value_info(n, FLOAT, ["batch", 6]) for n in ("x", "mask")]
    refused(tmp_path, as_onnx(linear(), inputs=two), InvalidModel, "mask")
    both = [helper.make_tensor_value_info(n, FLOAT, ["batch", 3]) for n in ("logits", "again")]
    again = helper.make_node("Relu", ["logits"], ["again"])
    refused(tmp_path, as_onnx(linear(), more=[again], outputs=both), InvalidModel, "extract_model")
    half = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 6])]
    identity = [helper.make_node("Identity", ["x"], ["logits"])]
    out = [helper.make_tensor_value_info("logits", TensorProto.FLOAT16, ["batch", 6])]
    refused(tmp_path, graph(identity, inputs=half, outputs=out), InvalidModel, "float32")


def test_labels_beside_scores_are_ignored(tmp_path):
    # As scikit-learn exports them: a label and one score per class.
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("logits", FLOAT, ["batch", 3]),
    ]
    label = helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)
    onnx.save(as_onnx(linear(), more=[label], outputs=outputs), tmp_path / "two.onnx")
    assert certify.load(tmp_path / "two.onnx")(X).shape == (5, 3)


def test_a_network_that_mixes_its_batch_is_refused(tmp_path):
    mean = helper.make_node("ReduceMean", ["inner"], ["mean"], axes=[0], keepdims=1)
    less = helper.make_node("Sub", ["inner", "mean"], ["logits"])
    onnx.save(as_onnx(linear(), inner="inner", more=[mean, less]), tmp_path / "mixes.onnx")
    model = certify.load(tmp_path / "mixes.onnx")
    with pytest.raises(certify.errors.NondeterministicModel):
        certify.Smoothed(model, 0.25, num_classes=3, noise="gaussian").certify(X[:2], n_max=100)


def test_data_of_another_shape_is_named(path):
    with pytest.raises(InvalidModel, match=r"shape \(5,\)(.|\n)*\['batch', 6\]"):
        certify.Smoothed(certify.load(path), 0.25, num_classes=3, noise="gaussian").certify(
            X[:, :5], n_max=100
        )


def test_opening_a_file_computes_nothing_that_it_describes(tmp_path):
    size = numpy_helper.from_array(np.array([2**46], np.int64), "size")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", FLOAT, ["batch", 6])]
    onnx.save(graph(nodes, outputs=outputs, weights=[size]), tmp_path / "big.onnx")
    model = certify.load(tmp_path / "big.onnx")
    with pytest.raises(InvalidModel, match="cannot evaluate"):
        model(X)


def test_without_the_extra_the_remedy_is_named(path, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name in ("onnx", "onnxruntime"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(certify.errors.MissingExtra, match=r"certify-robustness\[onnx\]"):
        certify.load(path)
    with pytest.raises(certify.errors.MissingExtra, match="onnxruntime"):
        OnnxModel(path.read_bytes())
