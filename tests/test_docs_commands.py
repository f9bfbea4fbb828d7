"""Every command and every Python block of the documentation is parsed, and run where it can be.

Parsing is against the real command: a renamed option or a missing argument fails. The pages are then
run top to bottom in an empty folder, with the substitutes declared below and no others.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from certify_cli.main import app
from tests import published
from tests.docs_pages import PAGES, ROOT, SHELL, Block, blocks, commands, inline_commands, words
from tests.docs_pages import workflow_commands as steps_of


@dataclass(frozen=True)
class Substitute:
    """What is run in place of what a page says, and why."""

    pattern: str
    replacement: str
    why: str


#: Applied to every shell command that is run, in this order.
SMALLER = (
    Substitute(r"--data mnist\b", "--data digits", "MNIST's files are no part of the repository"),
    Substitute(
        r"^certify train (?!--list|--denoiser)(.*)$", r"certify train \1 --epochs 1", "training takes minutes"
    ),
    Substitute(
        r"^certify train --denoiser (dncnn|unet)(.*)$",
        r"certify train --denoiser \1\2 --epochs 2 --limit 200",
        "training takes minutes; two stages need two epochs",
    ),
    Substitute(r"(--arch unet .*)$", r"\1 --options '{}'", "one epoch of the default loss"),
    Substitute(r" --limit \d+", "", "replaced by the limit below"),
    Substitute(r"^(certify radius (?!.*unet\.pt).*)$", r"\1 --limit 4 --n-max 400", "sampling takes minutes"),
    Substitute(r"^(certify radius .*unet\.pt.*)$", r"\1 --limit 2 --n0 10 --n 60", "pixels: n0 + n samples"),
    Substitute(r"^(certify attack runs/pixels.*)$", r"\1 --limit 1", "every image is attacked alike"),
    Substitute(r"^(certify attack runs/pixels.* --base.*)$", r"\1 --preset quick", "500 steps take a minute"),
    Substitute(r"^(certify attack runs/published).*$", r"\1 --limit 1", "every image is attacked alike"),
    Substitute(r"(--level 3.*)$", r"\1 --subset 2", "fresh samples for two inputs show the same"),
    Substitute(r'--require "certified@0.5>=0.9"', '--require "certified@0.5>=0"', "one epoch proves little"),
    Substitute(
        r"--engine ray --workers 8", "--engine local", "a Ray cluster: tests/certify/test_engine_ray.py"
    ),
)

#: The same for Python blocks, whose text is otherwise run as it stands.
SMALLER_PYTHON = (
    Substitute(
        r'load\("mnist", split="test", limit=100\)', 'load("digits", split="test", limit=2)', "as above"
    ),
    Substitute(r"inputs=50_000", "inputs=500", "the forecast draws one run per input"),
)

#: Commands that are parsed and not run: what they start with, and why.
NOT_RUN = (
    ("make ", "installs and trains for minutes; make demo is certify demo, which tests/certify_cli runs"),
    ("pip install", "changes the environment the tests run in; the extra's name is checked"),
    ("ray start", "starts a cluster and leaves it running"),
    ("certify radius --model ckpt.pt --sigma 0.25 --engine ray --address", "needs a Ray cluster"),
    ("srun ", "needs a Slurm cluster"),
    ("cp -r $LOCAL_SCRATCH", "needs a Slurm cluster"),
    ("export ", "a secret of the reader's own"),
)

#: Python blocks that are parsed and not run, by page and a line of theirs, and why.
PYTHON_NOT_RUN = (
    (
        "models.md",
        "import segmentation_models_pytorch as smp",
        "a library that this project does not install",
    ),
)

#: Pages that have a test of their own, which runs them.
RUN_ELSEWHERE = {"your-model.md": "tests/test_your_model_page.py, section by section"}

#: Pages that run with every test; the others run in the slow ones.
READ_FIRST = ("README.md", "python.md")

#: What a page's reader has from an earlier page: files by name, made once for all pages.
EARLIER = ("ckpt.pt", "runs/demo", "runs/NAME", "runs/plain", "runs/diffusion")

SHELL_WORDS = {"export", "cp", "sqlite3", "ray", "srun", "pip", "make", "torchrun", "python", "certify"}


def shell_commands(path: Path) -> list[tuple[str, str]]:
    """(where, command) of every shell block and workflow step of a page."""
    found = []
    for block in blocks(path):
        if block.language in SHELL:
            found += [(block.name, command) for command in commands(block.text)]
        elif block.language == "yaml" and "jobs:" in block.text:
            yaml = pytest.importorskip("yaml")
            found += [(block.name, command) for command in steps_of(yaml.safe_load(block.text))]
    return found


def certify_arguments(command: str) -> list[str] | None:
    """The arguments of the ``certify`` call in a command; None if it calls something else."""
    parts = words(command.split("|")[0])
    if parts[:1] == ["srun"]:
        parts = parts[1:]
    if parts[:1] == ["torchrun"] and "certify_cli.main" in parts:
        return parts[parts.index("certify_cli.main") + 1 :]
    return parts[1:] if parts[:1] == ["certify"] else None


def parse(arguments: list[str]) -> None:
    """Raise a usage error of the command line where the real command would."""
    group = typer.main.get_command(app)
    context = group.make_context("certify", [*arguments[:1]] or ["--help"])
    verb = group.get_command(context, arguments[0])
    assert verb is not None, f"there is no verb {arguments[0]!r}"
    try:
        verb.make_context(arguments[0], arguments[1:])
    except typer.Exit:
        assert {"-h", "--help"} & set(arguments)


def check(command: str) -> None:
    """Parse one command of a page against what it calls."""
    parts = words(command.split("|")[0])
    assert parts[0] in SHELL_WORDS, f"the table of this test does not know {parts[0]!r}"
    arguments = certify_arguments(command)
    if arguments is not None:
        parse(arguments)
    elif parts[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(parts[1:]) <= set(targets)
    elif parts[0] == "python" and parts[1] != "-m":
        source = (ROOT / parts[1]).read_text()
        assert all(f'"{option}"' in source for option in parts[2:] if option.startswith("--"))
    elif parts[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {e for p in parts for e in re.findall(r"\[(\w+)\]", p)} <= set(extras)


ALL = [
    pytest.param(command, id=f"{where} {command[:60]}")
    for path in PAGES
    for where, command in shell_commands(path)
]
INLINE = [
    pytest.param(command, id=f"{path.name} {command[:60]}")
    for path in PAGES
    for command in inline_commands(path)
]


@pytest.mark.parametrize("command", ALL)
def test_every_command_parses(command):
    check(command)


@pytest.mark.parametrize("command", INLINE)
def test_every_command_in_the_running_text_parses(command):
    try:
        parse(words(command)[1:])
    except Exception as error:
        # What is not the point there may be left out, but nothing may be named that does not exist.
        if type(error).__name__ != "MissingParameter":
            raise


def test_every_example_in_the_help_parses():
    group = typer.main.get_command(app)
    for name, verb in group.commands.items():
        examples = (verb.epilog or "").split("\n\n")
        calls = [e[e.index("certify ") :] for e in examples if "certify " in e]
        assert calls, f"certify {name} --help shows no example"
        for call in calls:
            parse(words(call)[1:])


@pytest.mark.parametrize(
    "wrong", ["certify radius", "certify radius --model a.pt --sigmas 1", "certify prove x"]
)
def test_a_command_that_changed_would_be_noticed(wrong):
    with pytest.raises((Exception, AssertionError)):
        parse(words(wrong)[1:])


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=b.name) for p in PAGES for b in blocks(p) if b.language == "python"]
)
def test_every_python_block_compiles_and_imports_what_exists(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not _not_run(block):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_workflow_is_a_workflow():
    yaml = pytest.importorskip("yaml")
    block = next(b for b in blocks(ROOT / "docs" / "ci.md") if b.language == "yaml")
    document = yaml.safe_load(block.text)
    steps = document["jobs"]["certify"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    gate = next(s for s in steps if "--require" in s.get("run", ""))
    assert "if" not in gate, "the gate must be able to fail the job"
    assert document["jobs"]["certify"]["runs-on"]


def test_the_short_programs_are_short():
    programs = [b.text.strip().split("\n") for b in blocks(ROOT / "docs" / "python.md")]
    assert len(programs) >= 12
    assert max(map(len, programs)) <= 8


def test_every_entry_of_the_tables_is_used_and_justified():
    texts = [command for path in PAGES for _, command in shell_commands(path)]
    for substitute in SMALLER:
        assert substitute.why
        assert any(re.search(substitute.pattern, text) for text in texts), substitute.pattern
    python = [b.text for p in PAGES for b in blocks(p) if b.language == "python"]
    for substitute in SMALLER_PYTHON:
        assert any(re.search(substitute.pattern, text) for text in python), substitute.pattern
    for start, why in NOT_RUN:
        assert why
        assert any(text.startswith(start) for text in texts), start
    for page, line, why in PYTHON_NOT_RUN:
        assert why
        assert any(b.page == page and line in b.text for p in PAGES for b in blocks(p)), line


# -- running ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """A folder with what a reader of any page has by then: a checkpoint, small runs, files of others."""
    place = tmp_path_factory.mktemp("earlier")
    call(place, f"certify train --arch mlp --data digits --sigma 0.25 --epochs 6 --out {place}/ckpt.pt")
    run = f"certify radius --model {place}/ckpt.pt --limit 4 --n-max 1000 --out {place}/runs/demo"
    call(place, run)
    for name in EARLIER[2:]:
        shutil.copytree(place / "runs" / "demo", place / name)
    published.checkpoint(place / "resnet20.th")
    published.photos(place / "photos")
    return place


def call(place: Path, command: str) -> None:
    """One command line: the toolkit's own in this process, everything else in a shell."""
    arguments = certify_arguments(command)
    if arguments is not None and "|" not in command:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        return
    shell = command.replace("python ", f"{sys.executable} ", 1) if command.startswith("python ") else command
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def smaller(command: str) -> str:
    for substitute in SMALLER:
        command = re.sub(substitute.pattern, substitute.replacement, command)
    return command


