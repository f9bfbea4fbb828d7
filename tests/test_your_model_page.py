"""docs/your-model.md is run as a reader would: every block, top to bottom, in an empty folder.

A section on a library that is not installed (or does not import beside this torch) is skipped by name; the
interface it relies on is then tested with a stand-in in tests/certify/test_wrapping.py.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from certify_cli.main import app
from tests.docs_pages import ROOT, SHELL, Block, blocks, commands, words

PAGE = ROOT / "docs" / "your-model.md"
#: What a section needs beside this project's own dependencies.
LIBRARIES = {
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "Hugging Face transformers": ("transformers",),
    "ONNX": ("onnx", "onnxruntime", "onnxscript"),
}
#: Certificates of many thousand samples show nothing here that a few hundred do not.
FEWER = ("--n-max", "300")


def sections() -> dict[str, list[Block]]:
    """The page's blocks by heading, in order."""
    text = PAGE.read_text(encoding="utf-8")
    starts = [(text.count("\n", 0, m.start()) + 1, m[1]) for m in re.finditer(r"^## (.+)$", text, re.M)]
    found: dict[str, list[Block]] = {name: [] for _, name in starts}
    for block in blocks(PAGE):
        found[max(s for s in starts if s[0] < block.line)[1]].append(block)
    return {name: parts for name, parts in found.items() if parts}


SECTIONS = sections()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader's folder and names, kept from section to section."""
    place = tmp_path_factory.mktemp("reader")
    before, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(place)
    sys.path.insert(0, str(place))
    yield {"__name__": "reader"}
    os.chdir(before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(place):
            del sys.modules[name]


def usable(library: str) -> str | None:
    """None, or why the library cannot be used here. Some fail with other errors than ImportError."""
    try:
        importlib.import_module(library)
    except Exception as error:
        return f"{library} does not import here: {type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", SECTIONS)
def test_section(name, reader):
    for library in LIBRARIES.get(name, ()):
        if reason := usable(library):
            pytest.skip(reason)
    for block in SECTIONS[name]:
        if block.language in SHELL:
            for command in commands(block.text):
                done = CliRunner().invoke(app, [*words(command)[1:], *FEWER])
                assert done.exit_code == 0, f"{command}\n{done.output}"
        else:
            if file := re.match(r"# (\w+\.py)$", block.text.splitlines()[0]):
                Path(file[1]).write_text(block.text, encoding="utf-8")
                importlib.invalidate_caches()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(block.text, block.name, "exec"), reader)
    if name == "Tables":
        check_tables(reader)


def check_tables(reader) -> None:
    """The two ways of certifying a table prove the same set, up to sampling."""
    standard = (
        reader["certify"]
        .Smoothed(reader["classifier"], sigma=0.5, data=reader["table"])
        .certify(reader["table"].x, n_max=2000, seed=1)
    )
    raw = reader["smoothed"].certify(reader["rows"], n_max=2000, seed=1)
    certified = [
        (a.radius, b.details["rho"] * 0.5) for a, b in zip(standard, raw, strict=True) if a.certified
    ]
    assert certified
    np.testing.assert_allclose(*np.array(certified).T, atol=0.12)


def test_every_section_has_something_to_run_and_every_library_a_section():
    assert set(LIBRARIES) <= set(SECTIONS)
    imported = {
        m for parts in SECTIONS.values() for b in parts for m in re.findall(r"^import (\w+)", b.text, re.M)
    }
    optional = {library for needed in LIBRARIES.values() for library in needed}
    assert imported - optional <= {"certify", "mynet", "numpy", "torch", "wrapped"}
    assert len(SECTIONS) >= 10
