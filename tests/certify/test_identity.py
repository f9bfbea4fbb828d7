"""Which function a run is about: a plain callable is told apart by what it is made of."""

import functools
import itertools
import operator
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.contents import contents, model_contents
from certify.errors import InvalidSetting, RunConflict
from certify.identity import same_function
from certify.store import open_run, read_run
from certify.transfer import transfer
from certify.verification import verify

X = torch.zeros(2, 3)
SCALE = 1.0


def closure(weights, shift=0.0):
    """Class 1 wherever the weighted sum is above -100 + shift: constant on the probes."""

    def model(x):
        side = x.flatten(1) @ weights + 100.0 + shift
        return torch.stack([-side, side], dim=1)

    return model


def smoothed(model):
    return certify.Smoothed(model, 0.5, num_classes=2, noise="gaussian", bounds=None, batch_size=64)


def certified(model, place, count=2):
    return smoothed(model).certify(X[:count], n_max=200, seed=1, store=place)


ONES = torch.ones(3)


def test_functions_that_agree_on_every_probe_are_not_one_run(tmp_path):
    mine, other = closure(ONES), closure(torch.tensor([1.0, 1.0, -1.0]))
    labels = {smoothed(f).identity([3])["labels"] for f in (mine, other)}
    assert len(labels) == 1, "the probes cannot tell them apart"
    certified(mine, tmp_path, 1)
    with pytest.raises(RunConflict) as caught:
        certified(other, tmp_path)
    assert "model.code.captured weights" in caught.value.why
    assert "captured shift" not in caught.value.why
    assert "pass the one the run was made with" in caught.value.remedy
    assert len(read_run(tmp_path).run) == 1
    assert len(certified(closure(ONES.clone()), tmp_path)) == 2, "the same function goes on"


def test_a_wrapped_function_is_read_too(tmp_path):
    certified(certify.wrap(closure(ONES), mean=0.0), tmp_path, 1)
    for other in (closure(ONES * 2), closure(ONES, 1.0), lambda x: closure(ONES)(x)):
        with pytest.raises(RunConflict, match=r"model\.code"):
            certified(certify.wrap(other, mean=0.0), tmp_path)
    options = [{}, {"output": 0}, {"scores": "probabilities"}, {"binary": True}]
    read = [model_contents(certify.wrap(with_helper, **o)).parts for o in options]
    assert len({tuple(sorted(parts.items())) for parts in read}) == 4
    certified(certify.wrap(closure(ONES), mean=0.0), tmp_path)


def with_default(x, weights=ONES):
    return closure(weights)(x)


def with_global(x):
    return closure(ONES)(x) * SCALE


def with_helper(x):
    return helper(x)


def helper(x):
    return closure(ONES)(x)


class Scorer:
    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x):
        return closure(self.weights)(x)

    def method(self, x):
        return closure(self.weights)(x)


class Slotted:
    __slots__ = ("weights",)

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x):
        return closure(self.weights)(x)


