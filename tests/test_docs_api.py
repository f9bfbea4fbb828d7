"""The API reference is up to date, and every public name says what it claims and what it raises."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import certify
import certify.errors

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("certify", "pdenets", "attacks", "analysis", "reports", "certify_cli")
ERRORS = {n for n, v in vars(certify.errors).items() if inspect.isclass(v)}
#: Dotted words in docstrings that are no Python names: entry-point groups, file names.
NO_NAMES = {"certify.models", "certify.denoisers", "certify.py", "reports.py"}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_api", ROOT / "docs" / "build_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api = load_generator()
NAMES = [
    pytest.param(module, name, id=f"{module}.{name}")
    for modules in api.PAGES.values()
    for module in modules
    for name in api.public(module)
]


def test_the_committed_reference_is_up_to_date():
    stale = [name for name, text in api.pages().items() if api.read(name) != text]
    assert stale == [], "run: python docs/build_api.py"
    assert {p.name for p in api.PLACE.glob("*.md")} == set(api.pages())


def test_check_notices_a_page_that_differs(tmp_path, monkeypatch, capsys):
    for name, text in api.pages().items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(api, "PLACE", tmp_path)
    assert api.main(["--check"]) == 0
    (tmp_path / "attacks.md").write_text("old\n")
    (tmp_path / "removed.md").write_text("nothing public any more\n")
    assert api.main(["--check"]) == 1
    assert capsys.readouterr().err.count("out of date") == 2
    assert (tmp_path / "attacks.md").read_text() == "old\n"


def test_pages_hold_nothing_that_changes_between_machines():
    for name, text in api.pages().items():
        assert not re.search(r" at 0x|<function|<class|/home/|site-packages", text), name


def test_the_lazy_package_lists_what_it_offers():
    assert set(certify.__all__) == set(certify._HOME) | set(certify._MODULES)
    for name in certify.__all__:
        assert getattr(certify, name) is not None


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name_is_described(module, name):
    value = getattr(importlib.import_module(module), name)
    if not callable(value):
        return
    parts = [(name, value, inspect.getdoc(value) or "")]
    if inspect.isclass(value):
        assert not (value.__doc__ or "").startswith(f"{name}("), "a dataclass needs a docstring of its own"
        parts += [(f"{name}.{m}", f, api.described(value, m, f)) for m, f in api.members(value)]
    for part, function, text in parts:
        assert text, f"{part} has no docstring"
        assert text.strip()[-1] in ".:)", f"{part}: the docstring ends without a full stop"
        if inspect.isfunction(function):
            raised = set(re.findall(r"^\s+raise (\w+)\(", inspect.getsource(function), re.M)) & ERRORS
            assert all(error in text for error in raised), f"{part} does not say that it raises {raised}"


def docstrings():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path.relative_to(ROOT), ast.get_docstring(node) or ""


def resolves(reference: str) -> bool:
    parts = reference.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for part in parts[i:]:
            if not hasattr(found, part) and part not in getattr(found, "__dataclass_fields__", ()):
                return False
            found = getattr(found, part, found)
        return True
    return False


def test_every_name_that_a_docstring_refers_to_exists():
    pattern = re.compile(rf"``((?:{'|'.join(PACKAGES)})(?:\.\w+)+)")
    broken = {
        f"{path}: {reference}"
        for path, text in docstrings()
        for reference in pattern.findall(text)
        if reference not in NO_NAMES and not resolves(reference)
    }
    assert broken == set()


def test_a_reference_to_nothing_would_be_noticed():
    assert resolves("certify.records.Record.index")
    assert resolves("certify.noise")
    assert not resolves("certify.records.Rekord")
    assert not resolves("certify.no_such_module.thing")