def _not_run(block: Block) -> bool:
    return any(block.page == page and line in block.text for page, line, _ in PYTHON_NOT_RUN)


def walk(path: Path, place: Path) -> int:
    """Run a page top to bottom in ``place``; returns how many commands and blocks were run."""
    names: dict = {"__name__": "page"}
    run = 0
    for block in blocks(path):
        if block.language in SHELL:
            for command in commands(block.text):
                if not any(command.startswith(start) for start, _ in NOT_RUN):
                    call(place, smaller(command))
                    run += 1
        elif block.language == "python" and not _not_run(block):
            text = block.text
            for substitute in SMALLER_PYTHON:
                text = re.sub(substitute.pattern, substitute.replacement, text)
            exec(compile(text, block.name, "exec"), names)
            run += 1
        elif block.language == "yaml":
            yaml = pytest.importorskip("yaml")
            for command in steps_of(yaml.safe_load(block.text)):
                if not any(command.startswith(start) for start, _ in NOT_RUN):
                    call(place, smaller(command))
                    run += 1
    return run


def _runnable(path: Path) -> bool:
    return any(b.language in {*SHELL, "python", "yaml"} for b in blocks(path))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.name, marks=[] if p.name in READ_FIRST else [pytest.mark.slow])
        for p in PAGES
        if _runnable(p) and p.name not in RUN_ELSEWHERE
    ],
)
def test_every_page_runs_from_top_to_bottom(path, request, tmp_path, monkeypatch):
    if path.name != "README.md":  # whose reader starts with nothing
        shutil.copytree(request.getfixturevalue("earlier"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["certify"])
    assert walk(path, tmp_path) > 0
