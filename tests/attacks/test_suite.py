import math
import random

import numpy as np
import pytest
import torch

from attacks import AttackStatus, Budget, Threat, attack
from certify.errors import CertifyError, InvalidSetting, NondeterministicModel
from tests.attacks.models import bumpy, linear, linear_distance
from tests.attacks.standin import TinySmoothed


def inputs(n=24, dim=12, seed=5):
    return torch.rand((n, dim), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_quick_never_breaks_what_a_linear_model_cannot_lose(p):
    model, x = linear(2, 20), inputs(40, 20) * 2 - 1
    y = model(x).argmax(1)
    exact = linear_distance(model, x, y, p)
    eps = float(exact.median())
    run = attack(model, x, y, threat=Threat(p, eps, bounds=None), preset="quick", seed=0)
    for outcome, far in zip(run, exact.tolist(), strict=True):
        if outcome.broken:
            assert far <= eps * (1 + 1e-5)
            assert outcome.distance <= eps * (1 + 1e-6)
        elif far < 0.999 * eps:
            raise AssertionError(f"an input at distance {far} survived eps {eps}")


def test_clean_errors_are_not_attacked_and_labels_default_to_the_model():
    model, x = linear(3, 12), inputs()
    wrong = (model(x).argmax(1) + 1) % 3
    run = attack(model, x, wrong, threat=Threat(2, 0.1), preset="quick")
    assert run.counts()["clean_error"] == len(x)
    assert all(o.distance is None for o in run)
    assert attack(model, x, threat=Threat(2, 1e-5), preset="quick").clean_accuracy() == 1.0


def state(model):
    return (
        [m.training for m in model.modules()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(),  # noqa: NPY002
    )  # fmt: skip


def same(a, b):
    grads = all((p is None and q is None) or torch.equal(p, q) for p, q in zip(a[1], b[1], strict=True))
    return a[0] == b[0] and grads and torch.equal(a[2], b[2]) and a[3] == b[3] and a[4] == b[4]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_state_come_back_untouched(fails):
    model = bumpy()
    model.train()
    model[1].eval()  # a BatchNorm that the user froze
    model[0].weight.grad = torch.ones_like(model[0].weight)
    statistics = model[1].running_mean.clone()
    before = state(model)
    if fails:
        calls = []

        def broken(module, args):
            calls.append(1)
            if len(calls) > 8:
                raise RuntimeError("out of memory")

        model.register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            attack(model, inputs(), threat=Threat(2, 0.3), preset="quick")
    else:
        attack(model, inputs(), threat=Threat(2, 0.3), preset="quick")
    assert same(before, state(model))
    assert torch.equal(statistics, model[1].running_mean)


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_verdicts_do_not_depend_on_the_batch(p):
    model, x = bumpy(), inputs(30)
    y = model(x).argmax(1)
    runs = [
        attack(model, x, y, threat=Threat(p, 0.12), preset="quick", seed=3, budget=Budget(batch_size=b))
        for b in (1, 7, 64)
    ]
    verdicts = [[(o.status, o.prediction) for o in run] for run in runs]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert 0 < runs[0].counts()["broken"] < 30


def test_known_outcomes_are_kept_and_new_ones_reported():
    model, x = bumpy(), inputs(10)
    seen = []
    first = attack(model, x[:4], threat=Threat(2, 0.2), preset="quick", ids=range(4), on_outcome=seen.append)
    assert [o.index for o in seen] == [0, 1, 2, 3]
    seen.clear()
    known = {o.index: o for o in first}
    run = attack(model, x, threat=Threat(2, 0.2), preset="quick", known=known, on_outcome=seen.append)
    assert [o.index for o in seen] == [4, 5, 6, 7, 8, 9]
    assert run[2] is first[2]
    alone = attack(model, x, threat=Threat(2, 0.2), preset="quick")
    assert [o.status for o in run] == [o.status for o in alone]


def test_progress_reports_the_surviving_share():
    model, x = bumpy(), inputs(10)
    seen = []
    attack(model, x, threat=Threat(2, 0.3), preset="quick", progress=seen.append, budget=Budget(batch_size=5))
    assert seen[-1].total == 10
    assert all(0 <= p.surviving <= 1 for p in seen)
    assert len({p.stage for p in seen}) >= 2


def test_cost_is_counted_per_input():
    model, x = bumpy(), inputs(6)
    wrong = model(x).argmax(1)
    wrong[0] = (wrong[0] + 1) % 4
    run = attack(model, x, wrong, threat=Threat("inf", 1e-4), preset="quick")
    assert run[0].forwards == 1
    assert run[0].backwards == 0
    assert run[1].backwards == 20 + 21
    assert run[1].forwards > run[1].backwards


def test_scores_that_are_not_numbers_are_an_error():
    model, x = linear(3, 12), inputs(3)
    y = model(x).argmax(1)
    poisoned = x[1].clone()

    def network(z):
        return torch.where((z == poisoned).all(1, keepdim=True), math.nan, model(z))

    run = attack(network, x, y, threat=Threat(2, 1e-4), preset="quick")
    assert [o.status for o in run][1] is AttackStatus.ERROR
    assert "finite" in run[1].details["error"]


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="strongest"),
        lambda m, x: attack(m, x, threat=Threat(2), preset="quick"),
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="minimal"),
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="smoothed"),
        lambda m, x: attack(TinySmoothed(m, 0.1, 4), x, threat=Threat(2, 0.1), preset="quick"),
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="quick", ids=[0] * len(x)),
        lambda m, x: attack(m, x + 5, threat=Threat(2, 0.1), preset="quick"),
        lambda m, x: attack(m, x, torch.full((len(x),), 9), threat=Threat(2, 0.1), preset="quick"),
        lambda m, x: attack("resnet", x, threat=Threat(2, 0.1), preset="quick"),
        lambda m, x: attack(lambda z: z.sum(1), x, threat=Threat(2, 0.1), preset="quick"),
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="quick", budget=Budget(tries=0)),
        lambda m, x: attack(m, x, threat=Threat(2, 0.1), preset="quick", budget=Budget(alpha=1.0)),
    ],
)
def test_mistakes_name_cause_and_remedy(call):
    with pytest.raises(CertifyError) as error:
        call(bumpy(), inputs(3))
    assert error.value.why
    assert error.value.remedy


def test_a_random_model_is_refused():
    model = linear(3, 12)
    with pytest.raises(NondeterministicModel):
        attack(lambda x: model(x + torch.randn_like(x)), inputs(3), threat=Threat(2, 0.1), preset="quick")


def test_presets_reject_a_threat_they_cannot_use():
    with pytest.raises(InvalidSetting, match="perturbation size"):
        attack(bumpy(), inputs(3), threat=Threat("inf"), preset="quick")
