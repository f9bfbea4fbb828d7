"""What a stranger's installation and a forge rely on, held against the code."""

import ast
import re
import sys
from pathlib import Path

import certify

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("certify", "pdenets", "attacks", "analysis", "reports", "certify_cli")
#: What a module is called where its distribution has another name; markupsafe is jinja2's own.
DISTRIBUTION = {"PIL": "pillow", "sklearn": "scikit-learn", "markupsafe": "jinja2"}
#: Imported where the user has it, and never installed by this project: it would replace torch.
THE_USERS_OWN = {"torchvision"}


def test_every_package_ships_its_types():
    assert [p for p in PACKAGES if not (ROOT / p / "py.typed").is_file()] == []


def test_the_citation_names_the_version_of_the_code():
    said = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert said is not None
    assert said.group(1) == certify.__version__


def test_a_landing_is_linted():
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    assert steps.index("make lint") < steps.index("make test")


def imported() -> set[str]:
    """Top-level names of every import of the packages, also inside functions."""
    found: set[str] = set()
    for path in (p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    return found


def test_what_the_packages_import_is_declared():
    declared = (ROOT / "pyproject.toml").read_text().lower()
    foreign = imported() - {*PACKAGES, *sys.stdlib_module_names} - THE_USERS_OWN
    names = {DISTRIBUTION.get(m, m).lower().replace("_", "-") for m in foreign}
    assert {name for name in names if f'"{name}' not in declared} == set()
