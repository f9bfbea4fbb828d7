"""Labels of any whole-number type become int64; everything else is refused by its own name."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

import analysis
import certify
from attacks import Threat, attack
from certify.data import Dataset, load
from certify.errors import InvalidInput, InvalidModel, UnreadableFile
from certify.labels import MOST_CLASSES, Numbered, check_labels

X = np.linspace(0, 1, 4 * 9, dtype=np.float32).reshape(4, 1, 3, 3)
Y = [0, 1, 1, 0]
WHOLE = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">i8", ">u4", ">i2", "<u2"]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_width_and_byte_order_are_labels_everywhere(kind, tmp_path):
    y = np.array(Y, dtype=kind)
    np.savez(tmp_path / "d.npz", x=X, y=y)
    loaded = load(tmp_path / "d.npz")
    assert (loaded.y.dtype, loaded.y.tolist(), loaded.num_classes) == (torch.int64, Y, 2)
    made = Dataset("own", "test", torch.from_numpy(X), y, 2, 0.0, 1.0, None, torch.arange(4), ("a", "b"))
    assert torch.equal(made.y, loaded.y)
    g = certify.Smoothed(net(), sigma=0.5, num_classes=2, noise="gaussian")
    run = g.certify(X, y, mode="fixed", n0=5, n=20)
    assert [r.target for r in run] == Y
    found = attack(net(), X, y, threat=Threat("2", eps=0.01, bounds=(0.0, 1.0)), preset="quick")
    assert [o.target for o in found] == Y
    assert analysis.deterministic_gap(net(), made, dataset_of(X[:, :, ::-1] * 0.5)).n_train == 4


def dataset_of(x, y=Y):
    x = torch.from_numpy(np.ascontiguousarray(x))
    return Dataset("own", "test", x, torch.tensor(y), 2, 0.0, 1.0, None, torch.arange(len(x)), ("a", "b"))


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8])
def test_whole_number_tensors_are_labels(kind):
    assert check_labels(torch.tensor(Y).to(kind), 4, num_classes=2).tolist() == Y


REFUSED = {
    "fractions": (np.array([0, 1, 0.5, 1]), "type float64", "have fractions"),
    "whole floats": (np.array(Y, dtype=np.float32), "type float32", "astype\\('int64'\\)"),
    "half": (torch.tensor(Y).half(), "type float16", "long\\(\\)"),
    "bfloat16": (torch.tensor(Y).bfloat16(), "type bfloat16", "array of class indices"),
    "truth values": (np.array(Y, dtype=bool), "type bool", "int64"),
    "objects": (np.array(Y, dtype=object), "Python objects", "int64"),
    "missing": (np.array([0, 1, None, 1], dtype=object), "Python objects", "int64"),
    "text": (np.array(["cat", "dog", "cat", "dog"]), "text: 'cat'", "return_inverse"),
    "bytes": (np.array([b"c", b"d", b"c", b"d"]), "text: b'c'", "return_inverse"),
    "text objects": (np.array(["cat", "dog", "cat", "dog"], dtype=object), "text: 'cat'", "return_inverse"),
    "dates": (np.array(["2020-01-01"] * 4, dtype="datetime64[D]"), "type datetime64", "int64"),
    "complex": (np.array(Y, dtype=complex), "type complex128", "int64"),
    "records": (np.zeros(4, dtype=[("a", "i4")]), "type void", "int64"),
    "masked": (np.ma.array(Y, mask=[0, 0, 1, 0]), "masked array", "every input"),
    "one-hot": (np.eye(2)[Y], "shape \\(4, 2\\)", "argmax"),
    "multi-hot floats": (np.array([[1.0, 1], [0, 1], [1, 0], [0, 0]]), "multi-hot", "one label at a time"),
    "multi-hot": (torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]]), "multi-hot", "one label at a time"),
    "scores": (np.random.default_rng(0).random((4, 2)), "rows of numbers", "argmax"),
    "column": (np.array(Y)[:, None], "shape \\(4, 1\\)", "reshape"),
    "too large for int64": (np.array([0, 1, 1, 2**63 + 5], dtype="u8"), "9223372036854775813", "num_classes"),
    "sparse": (torch.tensor(Y).to_sparse(), "Tensor", "array of class indices"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_labels_are_refused_by_name(case):
    y, what, remedy = REFUSED[case]
    with pytest.raises(InvalidInput, match=what) as caught:
        check_labels(y, 4, num_classes=2)
    assert remedy.replace("\\", "") in caught.value.remedy
    if "hot" in case and "one" not in case:
        assert "argmax" not in str(caught.value), "of several classes the first is no answer"


def test_one_input_without_a_batch_axis_is_told_so():
    g = certify.Smoothed(net(), sigma=0.5, num_classes=2, noise="gaussian")
    for y in (np.array([1]), 1):
        with pytest.raises(InvalidInput, match="without a batch axis") as caught:
            g.certify(np.zeros((3, 3, 3), np.float32), y)
        assert "unsqueeze(0)" in caught.value.remedy
    with pytest.raises(InvalidModel, match="unsqueeze"):
        g.certify(np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("kind", [np.longdouble, ">f4", ">f8", np.float16])
def test_inputs_of_any_width_and_byte_order_are_read(kind, tmp_path):
    np.savez(tmp_path / "d.npz", x=X.astype(kind), y=Y)
    assert np.allclose(load(tmp_path / "d.npz").x.numpy(), X, atol=1e-3)


def test_inputs_that_are_no_numbers_are_refused_by_name(tmp_path):
    for x, what in (
        (X.astype(np.clongdouble), "complex"),
        (np.ma.array(X, mask=X > 0.5), "masked"),
        (X.astype(np.longdouble) * np.longdouble("1e400"), "infinite"),
        (np.zeros((4, 2), dtype="datetime64[s]"), "datetime64"),
    ):
        with pytest.raises(InvalidInput, match=what):
            certify.contract.check_inputs(x, Y, bounds=None, num_classes=2)


@pytest.mark.parametrize("kind", ["u8", "i8", "u4"])
def test_a_large_label_allocates_nothing_its_file_does_not_cover(tmp_path, kind):
    np.savez(tmp_path / "d.npz", x=X, y=np.array([0, 1, 1, 10**7], dtype=kind))
    tracemalloc.start()
    found = load(tmp_path / "d.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.num_classes, len(found.classes), found.classes[10**7]) == (10**7 + 1, 10**7 + 1, "10000000")
    assert peak < 2**20
    with pytest.raises(InvalidModel, match="10000001"):
        certify.Smoothed(net(), sigma=0.5, data=found, noise="gaussian").certify(found.x, found.y)


@pytest.mark.parametrize("count", [1e11, 1e307, 2.0**24 + 1, np.uint64(2**63)])
def test_a_class_count_beyond_any_classifier_is_refused_by_name(tmp_path, count):
    np.savez(tmp_path / "d.npz", x=X, y=Y, num_classes=count)
    with pytest.raises(UnreadableFile, match="num_classes"):
        load(tmp_path / "d.npz")
    kind = "u8" if count < 2**64 else float
    np.savez(tmp_path / "e.npz", x=X, y=np.array([0, 1, 1, int(count)], dtype=kind))
    with pytest.raises(InvalidInput, match=r"not a class|type float64"):
        load(tmp_path / "e.npz")


def test_numbered_names_are_those_of_a_list():
    assert list(Numbered(3)) == ["0", "1", "2"]
    assert Numbered(3) == ("0", "1", "2")
    assert Numbered(3) == Numbered(3) != Numbered(4)
    assert Numbered(12)[-2:] == ("10", "11")
    assert len(Numbered(MOST_CLASSES)) == MOST_CLASSES
    with pytest.raises(IndexError):
        Numbered(3)[3]
