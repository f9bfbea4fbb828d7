"""What a model answers, and what its scores look like: each mistake has its own words."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import certify
from attacks import Threat, attack
from certify.errors import ArchitectureMismatch, InvalidInput, InvalidModel, InvalidSetting

X = torch.round(torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 255) / 255


def logit(z):
    return (z.flatten(1).mean(1) - 0.5) * 20


def sigmoid(z):
    return logit(z).sigmoid()


def told(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return " ".join(str(w.message) for w in seen if w.category is UserWarning)


def certified(model, classes=2):
    return lambda: certify.Smoothed(model, 0.25, num_classes=classes).certify(X, n_max=200)


def attacked(model):
    return lambda: attack(model, X, threat=Threat(2, 0.1), preset="quick")


AS_LOGIT = {
    "a sigmoid, scores= forgotten": certify.wrap(sigmoid, binary=True),
    "a column of sigmoids": certify.wrap(lambda z: sigmoid(z)[:, None], binary=True),
    "a saturated sigmoid": certify.wrap(lambda z: (1e6 * logit(z)).sigmoid(), binary=True),
    "minus and plus a sigmoid": lambda z: torch.stack((-sigmoid(z), sigmoid(z)), 1),
}


@pytest.mark.parametrize("name", AS_LOGIT)
def test_a_sigmoid_that_is_read_as_a_logit_warns(name):
    for call in (certified(AS_LOGIT[name]), attacked(AS_LOGIT[name])):
        assert "every input is of class 1" in told(call)


SQUASHED = {
    "softmax": (lambda z: torch.stack((-logit(z), logit(z)), 1).softmax(1), "last softmax", 2),
    "two sigmoids": (lambda z: torch.stack((-logit(z), logit(z)), 1).sigmoid() * 0.9, "last sigmoid", 2),
    "zero and a sigmoid": (lambda z: torch.stack((0 * sigmoid(z), sigmoid(z)), 1), "last sigmoid", 2),
    "several labels": (lambda z: (z.flatten(1)[:, :5] * 9 - 4).sigmoid(), "yes-or-no", 5),
}


@pytest.mark.parametrize("name", SQUASHED)
def test_scores_between_0_and_1_warn(name):
    model, text, classes = SQUASHED[name]
    for call in (certified(model, classes), attacked(model)):
        assert text in told(call)


QUIET = {
    "one logit": certify.wrap(logit, binary=True),
    "one probability, said so": certify.wrap(sigmoid, binary=True, scores="probabilities"),
    "a softmax, said so": certify.wrap(SQUASHED["softmax"][0], scores="probabilities"),
    "minus and plus a logit": lambda z: torch.stack((-logit(z), logit(z)), 1),
    "log-softmax": lambda z: torch.stack((-logit(z), logit(z)), 1).log_softmax(1),
    "votes": lambda z: nn.functional.one_hot((logit(z) > 0).long(), 2).float() + 0 * z.flatten(1)[:, :1],
}


@pytest.mark.parametrize("name", QUIET)
def test_scores_that_are_what_they_seem_do_not_warn(name):
    for call in (certified(QUIET[name]), attacked(QUIET[name])):
        assert told(call) == ""


def test_a_head_of_another_task_warns(tmp_path):
    np.savez(tmp_path / "ten.npz", x=(X.numpy() * 255).round().astype(np.uint8), y=[0, 1, 2, 3, 4, 9])
    data = certify.data.load(tmp_path / "ten.npz")

    def wide(classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()

    assert "1000 classes" in told(lambda: certify.Smoothed(wide(1000), 0.25, data=data))
    assert "100 classes" in told(lambda: certify.Smoothed(wide(100), 0.25, data=data))
    assert told(lambda: certify.Smoothed(wide(21), 0.25, data=data)) == ""
    assert told(lambda: certify.Smoothed(wide(1000), 0.25, data=data, num_classes=1000)) == ""


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.eye(3)[[0, 1, 2, 0, 1, 2]], r"one-hot\n(.|\n)*y\.argmax\(1\)"),
        (torch.tensor([[1, 0, 1]] * 6), r"several classes(.|\n)*y\[:, k\]"),
        (torch.tensor([[0.0, 0.0, 0.0]] * 6), r"several classes(.|\n)*y\[:, k\]"),
        (torch.tensor([[True, True, False]] * 6), "several classes"),
        (torch.zeros(6, 1), r"y\.reshape"),
        (torch.full((6, 3), 1 / 3), "probabilities"),
        (torch.zeros(6), r"y\.long\(\)"),
    ],
)
def test_labels_in_rows_are_told_what_they_are(labels, text):
    with pytest.raises(InvalidInput, match=text):
        certify.Smoothed(lambda z: z.flatten(1)[:, :3], 0.25, num_classes=3).certify(X, labels, n_max=100)


@pytest.mark.parametrize(
    ("classes", "scores", "text"),
    [
        (4, lambda z: z.flatten(1).argmax(1), "labels, not scores"),
        (4, lambda z: logit(z), "declare num_classes=2"),
        (4, lambda z: logit(z)[:, None], "it has 1 where 4"),
        (2, lambda z: logit(z), r"wrap\(model, binary=True\)"),
        (2, lambda z: (logit(z) > 0).int(), "one_hot"),
        (2, lambda z: (logit(z) > 0).float(), "where it ends in a sigmoid"),
        (4, lambda z: z.flatten(1)[:, :4].detach().numpy(), "torch.as_tensor"),
        (4, lambda z: [logit(z)], "output=0"),
        (4, lambda z: None, "NoneType"),
    ],
)
def test_advice_fits_the_answer(classes, scores, text):
    with pytest.raises(InvalidModel, match=text) as caught:
        certified(scores, classes)()
    assert classes == 2 or "binary=True" not in str(caught.value)


@pytest.mark.parametrize("grid", [2 / 255, 1 / 255 / 0.2023, 1 / 255 / 0.3081])
def test_normalised_pixels_are_pointed_to_wrap(grid):
    with pytest.raises(InvalidSetting, match=r"certify\.wrap\(model, mean="):
        certify.Smoothed(AS_LOGIT["minus and plus a sigmoid"], 0.25, num_classes=2, bounds=None, grid=grid)
    with pytest.raises(InvalidSetting) as caught:
        certify.Smoothed(AS_LOGIT["minus and plus a sigmoid"], 0.25, num_classes=2, bounds=None, grid=0.3)
    assert "wrap" not in str(caught.value)


def test_a_factory_that_wants_what_data_tell_says_so(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ArchitectureMismatch, match=r"needs num_classes and input_shape\n  do:  add --data"):
        certify.load(tmp_path / "w.pt", arch="tests.certify.toy_networks:linear")
    with pytest.raises(ArchitectureMismatch, match="--arch-args"):
        certify.load(tmp_path / "w.pt", arch="torch.nn:Linear")
