"""Exports: exact columns, and never a larger promise in print than in the record."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import jsonschema
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from certify.errors import InvalidInput, InvalidSetting, UnreadableFile
from certify.records import Record, Run, Status
from certify.store import open_run, read_run, records_digest
from certify.store.exports import CSV_COLUMNS, export, round_down, round_up, three_digits, write_export
from certify.store.manifest import read_manifest
from certify.store.schema import schema, violation
from tests.certify.sample_run import GUARANTEE, record, settings

RADII = st.floats(min_value=0, max_value=1e3, allow_subnormal=False)


def run(*records):
    return Run(records or [record(i) for i in range(8)], settings(), GUARANTEE)


@given(RADII)
def test_printed_numbers_are_on_the_safe_side_and_close(value):
    exact, step = Fraction(value), Fraction(1, 10**12)
    assert exact - step < Fraction(round_down(value)) <= exact
    assert exact <= Fraction(round_up(value)) < exact + step
    assert 0 <= exact - Fraction(three_digits(value)) <= exact / 100


@given(RADII)
def test_three_digits_look_like_the_literature(value):
    """Where {:.3} itself rounds down, the text is the same as theirs."""
    theirs = f"{value:.3}"
    if Decimal(theirs) <= Decimal(value):
        assert three_digits(value) == theirs
    else:
        assert float(three_digits(value)) < float(theirs)


def test_csv_has_the_promised_columns_and_reads_back():
    text = export(run(), "csv")
    assert text.splitlines()[0] == (
        "index,label,predict,status,radius,radius_upper,correct,p_lower,p_upper,samples,seconds"
    )
    frame = pd.read_csv(io.StringIO(text))
    assert tuple(frame.columns) == CSV_COLUMNS
    for row, r in zip(frame.itertuples(), run(), strict=True):
        assert row.index == r.index or row[1] == r.index
        assert row.label == r.target
        assert row.predict == (r.label if r.certified else -1)
        assert row.radius <= r.radius <= row.radius + 2e-12
        assert row.correct == int(bool(r.correct))
        assert row.p_lower <= r.p_lower
        assert row.p_upper >= r.p_upper


def test_csv_says_failed_and_leaves_unknown_labels_empty():
    text = export(run(Record(0, Status.FAILED), replace(record(1), target=None)), "csv")
    _, failed, unknown = text.splitlines()
    assert failed.startswith("0,,-1,failed,0,0,,")
    assert unknown.split(",")[1] == unknown.split(",")[6] == ""


def test_locuslab_log_is_read_by_the_literatures_way():
    rows = run(
        replace(record(0), status=Status.ABSTAINED, label=None, radius=0.0, seconds=3723.25), record(2)
    )
    text = export(rows, "locuslab")
    first, abstained, _ = text.splitlines()
    assert first == "idx\tlabel\tpredict\tradius\tcorrect\ttime"
    assert abstained == "0\t0\t-1\t0.0\t0\t1:02:03.250000"
    frame = pd.read_csv(io.StringIO(text), delimiter="\t")
    assert (frame["correct"] & (frame["radius"] >= 0.0)).mean() == sum(bool(r.correct) for r in rows) / 2
    assert pd.to_timedelta(frame["time"]).dt.total_seconds().iloc[0] == 3723.25


@pytest.mark.parametrize("bad", [Record(0, Status.FAILED, target=1), replace(record(1), target=None)])
def test_locuslab_refuses_what_it_has_no_word_for(bad):
    with pytest.raises(InvalidInput, match="locuslab"):
        export(run(bad), "locuslab")


def test_json_follows_the_shipped_schema():
    body = json.loads(export(run(), "json"))
    jsonschema.validate(body, schema("run"))
    assert violation(body, schema("run")) is None
    assert body["digest"] == records_digest(run())
    assert [Record.from_json(r) for r in body["records"]] == list(run())


def test_unknown_formats_are_named(tmp_path):
    with pytest.raises(InvalidSetting, match="xml"):
        export(run(), "xml")
    assert write_export(run(), "csv", tmp_path / "deep" / "x.csv").read_text() == export(run(), "csv")


def test_the_manifest_is_an_in_toto_statement_about_what_is_there(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        for i in range(4):
            store.add(record(i))
        digest = store.digest()
    manifest = read_manifest(tmp_path)
    jsonschema.validate(manifest, schema("manifest"))
    assert violation(manifest, schema("manifest")) is None
    subjects = {s["name"]: s["digest"]["sha256"] for s in manifest["subject"]}
    assert subjects["model"] == "a" * 64
    assert subjects["data"] == "b" * 64
    assert subjects["records"] == digest
    assert set(subjects) == {"model", "data", "records", "certificates.csv"}
    assert manifest["predicate"]["command"].startswith("certify radius")
    assert (tmp_path / "certificates.csv").read_text() == export(read_run(tmp_path).run, "csv")


def test_a_missing_or_broken_manifest_is_named(tmp_path):
    with pytest.raises(UnreadableFile, match="manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UnreadableFile, match="manifest"):
        read_manifest(tmp_path)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.text(max_size=3), st.just([])
)


@given(st.sampled_from(sorted(record(0).to_json())), JUNK)
@hypothesis_settings(deadline=None)
def test_the_built_in_checker_agrees_with_a_full_validator(name, junk):
    body = record(0).to_json() | {name: junk}
    valid = jsonschema.Draft202012Validator(schema("record")).is_valid(body)
    if isinstance(junk, float) and junk.is_integer():
        return  # 1.0 is an integer to JSON Schema and not to a record
    assert (violation(body, schema("record")) is None) == valid


def test_every_shipped_schema_is_a_schema():
    for name in ("record", "run", "manifest"):
        jsonschema.Draft202012Validator.check_schema(schema(name))
