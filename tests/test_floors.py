"""The house's plan: who may import whom, and what may be imported when."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS = {"certify", "pdenets", "attacks", "analysis", "reports", "certify_cli"}
MAY_IMPORT = {
    "certify": set(),
    "pdenets": {"certify"},
    "attacks": {"certify"},
    "analysis": {"certify"},
    "reports": {"certify"},
    "certify_cli": {"certify", "pdenets", "attacks", "analysis", "reports"},
}
HEAVY = {"torch", "numpy", "scipy", "pandas", "matplotlib", "statsmodels", "sklearn", "ray"}
FILES = [path for package in sorted(SIBLINGS) for path in sorted((ROOT / package).rglob("*.py"))]


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.split(".")[0]}
    return set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_point_downwards(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[package] | {package}
    for node in ast.walk(ast.parse(path.read_text())):
        assert imported(node) & SIBLINGS <= allowed, f"{path.name}, line {node.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.is_relative_to(ROOT / "certify_cli")], ids=lambda p: p.name
)
def test_the_command_imports_nothing_heavy_at_the_top(path):
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in top:
        assert not imported(node) & (HEAVY | SIBLINGS - {"certify_cli"}), f"{path.name}, line {node.lineno}"


@pytest.mark.parametrize(
    "module", ["bounds", "radii", "records", "sequential", "procedures", "store", "verification", "errors"]
)
def test_reading_evidence_needs_no_torch(module):
    code = f"import sys, certify.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_fit_in_the_head(path):
    lines = path.read_text().count("\n")
    assert lines <= 400, f"{lines} lines: look for the second concept"
