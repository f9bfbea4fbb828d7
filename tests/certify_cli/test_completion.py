"""What the shell offers, as bash, zsh and fish ask for it."""

import os
import subprocess
import sys

import pytest

import attacks
from certify import registry
from certify.noise import NAMES
from certify.procedures import MODES, SCORES
from certify_cli import completion


def offered(shell: str, line: str) -> list[str]:
    """The words that ``certify`` offers at the end of a line."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    environment = (
        os.environ | asked | {"_CERTIFY_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_TESTING": "1"}
    )
    code = "import sys; sys.argv = ['certify']\nfrom certify_cli.main import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return ended.stdout.replace('"', " ").replace("\\n", " ").split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("certify radius --mode ", completion.MODES),
        ("certify radius --noise ", completion.NOISES),
        ("certify attack --preset ", completion.PRESETS),
        ("certify train --arch ", registry.names()),
        ("certify radius --mode de", ("decide",)),
    ],
)
def test_the_shell_offers_the_values(shell, line, names):
    assert set(names) <= set(offered(shell, line))


def test_what_is_offered_is_what_there_is():
    assert set(completion.MODES) == set(MODES)
    assert set(completion.SCORES) == set(SCORES)
    assert set(completion.PRESETS) == {*attacks.PRESETS, "autoattack"}
    assert set(completion.NOISES) - {"internal"} == set(NAMES) - {"anisotropic"}
    assert completion.architectures("conv") == ["convection-diffusion"]
    assert "heat" in completion.denoisers("")
