"""A record names the input it is about, by value."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from attacks import Threat, attack
from certify import Smoothed
from certify.errors import EvidenceFails, InvalidInput, InvalidSetting
from certify.inputs import INPUT, input_digest, inputs_digest, refuse_other_inputs
from certify.store import read_run
from certify.store.manifest import read_manifest
from certify.verification import verify


def test_the_digest_is_of_type_shape_and_values():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert input_digest(torch.from_numpy(x)) == input_digest(x)
    assert input_digest(x) == hashlib.sha256(b"<f4 (2, 3)\n" + x.tobytes()).hexdigest()
    others = [x + 1, x.reshape(3, 2), x.astype(np.float64), x[::-1]]
    assert len({input_digest(o) for o in [x, *others]}) == 5


def certify(path, x):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
        model[1].bias.zero_()
    g = Smoothed(model, sigma=0.25, num_classes=2, noise="gaussian", bounds=None, batch_size=32)
    return g.certify(x, mode="fixed", n0=10, n=100, store=path)


def test_a_run_names_its_inputs_and_refuses_others_when_resumed(tmp_path):
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    run = certify(tmp_path, x[:2])
    assert [r.details[INPUT] for r in run] == [input_digest(row) for row in x[:2]]
    subjects = {s["name"]: s["digest"]["sha256"] for s in read_manifest(tmp_path)["subject"]}
    assert subjects["data"] == inputs_digest(run)
    assert verify(tmp_path, expect={"data": subjects["data"]}).ok
    assert not verify(tmp_path, expect={"data": "0" * 64}).ok
    assert len(certify(tmp_path, x)) == 3
    changed = x.clone()
    changed[1] += 1e-3
    with pytest.raises(EvidenceFails, match="input 1 is not the one"):
        certify(tmp_path, changed)
    assert len(read_run(tmp_path).run) == 3
    refuse_other_inputs(run, {0: x[0]}, "here")


def test_runs_that_do_not_name_their_inputs_have_no_digest_of_them(tmp_path):
    assert inputs_digest([]) is None


@pytest.mark.parametrize("ids", [["0", "1"], ["٠", "١"], [0.0, 1.5], [None, 1], [0, 0], [-1, 0], [0, 2**63]])
def test_ids_that_are_no_row_numbers_are_refused(ids):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    g = Smoothed(model, sigma=0.25, num_classes=2, noise="gaussian", bounds=None, batch_size=32)
    with pytest.raises(InvalidSetting, match="ids"):
        g.certify(x, mode="fixed", n0=10, n=20, ids=ids)
    if ids != [0, 2**63]:
        with pytest.raises(InvalidInput, match="ids"):
            attack(model, x, threat=Threat("2", eps=0.1, bounds=None), preset="quick", ids=ids)
    assert len(g.certify(x, mode="fixed", n0=10, n=20, ids=np.array([3, 1]))) == 2
