"""The contract of a certificate: one named cause for everything that would make it false."""

import numpy as np
import pytest
import torch
from torch import nn

from certify.answers import check_output
from certify.contract import IGNORE, check_inputs, check_model
from certify.errors import CertifyError, InvalidInput, InvalidModel, InvalidSetting

X = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1])


def check(x=X, y=Y, **changes):
    settings = {"bounds": (0.0, 1.0), "input_shape": (1, 3, 3), "num_classes": 3} | changes
    return check_inputs(x, y, **settings)


def test_good_inputs_pass_unchanged():
    x, y = check()
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert check(y=None)[1] is None
    assert check(bounds=None, x=X * 300)[0].max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_types_become_float32(dtype):
    x, _ = check(X.to(dtype))
    assert x.dtype == torch.float32
    assert torch.equal(x, X.to(dtype).float())


def test_arrays_and_small_integer_labels():
    x, y = check(X.numpy(), Y.numpy().astype(np.uint8))
    assert torch.equal(x, X)
    assert y is not None
    assert y.dtype == torch.int64
    assert check(y=[0, 1, 2, 1])[1].tolist() == [0, 1, 2, 1]
    frozen = X.numpy()[:, :, ::-1]
    assert check(frozen)[0].shape == X.shape


def test_bounds_are_compared_in_single_precision():
    x = torch.full((1, 2), 0.1)
    check_inputs(x, bounds=(0.0, 0.1), num_classes=2)
    with pytest.raises(InvalidInput, match="outside"):
        check_inputs(torch.nextafter(x, torch.ones(1)), bounds=(0.0, 0.1), num_classes=2)


def put(value, where=(2, 0, 1, 1)):
    x = X.clone()
    x[where] = value
    return x


