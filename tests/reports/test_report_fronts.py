"""A report of a classifier behind a denoiser says so everywhere it says what is certified."""

from dataclasses import replace

import pytest

import reports
from certify.records import Run
from reports.fronts import denoiser_of, front_identity, front_sentences
from tests.reports.evidence_fixture import stored_run

MODEL = {
    "architecture": "cnn", "digest": "a" * 64,
    "denoiser": {"kind": "pdenets.denoisers.unet.DenoisingUNet", "architecture": "unet", "sigma": 0.25,
                 "digest": "d" * 64},
    "classifier": {"kind": "torch.nn.modules.container.Sequential", "digest": "c" * 64},
}  # fmt: skip
CHOICE = {"candidates": ["heat", "den.pt"], "chosen": "den.pt", "pilot_share": 0.1}


def behind(path, **more):
    stored = stored_run(path)
    settings = {**stored.run.settings, "model": MODEL, **more}
    return replace(stored, settings=settings, run=Run(stored.run.records, settings, stored.run.guarantee))


def test_page_and_card_name_both_parts(tmp_path):
    stored = behind(tmp_path / "run")
    reports.build(stored)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "denoiser unet, told sigma 0.25" in page
    assert "the classifier and the denoiser in front of it" in page
    text = (tmp_path / "run" / "card.md").read_text()
    for digest in "acd":
        assert digest * 64 in text
    assert "Neither part has this certificate without the other" in text


def test_a_choice_on_pilot_inputs_is_said_with_what_it_costs(tmp_path):
    stored = behind(tmp_path / "run", denoiser_choice=CHOICE, environment={"pilot_inputs": 40})
    text = " ".join(front_sentences(stored.run.settings))
    assert "chosen among 2 denoisers on 40 pilot inputs that are not among these inputs" in text


def test_without_a_denoiser_nothing_is_said(tmp_path):
    stored = stored_run(tmp_path / "run")
    assert denoiser_of(stored.run.settings) is None
    assert front_sentences(stored.run.settings) == []
    assert front_identity(stored.run.settings) == {}
    reports.build(stored)
    assert "denoiser" not in (tmp_path / "run" / "card.md").read_text()


@pytest.mark.parametrize("model", [
    None, 3, "x", [], {"denoiser": None}, {"denoiser": "heat"}, {"denoiser": {"sigma": "<b>"}},
    {"denoiser": {"kind": 5, "architecture": {"a": 1}}}, {"denoiser": {"kind": "x"}, "classifier": 4},
])  # fmt: skip
def test_settings_of_any_form_are_read_without_an_error(tmp_path, model):
    settings = {"model": model, "denoiser_choice": 3, "environment": None}
    denoiser_of(settings)
    front_sentences(settings)
    front_identity(settings)


def test_hostile_names_are_escaped(tmp_path):
    hostile = {**MODEL, "denoiser": {"kind": "a", "architecture": "<script>alert(1)</script>", "sigma": 0.25}}
    stored = behind(tmp_path / "run", model=hostile)
    reports.build(stored)
    assert "<script>alert" not in (tmp_path / "run" / "report.html").read_text()
