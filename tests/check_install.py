"""A clean installation, tried as a stranger would: ``make check-install``.

Installs the working tree into a fresh virtual environment under constraints.txt, measures what
``import certify`` costs beside ``import torch``, and runs the demo in a directory with folders named attacks,
analysis, reports and models, which would be imported in the packages' stead if the working directory
came first. Takes minutes and some 1.5 GB; needs a package index for the dependencies.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: ``import certify`` may cost this many times ``import torch``.
LIMIT = 1.5
TRAP = "raise SystemExit('the working directory was imported instead of the installed package')\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="use and keep this folder instead of a temporary one")
    place = parser.parse_args().keep
    if place is not None:
        check(place)
        return
    with tempfile.TemporaryDirectory(prefix="certify-install-") as name:
        check(Path(name))


def check(place: Path) -> None:
    """Install under ``place``, measure, run the demo; SystemExit where something does not hold."""
    python = install(place / "venv")
    elsewhere = hostile_directory(place / "elsewhere")
    ratio = import_cost(python, elsewhere)
    if ratio >= LIMIT:
        raise SystemExit(f"import certify costs {ratio:.2f} times import torch, allowed is {LIMIT}")
    certify = python.parent / "certify"
    for arguments in (["--version"], ["doctor"], ["demo", "--limit", "20", "--attacked", "5"]):
        began = time.perf_counter()
        run([str(certify), *arguments], cwd=elsewhere)
        print(f"certify {' '.join(arguments)}: {time.perf_counter() - began:.1f} s", flush=True)
    for name in ("report.html", "records.sqlite", "manifest.json", "table.tex", "card.md"):
        if not (elsewhere / "runs" / "demo" / name).is_file():
            raise SystemExit(f"the demo wrote no {name}")
    run([str(certify), "verify", "runs/demo", "--level", "3"], cwd=elsewhere)
    (elsewhere / "own.py").write_text(own_model_example(), encoding="utf-8")
    run([str(python), "own.py"], cwd=elsewhere)
    print("the installation works")


def install(venv: Path) -> Path:
    """The Python of a fresh environment with this working tree installed (not editable)."""
    python = venv / "bin" / "python"
    began = time.perf_counter()
    run([sys.executable, "-m", "venv", str(venv)], cwd=ROOT)
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "."]
    run(pip, cwd=ROOT)
    print(f"pip install -c constraints.txt .: {time.perf_counter() - began:.0f} s", flush=True)
    return python


def hostile_directory(place: Path) -> Path:
    """A working directory whose folders and files carry the packages' names."""
    for name in ("attacks", "analysis", "reports", "models"):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / "__init__.py").write_text(TRAP, encoding="utf-8")
    for name in ("pdenets", "certify_cli", "data"):
        (place / f"{name}.py").write_text(TRAP, encoding="utf-8")
    return place


def own_model_example() -> str:
    """The README's example of one's own model on one's own data, as it stands there."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own model", 1)[1]
    return section.split("```python\n", 1)[1].split("```", 1)[0]


def import_cost(python: Path, cwd: Path) -> float:
    """Seconds of ``import certify`` with its main names, over those of ``import torch``."""
    codes = (
        "import torch",
        "import certify",
        "import certify; certify.Smoothed, certify.load, certify.data, certify.wrap, certify.save",
    )
    cold = [seconds(python, code, cwd) for code in codes]  # writes the byte code
    rounds = [[seconds(python, code, cwd) for code in codes] for _ in range(7)]
    # Least of several, in turn: what else the machine does can only add.
    torch, alone, whole = (min(column) for column in zip(*rounds, strict=True))
    print(
        f"import torch {torch:.2f} s; import certify {alone:.3f} s ({alone / torch:.2f}x), "
        f"with all it offers {whole:.2f} s ({whole / torch:.2f}x); first time {cold[2]:.1f} s",
        flush=True,
    )
    return max(alone, whole) / torch


def seconds(python: Path, code: str, cwd: Path) -> float:
    began = time.perf_counter()
    # -P: the working directory stays off the path, as it does for an installed command.
    run([str(python), "-P", "-c", code], cwd=cwd)
    return time.perf_counter() - began


def run(command: list[str], *, cwd: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {cwd}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
