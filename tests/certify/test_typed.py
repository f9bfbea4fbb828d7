"""What a run directory says is read through schemas: types, sizes and names that a reader may rely on."""

from __future__ import annotations

import copy
import math

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from certify.canonical import MAX_DEPTH, canonical, parse
from certify.errors import CorruptRun, InvalidInput
from certify.store import open_run
from certify.store.schema import schema, violation
from certify.store.typed import (
    attack_fault,
    document_fault,
    need,
    record_fault,
    session_fault,
    settings_fault,
)
from tests.certify.sample_run import GUARANTEE, record, settings

SCHEMAS = ("record", "run", "manifest", "settings", "session", "attack", "pixel_attack", "ledger", "bounds",
           "contradictions", "residual_gap", "maps")  # fmt: skip
ATTACK = {"index": 0, "target": 1, "smoothed": True, "norm": "2", "eps": None, "preset": "smoothed",
          "clean_correct": True, "status": "broken", "distance": 0.1}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_shipped_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.floats(allow_nan=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["settings", "attack", "ledger", "maps", "bounds"])
@given(data=st.data())
@hypothesis_settings(deadline=None, max_examples=40)
def test_the_checker_agrees_with_a_full_validator_on_values_put_anywhere(name, data):
    body = {"settings": settings(), "attack": ATTACK, "ledger": {"claims": []}, "maps": {"fields": []},
            "bounds": {"results": []}}[name]  # fmt: skip
    key = data.draw(st.sampled_from([*body, "other"]))
    value = data.draw(JSON)
    if _whole_float(value):
        return  # 1.0 is an integer to JSON Schema and not here
    body = copy.deepcopy(body) | {key: value}
    valid = jsonschema.Draft202012Validator(schema(name)).is_valid(body)
    assert (violation(body, schema(name)) is None) == valid


def _whole_float(value):
    if isinstance(value, dict | list):
        return any(_whole_float(v) for v in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and (value.is_integer() or math.isinf(value))


@pytest.mark.parametrize(
    "text",
    [
        "1" * 40, "-" + "9" * 41, '{"a":' + "1" * 5000 + "}", "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "NaN", "[Infinity]", "1e999", "-1E+400", '{"a":1,"b":{"c":1,"c":2}}', "", "{", '"\\x"', "01",
    ],
)  # fmt: skip
def test_json_that_no_run_holds_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


def test_json_that_a_run_holds_is_read(tmp_path):
    for value in (
        {"a": [1, 2.5, None, True, "x" * 100_000, "1" * 60, '["\\"{' * 50]},
        2**127,
        1e-300,
        "\ud800",
    ):
        assert parse(canonical(value)) == value
    assert math.isinf(parse("[Infinity]", strict=False)[0])
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"sigma": "wide"}, "settings.sigma"),
        ({"sigma": 0}, "settings.sigma"),
        ({"sigma": True}, "settings.sigma"),
        ({"alpha": None}, "settings.alpha"),
        ({"alpha": 2}, "settings.alpha"),
        ({"norm": "two"}, "settings.norm"),
        ({"norm": "2; rm"}, "settings.norm"),
        ({"noise": []}, "settings.noise"),
        ({"num_classes": 2.5}, "settings.num_classes"),
        ({"num_classes": 10**11}, "settings.num_classes"),
        ({"input_shape": [2, -1]}, "settings.input_shape[1]"),
        ({"input_shape": "2"}, "settings.input_shape"),
        ({"bounds": [0]}, "settings.bounds"),
        ({"model": 3}, "settings.model"),
        ({"model": {"path_name": []}}, "settings.model.path_name"),
        ({"data": {"classes": [1]}}, "settings.data.classes[0]"),
        ({"data": {"classes": ["x" * 10_001]}}, "settings.data.classes[0]"),
        ({"versions": {"torch": 3}}, "settings.versions.torch"),
        ({"versions": 3}, "settings.versions"),
        ({"environment": []}, "settings.environment"),
        ({"environment": {"hardware": 3}}, "settings.environment.hardware"),
        ({"mode_options": {"n": -1}}, "settings.mode_options.n"),
        ({"mode_options": {"n_max": 10**30}}, "settings.mode_options.n_max"),
        ({"noise_settings": {"lipschitz": "x"}}, "settings.noise_settings.lipschitz"),
        ({"task": "segmentation", "mode_options": None}, "settings.mode_options"),
        ({"task": "junk"}, "settings.task"),
        ({"task": "Segmentation"}, "settings.task"),
        ({"task": 3}, "settings.task"),
        ({"task": ["segmentation"]}, "settings.task"),
        ({"command": {"a": 1}}, "settings.command"),
    ],
)
def test_settings_that_no_run_has_are_named_and_never_written(tmp_path, change, where):
    body = settings(**change)
    assert where in (settings_fault(body) or "")
    with pytest.raises(InvalidInput, match="cannot be written"):
        open_run(tmp_path, body, GUARANTEE)
    assert not (tmp_path / "records.sqlite").exists()