BAD_INPUTS = {
    "nan": ({"x": put(float("nan"))}, InvalidInput, "input 2 holds NaN"),
    "inf": ({"x": put(float("inf"))}, InvalidInput, "infinite"),
    "overflow of float32": ({"x": X.double() * 1e300}, InvalidInput, "infinite"),
    "8-bit range": ({"x": X * 255}, InvalidInput, "divide 8-bit images by 255"),
    "below range": ({"x": put(-0.01)}, InvalidInput, "input 2 lies outside"),
    "normalised": ({"x": (X - 0.5) / 0.25}, InvalidInput, "normalisation belongs inside"),
    "uint8": ({"x": (X * 255).byte()}, InvalidInput, "uint8"),
    "int64": ({"x": X.long()}, InvalidInput, "without a declared type"),
    "bool": ({"x": X > 0.5}, InvalidInput, "bool"),
    "complex": ({"x": X.to(torch.complex64)}, InvalidInput, "complex"),
    "list": ({"x": X.tolist()}, InvalidInput, "not an array"),
    "object array": ({"x": np.array([None])}, InvalidInput, "not an array"),
    "one input": ({"x": X[0]}, InvalidInput, "unsqueeze"),
    "other shape": ({"x": X.reshape(4, 9)}, InvalidInput, "expected"),
    "channels last": ({"x": X.permute(0, 2, 3, 1)}, InvalidInput, "channels first"),
    "no inputs": ({"x": X[:0], "y": Y[:0]}, InvalidInput, "no inputs"),
    "scalar": ({"x": torch.tensor(0.5)}, InvalidInput, "shape"),
    "vector": ({"x": torch.rand(4), "input_shape": None}, InvalidInput, "shape"),
    "too few labels": ({"y": Y[:2]}, InvalidInput, "shape"),
    "one-hot": ({"y": torch.eye(3)[Y].long()}, InvalidInput, "shape"),
    "float labels": ({"y": Y.float()}, InvalidInput, "type float32"),
    "bool labels": ({"y": Y > 0}, InvalidInput, "type bool"),
    "text labels": ({"y": ["a"] * 4}, InvalidInput, "labels are text: 'a'"),
    "ragged labels": ({"y": [[1], [1, 2], 3, 4]}, InvalidInput, "type list"),
    "label too large": ({"y": Y + 1}, InvalidInput, "label 3 of input 2"),
    "negative label": ({"y": Y - 1}, InvalidInput, "label -1 of input 0"),
    "ignored label": ({"y": Y * 0 + IGNORE}, InvalidInput, "not a class"),
    "bounds reversed": ({"bounds": (1.0, 0.0)}, InvalidSetting, "bounds"),
    "bounds nan": ({"bounds": (0.0, float("nan"))}, InvalidSetting, "bounds"),
    "bounds infinite": ({"bounds": (0.0, float("inf"))}, InvalidSetting, "bounds"),
    "bounds scalar": ({"bounds": 1.0}, InvalidSetting, "bounds"),
    "dense labels flat": ({"dense": True}, InvalidInput, "label per pixel"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs(case):
    change, error, text = BAD_INPUTS[case]
    with pytest.raises(error, match=text) as caught:
        check(**change)
    assert isinstance(caught.value, CertifyError)
    assert caught.value.why
    assert caught.value.remedy


def test_dense_labels_may_ignore_pixels():
    y = torch.zeros(4, 3, 3, dtype=torch.int64)
    y[0, 0, 0] = IGNORE
    assert torch.equal(check(y=y, dense=True)[1], y)
    y[1, 1, 1] = 3
    with pytest.raises(InvalidInput, match="label 3 of input 1"):
        check(y=y, dense=True)


def network():
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).eval()


def test_good_models_pass():
    check_model(network())
    check_model(lambda x: x)
    check_model(nn.Sequential(nn.InstanceNorm2d(3), nn.GroupNorm(1, 3), nn.Dropout()).eval())


def spoil(change):
    model = network()
    change(model)
    return model


def hide_nan(model):
    model[1].running_var[2] = float("nan")


def set_inf(model):
    model[3].weight.data[0, 0] = float("inf")


BAD_MODELS = {
    "training": (lambda m: m.train(), "training mode"),
    "one part training": (lambda m: m[1].train(), "'1' \\(BatchNorm1d\\) is in training mode"),
    "nan statistics": (hide_nan, "1.running_var"),
    "inf weight": (set_inf, "3.weight"),
    "batch statistics": (lambda m: m.append(nn.BatchNorm1d(3, track_running_stats=False).eval()), "batch"),
    "lazy": (lambda m: m.append(nn.LazyLinear(3).eval()), "no values"),
    "meta": (lambda m: m.append(nn.Linear(3, 3, device="meta").eval()), "no values"),
    "complex": (lambda m: m.register_buffer("c", torch.zeros(1, dtype=torch.complex64)), "complex"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case):
    change, text = BAD_MODELS[case]
    with pytest.raises(InvalidModel, match=text):
        check_model(spoil(change))


def test_a_state_dict_is_no_model():
    with pytest.raises(InvalidModel, match="arch="):
        check_model(network().state_dict())


def test_outputs():
    check_output(torch.zeros(4, 3), batch=4, num_classes=3)
    check_output(torch.full((4, 3), float("nan")), batch=4, num_classes=3)
    check_output(torch.zeros(4, 3, 5, 6), batch=4, num_classes=3, spatial=(5, 6))


@pytest.mark.parametrize(
    ("logits", "text"),
    [
        (torch.zeros(4, 10), "it has 10 classes where 3 were declared"),
        (torch.zeros(4), "expected"),
        (torch.zeros(1, 3), "expected"),
        (torch.zeros(4, 3, 1, 1), "expected"),
        (torch.zeros(4, 3, dtype=torch.int64), "argmax"),
        ({"out": torch.zeros(4, 3)}, "dict"),
        ((torch.zeros(4, 3),), "tuple"),
        (np.zeros((4, 3)), "ndarray"),
    ],
)
def test_bad_outputs(logits, text):
    with pytest.raises(InvalidModel, match=text):
        check_output(logits, batch=4, num_classes=3)
