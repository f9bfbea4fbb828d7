"""What a newcomer reads first: the help of the verbs, in groups, on a narrow terminal."""

import re
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from certify_cli.main import app
from certify_cli.panels import PANELS

VERBS = get_command(app).commands
#: From this many options on, one list is too long to read.
LONG = 12


def options_of(verb):
    return {p.name: p for p in VERBS[verb].params if p.param_type_name == "option"}


@pytest.mark.parametrize("verb", sorted(PANELS))
def test_every_option_of_a_grouped_verb_has_its_panel_once(verb):
    placed = [name for names in PANELS[verb].values() for name in names]
    assert len(placed) == len(set(placed))
    missing = set(options_of(verb)) - set(placed)
    assert not missing, f"give {missing} a panel in certify_cli/panels.py"
    assert set(placed) - set(options_of(verb)) <= {"help", "arch_args", "trust"}, (
        "a panel names an option that is gone"
    )


def test_no_long_verb_is_one_flat_list():
    assert {verb for verb in VERBS if len(options_of(verb)) >= LONG} <= set(PANELS)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_is_whole_at_any_width(verb, width):
    done = CliRunner().invoke(
        app, [verb, "--help"], env={"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    )
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= width
    for option in options_of(verb).values():
        assert re.search(rf"{option.opts[0]}\b", done.stdout), option.opts[0]
    for panel in PANELS.get(verb, {}):
        assert panel in done.stdout
    assert "…" not in done.stdout, "a name or a type is cut off"
    assert "<bool>" not in done.stdout, "a flag takes no value"


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "certify_cli", "radius", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: certify radius" in done.stdout
    assert "__main__" not in done.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "certify_cli", "radius", "--colour"], capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "Usage: certify radius" in refused.stderr