class Network(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(3, 2)
        nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return self.layer(x) * self.scale


def calling(network):
    return lambda x: network(x)


def changed(function, **attributes):
    """The same code in another module's eyes, with other globals."""
    return types.FunctionType(function.__code__, function.__globals__ | attributes, function.__name__)


PAIRS = {
    "a captured tensor": (lambda: closure(ONES), lambda: closure(ONES * 2)),
    "its type": (lambda: closure(ONES), lambda: closure(ONES.double())),
    "a captured number": (lambda: closure(ONES, 1.0), lambda: closure(ONES, 1.5)),
    "a captured array": (lambda: closure(np.ones(3)), lambda: closure(np.full(3, 2.0))),
    "a list of arrays": (lambda: closure([np.ones(3)]), lambda: closure([np.zeros(3)])),
    "a constant of the code": (lambda: lambda x: x * 2.0, lambda: lambda x: x * 3.0),
    "the sign of zero": (lambda: lambda x: x * 0.0, lambda: lambda x: x * -0.0),
    "an operation": (lambda: lambda x: x + x, lambda: lambda x: x * x),
    "a function of torch": (lambda: lambda x: torch.relu(x), lambda: lambda x: torch.tanh(x)),
    "a default": (lambda: with_default, lambda: lambda x, weights=ONES * 2: closure(weights)(x)),
    "a global number": (lambda: with_global, lambda: changed(with_global, SCALE=2.0)),
    "a helper function": (lambda: with_helper, lambda: changed(with_helper, helper=with_default)),
    "an object's attribute": (lambda: Scorer(ONES), lambda: Scorer(ONES * 2)),
    "a bound object": (lambda: Scorer(ONES).method, lambda: Scorer(ONES * 2).method),
    "an object without a dictionary": (lambda: Slotted(ONES), lambda: Slotted(ONES * 2)),
    "a partial's argument": (
        lambda: functools.partial(with_default, weights=ONES),
        lambda: functools.partial(with_default, weights=ONES * 2),
    ),
    "a network's weights": (lambda: calling(Network(1.0)), lambda: calling(_moved(Network(1.0)))),
    "a network's setting": (lambda: calling(Network(1.0)), lambda: calling(Network(2.0))),
    "a network's mode": (lambda: calling(Network(1.0).eval()), lambda: calling(Network(1.0).train())),
    "behind a decorator": (
        lambda: torch.no_grad()(closure(ONES)),
        lambda: torch.no_grad()(closure(ONES * 2)),
    ),
    "behind the compiler": (lambda: torch.compile(closure(ONES)), lambda: torch.compile(closure(ONES * 2))),
    "two attributes that change places": (
        lambda: _with_attributes(a=1, b=2),
        lambda: _with_attributes(a=2, b=1),
    ),
}


def _moved(network):
    with torch.no_grad():
        network.layer.bias.add_(1)
    return network


def _with_attributes(**attributes):
    model = Scorer(ONES)
    vars(model).update(attributes)
    return model


@pytest.mark.parametrize("name", PAIRS)
def test_whatever_a_function_refers_to_tells_it_apart(name):
    torch.manual_seed(0)
    one, other = PAIRS[name]
    torch.manual_seed(0)
    first = contents(one())
    torch.manual_seed(0)
    assert contents(one()) == first, "made again, it is the same"
    torch.manual_seed(0)
    assert contents(other()).parts != first.parts
    assert first.unchecked == ()


def test_what_refers_to_itself_is_read_once():
    def model(x):
        return model(x - 1) if x.sum() > 0 else known

    known = {"again": []}
    known["again"].append(known)
    assert contents(model) == contents(model)
    assert contents(model).unchecked == ()


def test_what_cannot_be_read_is_named():
    lock, opened = threading.Lock(), (i for i in range(3))
    found = contents(lambda x: (lock, opened, x))
    assert found.unchecked == ("captured lock: a _thread.lock", "captured opened: a builtins.generator")
    many = list(range(100_000))
    assert "more than 50,000 values" in contents(lambda x: many).unchecked[0]


def test_what_is_not_read_is_seen_in_the_scores(tmp_path):
    """Two functions with one code and one label on every probe, whose difference nothing shows."""

    class Hidden:
        def __init__(self, weights):
            self.ask = (w for w in itertools.repeat(weights))  # nobody can look into a generator

        def __call__(self, x):
            return closure(next(self.ask))(x)

    assert contents(Hidden(ONES)).unchecked == ("attribute ask: a builtins.generator",)
    certified(Hidden(ONES), tmp_path, 1)
    with pytest.raises(RunConflict, match="other scores") as caught:
        certified(Hidden(ONES * 2), tmp_path)
    assert "ask" in caught.value.why
    certified(Hidden(ONES + 1e-7), tmp_path)


def test_counters_and_caches_are_no_content(tmp_path):
    class Counting(Scorer):
        calls = 0

        def __call__(self, x):
            self.calls += 1
            return super().__call__(x)

    model = Counting(ONES)
    model.calls = 0
    certified(model, tmp_path, 1)
    assert model.calls > 0
    assert len(certified(model, tmp_path)) == 2
    assert read_run(tmp_path).settings["model"]["unchecked"] == ["attribute calls: changes when it is called"]


def test_a_torch_module_is_told_by_more_than_its_weights():
    net = nn.Linear(3, 2).eval()
    for model in (net, certify.wrap(net, mean=0.5), nn.Sequential(net).eval()):
        found = smoothed(model).identity([3])
        assert set(found) == {"digest", "function", "labels", "code", "unchecked", "python", "scores"}
        assert found["unchecked"] == []
        assert "structure" in found["code"]


def test_a_run_from_before_is_verified_and_not_gone_on_with(tmp_path):
    """Its settings say less of the function than is known today."""
    model = closure(ONES)
    run = certified(model, tmp_path / "now")
    old = {key: run.settings["model"][key] for key in ("digest", "function", "labels")}
    with open_run(tmp_path / "old", run.settings | {"model": old}, run.guarantee) as store:
        plan = read_run(tmp_path / "now").documents["plan"]
        store.put_document("plan", plan)
        for record in run:
            store.add(record)
    assert verify(tmp_path / "old", level=2).ok
    assert verify(tmp_path / "now", level=2).ok
    assert same_function(old, smoothed(model).identity([3]))
    with pytest.raises(RunConflict, match=r"model\.code"):
        certified(model, tmp_path / "old")


def test_a_report_shows_what_names_the_function_and_not_its_scores(tmp_path):
    import reports

    certified(closure(ONES), tmp_path)
    page = reports.build(tmp_path).html.read_text()
    assert "model.code.captured weights" in page
    assert "model.scores" not in page


def test_certificates_are_carried_over_from_the_very_function_only():
    run = smoothed(closure(ONES)).certify(X, n_max=200, seed=1)
    a, b = smoothed(closure(ONES)), smoothed(closure(ONES, 1e-6))
    assert len(transfer(run, a, b, X, samples=100, seed=2)) == 2
    with pytest.raises(InvalidSetting, match="certified classifier's model"):
        transfer(run, b, a, X, samples=100, seed=2)


def test_a_segmenting_function_is_read_too(tmp_path):
    def segmenter(scale):
        def model(x):
            side = x[:, 0] * scale + 1.0
            return torch.stack([-side, side], dim=1)

        return model

    def run(model, place, count):
        smoothed = certify.SmoothedSegmentation(model, 0.25, num_classes=2, batch_size=16)
        return smoothed.certify(torch.zeros(2, 1, 4, 4)[:count], n0=5, n=20, store=place)

    run(segmenter(1.0), tmp_path, 1)
    with pytest.raises(RunConflict, match="captured scale"):
        run(segmenter(2.0), tmp_path, 2)
    run(segmenter(1.0), tmp_path, 2)


PROGRAM = """
import torch, numpy as np, collections
names = {"red", "green", "blue", "cyan"}
table = collections.OrderedDict(a=np.arange(3), b={1: "x", "y": 2})
class Deep:
    kinds = frozenset(["u", "v", "w"])
    def __init__(self): self.table = table
    def __call__(self, x): return x * len(names & self.kinds)
from certify.contents import contents
print(sorted(contents(Deep()).parts.items()), contents(Deep()).unchecked)
"""


def test_digests_are_the_same_in_every_process():
    answers = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(answers) == 1
    assert answers.pop().strip().endswith("()")


def test_order_and_names_of_captured_things_do_not_hide_a_swap():
    first, second = torch.ones(2), torch.zeros(2)

    def made(first, second):
        return lambda x: (x * first, x + second)

    assert contents(made(first, second)).parts != contents(made(second, first)).parts
    assert contents(operator.itemgetter(1)).parts != contents(operator.itemgetter(2)).parts
    assert contents(functools.partial(max, itertools.count(1))) is not None
