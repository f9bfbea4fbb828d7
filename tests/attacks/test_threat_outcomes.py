import json
import math

import numpy as np
import pytest

from attacks import AttackOutcome, AttackRun, AttackStatus, Threat
from certify.errors import InvalidSetting


@pytest.mark.parametrize(
    ("norm", "name"), [(1, "1"), ("l2", "2"), (2.0, "2"), ("inf", "inf"), (math.inf, "inf")]
)
def test_norms_have_one_spelling(norm, name):
    assert Threat(norm).norm_name == name
    assert Threat(norm) == Threat(name)


@pytest.mark.parametrize(
    "bad", [{"norm": 3}, {"norm": "l0"}, {"norm": 2, "eps": 0.0}, {"norm": 2, "eps": math.nan},
            {"norm": 2, "eps": -1}, {"norm": 2, "bounds": (1, 0)}, {"norm": 2, "bounds": (0, math.inf)}]
)  # fmt: skip
def test_an_impossible_threat_names_the_remedy(bad):
    with pytest.raises(InvalidSetting) as error:
        Threat(**bad)
    assert error.value.remedy


def outcome(index, status, **more):
    values = {
        "target": 1,
        "smoothed": False,
        "norm": "2",
        "eps": 0.5,
        "preset": "quick",
        "clean_correct": True,
    }
    return AttackOutcome(index=index, status=status, **(values | more))


def test_outcomes_survive_json():
    first = outcome(3, AttackStatus.BROKEN, distance=0.25, prediction=2, details={"counts": [1, 2]})
    again = AttackOutcome.from_json(json.loads(json.dumps(first.to_json())))
    assert again == first
    assert again.broken


def test_a_run_counts_survivors_only():
    run = AttackRun(
        [
            outcome(0, AttackStatus.SURVIVED),
            outcome(1, AttackStatus.BROKEN, distance=0.1, adversarial=np.ones((2,), np.float32)),
            outcome(2, AttackStatus.UNCONFIRMED),
            outcome(3, AttackStatus.CLEAN_ERROR, clean_correct=False),
        ],
        Threat(2, eps=0.5),
        "quick",
    )
    estimate = run.robust_accuracy()
    assert estimate.value == 0.25
    assert estimate.low < 0.25 < estimate.high
    assert run.clean_accuracy() == 0.75
    assert run.counts()["unconfirmed"] == 1
    assert run.adversarials["index"].tolist() == [1]
    assert run.adversarials["x_adv"].shape == (1, 2)
    frame = run.frame()
    assert list(frame["status"]) == ["survived", "broken", "unconfirmed", "clean_error"]


def test_an_empty_run_has_no_accuracy():
    with pytest.raises(InvalidSetting):
        AttackRun([], Threat(2, eps=0.5), "quick").robust_accuracy()
