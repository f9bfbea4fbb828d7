"""The keys of every --json answer are unchanged: scripts of users read them.

FREEZE=1 pytest tests/certify_cli/test_frozen_json.py      after a change that is meant
"""

import json
import os
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("frozen_json.json")


@pytest.fixture(scope="module")
def answers(cli, checkpoint, tmp_path_factory):
    """What each verb prints with --json, in an order in which one run serves all."""
    place = tmp_path_factory.mktemp("frozen")
    run, shards = place / "run", [place / "a", place / "b"]
    radius = ("radius", "--model", checkpoint, "--sigma", 0.25, "--limit", 4, "--n-max", 500, "--seed", 1)
    asked = {
        "radius": (*radius, "--out", run),
        "radius, first shard": (*radius, "--shard", "1/2", "--out", shards[0]),
        "radius, second shard": (*radius, "--shard", "2/2", "--out", shards[1]),
        "merge": ("merge", *shards, "--out", place / "merged"),
        "attack of a run": ("attack", run, "--limit", 1, "--seed", 1),
        "attack of the base model": (
            "attack", "--model", checkpoint, "--base", "--eps", 0.3, "--limit", 1, "--preset", "quick",
        ),
        "bounds": ("bounds", run, "--points", 30, "--draws", 20),
        "compare": ("compare", run, "--points", 30),
        "plan": ("plan", "--model", checkpoint, "--sigma", 0.25, "--pilot", 2, "--pilot-samples", 10),
        "population": (
            "population", "--model", checkpoint, "--sigma", 0.25, "--radius", 0.1, "--limit", 8,
            "--samples", 10, "--seed", 1, "--out", place / "population",
        ),
        "verify": ("verify", run),
    }  # fmt: skip
    found = {}
    for name, words in asked.items():
        done = cli(*words, "--json")
        assert done.exit_code == 0, (name, done.output)
        found[name] = json.loads(done.stdout)
    return found


def keys(answer):
    """The names in an answer, at every depth; what stands there may differ between machines."""
    if isinstance(answer, dict):
        return {name: keys(value) for name, value in sorted(answer.items())}
    if isinstance(answer, list):
        return [keys(answer[0])] if answer else []
    return ""


def test_the_keys_of_every_answer_are_unchanged(answers):
    found = {name: keys(answer) for name, answer in answers.items()}
    if os.environ.get("FREEZE"):
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(FILE.read_text())