def test_settings_of_honest_runs_have_no_fault():
    assert settings_fault(settings()) is None
    assert session_fault({"command": "x", "model": {"path_name": "m.pt"}, "data": {"limit": 3}}) is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"look": "x"}, "details.look"),
        ({"look": None}, "details.look"),
        ({"look": -1}, "details.look"),
        ({"look": 10**30}, "details.look"),
        ({"look": True}, "details.look"),
        ({"target": "0"}, "details.target"),
        ({"histogram": [[1]]}, "details.histogram[0]"),
        ({"histogram": [[1, -1]]}, "details.histogram[0][1]"),
        ({"selection_counts": {}}, "details.selection_counts"),
        ({"source": {}}, "details.source"),
        ({"maps": 3}, "details.maps"),
        ({"pixels": "=1+1"}, "details.pixels"),
    ],
)
def test_details_of_a_record_have_their_types(change, where):
    body = record(0).to_json()
    assert record_fault(body, settings()) is None
    assert where in (record_fault(body | {"details": change}, settings()) or "")


@pytest.mark.parametrize(
    "name", ["index", "label", "target", "radius", "p_lower", "samples", "counts", "seconds"]
)
@pytest.mark.parametrize("junk", ["x", [[]], {}, True, -1, 10**38, math.nan, math.inf])
def test_numbers_of_a_record_are_numbers(name, junk):
    if (name, junk) == ("radius", 10**38):
        return  # a number like any other: level 2 says whether it was proved
    assert record_fault(record(0).to_json() | {name: junk}, settings())


def test_a_record_of_pixels_counts_pixels():
    body = record(0).to_json()
    assert "details.pixels is missing" in (record_fault(body, settings(task="segmentation")) or "")


@pytest.mark.parametrize(
    "name", ["index", "status", "norm", "eps", "distance", "prediction", "seconds", "details"]
)
def test_attack_outcomes_have_their_types(name):
    assert attack_fault(ATTACK, settings()) is None
    for junk in ("", [], math.nan):
        if (name, junk) != ("eps", None):
            assert attack_fault(ATTACK | {name: junk}, settings())
    assert attack_fault({k: v for k, v in ATTACK.items() if k != "target"}, settings())


def test_documents_that_readers_take_apart_have_their_types():
    assert document_fault("notes", [1]) is None
    for name in ("ledger", "bounds", "contradictions", "residual_gap", "maps"):
        assert document_fault(name, []) is not None
        assert document_fault(name, {}) is not None
    assert "claims[0]" in (document_fault("ledger", {"claims": [3]}) or "")


def test_what_a_reader_needs_is_asked_for_in_one_place():
    need(settings(), ["alpha", "noise"], "the run")
    with pytest.raises(CorruptRun, match="does not say its dtype, norm"):
        need(settings(), ["alpha", "dtype", "norm"], "the run")
