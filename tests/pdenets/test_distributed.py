"""Two processes train the network that one process trains at the same global batch size."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from certify import checkpoints
from certify.data import load
from pdenets.distributed import Group
from pdenets.training import train

SCRIPT = """
import json, sys
from dataclasses import asdict
from certify.data import load
from pdenets.training import train
data, held = load("moons", split="train", limit=101), load("moons", split="test", limit=200)
result = train(data, held, out=sys.argv[1], **json.loads(sys.argv[2]))
print(json.dumps([asdict(m) for m in result.history]))
"""
SETTINGS = {"arch": "mlp", "sigma": 0.0, "epochs": 3, "batch_size": 40, "lr": 0.01}


def two_processes(folder, settings):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                           "OMP_NUM_THREADS": "1"}  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder / "two.pt"), json.dumps(settings)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    return [json.loads(text) for text in outputs]


def test_two_processes_follow_the_curve_of_one(tmp_path):
    held = load("moons", split="test", limit=200)
    one = train(load("moons", split="train", limit=101), held, out=tmp_path / "one.pt", **SETTINGS)
    first, second = two_processes(tmp_path, SETTINGS)
    assert first == second
    for alone, shared in zip(one.history, first, strict=True):
        assert shared["loss"] == pytest.approx(alone.loss, rel=1e-4)
        assert shared["accuracy"] == pytest.approx(alone.accuracy, abs=0.01)
    weights = [checkpoints.read(tmp_path / f"{name}.pt")[1] for name in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-4)


def test_shares_cover_every_batch_once_and_weights_restore_the_mean():
    rows = torch.arange(11)
    groups = [Group(rank, 3) for rank in range(3)]
    assert sorted(torch.cat([g.share(rows) for g in groups]).tolist()) == list(range(11))
    values = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = sum(g.weight(rows) * values[g.share(rows)].mean() for g in groups) / 3
    assert torch.allclose(mean, values.mean())
    assert Group(2, 3).share(rows[:2]).tolist() == [0, 1]  # fewer rows than processes
