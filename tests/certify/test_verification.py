"""Verification: honest runs pass, and every forgery is named, even one with honest hashes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import certify.verification
from certify.errors import InvalidSetting, RunConflict
from certify.records import Run
from certify.store import open_run, read_run
from certify.verification import verify
from certify.verification.bounds import recompute
from certify.verification.replay import consistent
from certify.verification.witness import declare, plan_of
from tests.certify.sample_run import GUARANTEE, record, settings
from tests.certify.simulated_run import OPTIONS, SHARES, certify_votes, described, procedure, write

MODES = sorted(OPTIONS)


@pytest.fixture(scope="module", params=MODES)
def honest(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    return request.param, path, write(path, request.param)


def failed(result):
    return {check.name: check.detail for check in result.failures}


def test_an_honest_run_passes_both_levels(honest):
    mode, path, records = honest
    result = verify(path, level=2)
    assert result.ok, failed(result)
    assert any(r.certified for r in records)
    assert not all(r.certified for r in records)
    names = {c.name for c in result.checks}
    assert {"records", "manifest", "certificates.csv", "bounds", "radii"} <= names
    assert ("boundaries" in names) == (mode != "fixed")
    json.dumps(result.to_json(), allow_nan=False)


def forge(records, change):
    """The records with one certified one changed, and its index."""
    place = next(i for i, r in enumerate(records) if r.certified and r.p_lower < 0.95)
    return [change(r) if i == place else r for i, r in enumerate(records)], records[place].index


FORGERIES = {
    "a larger radius": lambda r: replace(r, radius=r.radius + 1e-6),
    "a radius ten times larger": lambda r: replace(r, radius=r.radius * 10 + 0.01),
    "a larger p_lower": lambda r: replace(r, p_lower=r.p_lower + 1e-6),
    "both, consistently": lambda r: replace(r, p_lower=0.98, radius=0.9, pb_upper=0.03),
    "another class": lambda r: replace(r, label=((r.label or 0) + 1) % 3),
    "a class that does not exist": lambda r: replace(r, label=7),
    "fewer votes": lambda r: replace(r, counts=tuple(c // 2 for c in r.counts)),
    "votes moved to the class": lambda r: replace(
        r, counts=tuple(c + 1 if i == r.label else max(0, c - 1) for i, c in enumerate(r.counts))
    ),
    "more votes than samples": lambda r: replace(r, counts=tuple(c + r.samples for c in r.counts)),
    "other samples": lambda r: replace(r, samples=r.samples - 1),
    "a smaller pb_upper": lambda r: replace(r, pb_upper=r.pb_upper / 2),
    "a larger radius_upper": lambda r: replace(r, radius_upper=r.radius_upper + 1e-4),
    "a smaller p_upper": lambda r: replace(r, p_upper=r.p_upper - 1e-3),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_named(honest, name):
    _, path, records = honest
    forged, index = forge(records, FORGERIES[name])
    stored = read_run(path)
    stored = replace(stored, run=Run(forged, stored.settings, stored.guarantee))
    found = [detail for _, ok, detail in recompute(stored) if not ok]
    assert found, f"{name} was believed"
    assert any(f"input {index}:" in detail for detail in found), found


@pytest.mark.parametrize("mode", MODES)
def test_hashes_made_to_fit_a_forgery_do_not_save_it(tmp_path, mode):
    forged, index = forge(certify_votes(procedure(mode)), FORGERIES["a larger p_lower"])
    write(tmp_path, mode, forged)
    assert verify(tmp_path, level=1).ok
    assert f"input {index}:" in failed(verify(tmp_path, level=2))["bounds"]


@pytest.mark.parametrize("mode", MODES)
def test_a_smaller_alpha_is_not_what_the_counts_prove(tmp_path, mode):
    plan = procedure(mode)
    options = plan.settings() | {"alpha": 1e-5}
    write(tmp_path, mode, alpha=1e-5, mode_options=options)
    found = failed(verify(tmp_path))
    assert found
    assert "alpha" in " ".join(found.values())


@pytest.mark.parametrize("mode", MODES)
def test_an_alpha_that_the_procedure_did_not_have_is_named(tmp_path, mode):
    write(tmp_path, mode, alpha=0.01)
    assert "ran at alpha = 0.001, the run says 0.01" in " ".join(failed(verify(tmp_path)).values())


def lowered(plan):
    body = plan_of(plan)
    body["accept"] = [
        [max(n // 2 + 1, k - n // 50) for n, k in zip(body["looks"], row, strict=True)]
        for row in body["accept"]
    ]
    return body


@pytest.mark.parametrize("mode", ["decide", "grid", "radius"])
def test_boundaries_are_checked_by_their_error_not_by_their_origin(tmp_path, mode):
    plan = procedure(mode)
    write(tmp_path / "a", mode, plan_document=lowered(plan))
    assert "wrongly reached with probability" in failed(verify(tmp_path / "a"))["boundaries"]
    write(tmp_path / "b", mode, plan_document={"looks": [1]})
    assert "malformed" in failed(verify(tmp_path / "b"))["boundaries"]
    write(tmp_path / "c", mode, plan_document=False)
    assert "no table" in failed(verify(tmp_path / "c"))["boundaries"]
    other = plan_of(procedure(mode, n_max=800))
    write(tmp_path / "d", mode, plan_document=other)
    assert "looks must increase" in failed(verify(tmp_path / "d"))["boundaries"]


def test_a_mode_without_second_arithmetic_is_not_waved_through(tmp_path):
    write(tmp_path, "fixed", scores="imaginary")
    assert "no second arithmetic" in failed(verify(tmp_path))["bounds"]


@pytest.fixture
def plain(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.put_arrays(
            "adversarial", {"index": np.arange(1), "x": np.zeros((1, 2)), "x_adv": np.ones((1, 2))}
        )
        for i in range(6):
            store.add(record(i))
    return tmp_path


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage", "named"),
    [
        ("certificates.csv", lambda p: rewrite(p / "certificates.csv", "0,0,0", "0,0,1"), "does not say"),
        ("certificates.csv", lambda p: (p / "certificates.csv").unlink(), "missing"),
        ("manifest", lambda p: rewrite(p / "manifest.json", '"alpha": 0.001', '"alpha": 0.0001'), "alpha"),
        ("manifest", lambda p: rewrite(p / "manifest.json", "a" * 64, "f" * 64), "model"),
        ("manifest", lambda p: rewrite(p / "manifest.json", '"certified": ', '"certified": 1'), "certified"),
        ("manifest", lambda p: rewrite(p / "manifest.json", "certify radius", "certify demo"), "settings"),
        (
            "manifest",
            lambda p: rewrite(p / "manifest.json", '"batch_size": 100', '"batch_size": 7'),
            "settings",
        ),
        ("manifest schema", lambda p: rewrite(p / "manifest.json", "in-toto.io", "example.org"), "_type"),
        ("manifest", lambda p: (p / "manifest.json").write_text("{"), "cannot be read"),
        ("manifest", lambda p: (p / "manifest.json").unlink(), "cannot be read"),
        ("arrays", lambda p: (p / "adversarial.npz").write_bytes(b"x"), "not the file"),
        ("records", lambda p: (p / "records.sqlite").write_bytes(b"x" * 4096), "damaged"),
        ("records", lambda p: (p / "records.sqlite").unlink(), "no run"),
    ],
)
def test_damage_is_named_at_level_one(plain, name, damage, named):
    assert verify(plain, level=1).ok
    damage(plain)
    found = failed(verify(plain, level=1))
    assert name in found
    assert named in found[name]


def test_a_stale_manifest_is_named_and_mended_by_resuming(plain):
    store = open_run(plain, settings(), GUARANTEE)
    store.add(record(6))
    store.close()
    found = failed(verify(plain, level=1))
    assert "manifest" in found
    assert "certificates.csv" in found
    open_run(plain, settings(), GUARANTEE).__exit__(None, None, None)
    assert verify(plain, level=1).ok


def test_another_model_or_data_set_is_named(plain):
    assert verify(plain, level=1, expect={"model": "a" * 64, "data": "b" * 64}).ok
    found = failed(verify(plain, level=1, expect={"model": "c" * 64, "data": "b" * 64}))
    assert list(found) == ["same model"]


def fresh_votes(shares, n=1000, seed=11):
    def replay(records):
        rng = np.random.default_rng(seed)
        out = {}
        for r in records:
            share = (list(shares) * 2)[r.index]
            p = np.full(3, (1 - share) / 2)
            p[r.index % 3] = share
            out[r.index] = rng.multinomial(n, p).tolist()
        return out

    return replay


def test_replay_agrees_with_an_honest_run_and_refutes_another_classifier(honest):
    _, path, records = honest
    assert verify(path, level=3, replay=fresh_votes(SHARES), seed=0).ok
    certified, said = [r for r in records if r.certified], read_run(path).settings
    for seed in range(50):
        assert consistent(certified, fresh_votes(SHARES, seed=seed)(certified), said) is None
    swapped = [0.2 if s > 0.9 else s for s in SHARES]
    found = failed(verify(path, level=3, replay=fresh_votes(swapped), seed=0))
    assert "with fresh noise" in found["replay"]
    assert "not sampled again" in (consistent(certified, {}, said) or "")


def test_wrong_calls_are_refused(plain):
    for wrong in ({"level": 4}, {"level": 3}, {"level": 3, "replay": dict, "subset": 0}):
        with pytest.raises(InvalidSetting):
            verify(plain, **wrong)


def test_levels_one_and_two_need_no_torch(honest):
    _, path, _ = honest
    code = (
        f"import sys; from certify.verification import verify; r = verify({str(path)!r}, level=2)\n"
        "assert r.ok; heavy = {'torch', 'scipy', 'pandas'} & set(sys.modules); assert not heavy, heavy\n"
        "ours = [m for m in sys.modules if m.startswith('certify.')]\n"
        "shared = {'certify.' + m for m in 'bounds radii geometry sequential walks nested'.split()}\n"
        "assert not shared & set(ours), shared & set(ours)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_second_arithmetic_imports_nothing_of_the_first():
    folder = Path(certify.verification.__file__).parent
    allowed = {
        "certify.verification.independent",
        "certify.records",
        "certify.canonical",
        "certify.errors",
        "certify.verification.witness",
        "certify.store.read",
    }
    allowed |= {
        "certify.verification.audit",
        "certify.verification.dense",
        "certify.verification.replay",
        "certify.verification.soft",
        "certify.verification.timed",
        "certify.verification.gambler",
        "certify.verification.plan",
        "certify.verification.population",
        "certify.verification.ball",
        "certify.verification.carried",
        "certify.verification.randomised",
        "certify.verification.rivals",
        "certify.verification.settings",
        "certify.verification.sides",
        "certify.store",
    }
    for name in (
        "timed",
        "gambler",
        "independent",
        "plan",
        "audit",
        "bounds",
        "carried",
        "replay",
        "ball",
        "rivals",
        "sides",
        "settings",
        "soft",
        "dense",
        "witness",
    ):
        tree = ast.parse((folder / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert not module.startswith("certify") or module in allowed, (name, module)
                assert not module.startswith(("scipy", "torch"))
            if isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] in {"scipy", "torch"} for a in node.names)


def test_settings_of_the_simulated_runs_are_those_of_the_procedure():
    plan = procedure("grid")
    assert described("grid", plan)["mode_options"]["n_max"] == 1000


def test_boundaries_are_declared_once(tmp_path):
    plan, other = procedure("grid"), procedure("grid", n_max=800)
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        declare(store, procedure("fixed"))
        assert store.document("plan") is None
        declare(store, plan)
        declare(store, plan)
        assert store.document("plan") == plan_of(plan)
        with pytest.raises(RunConflict, match="other boundaries"):
            declare(store, other)
