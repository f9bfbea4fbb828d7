"""``certify doctor``: what this installation can do, and what is missing."""

from __future__ import annotations

from typing import Any

import typer

from certify_cli import common

EPILOG = "Example: certify doctor"


def register(app: typer.Typer) -> None:
    app.command("doctor", epilog=EPILOG, rich_help_panel="Start")(common.guarded(doctor))


def doctor(as_json: common.AsJson = False) -> None:
    """Look at the environment: versions, GPU, optional packages, data sets; exit 1 on a real problem."""
    checks = [*_packages(), *_torch(), *_optional(), *_data()]
    if as_json:
        common.print_json({"checks": checks, "ok": all(c["state"] != "problem" for c in checks)})
    else:
        from rich.table import Table

        table = Table("", "what")
        for heading in ("found", "what to do"):
            table.add_column(heading, overflow="fold")  # a path that is cut off helps nobody
        mark = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "problem": "[red]problem[/]"}
        for c in checks:
            table.add_row(mark[c["state"]], c["what"], c["found"], c["remedy"])
        common.tables(markup=True).print(table)
    if any(c["state"] == "problem" for c in checks):
        raise typer.Exit(1)


def _check(what: str, state: str, found: str, remedy: str = "") -> dict[str, str]:
    return {"what": what, "state": state, "found": found, "remedy": remedy}


def _packages() -> list[dict[str, str]]:
    """The siblings must be this installation's, not folders that happen to have their names."""
    from certify import siblings

    out = []
    for name in ("pdenets", "attacks", "analysis", "reports"):
        try:
            siblings.check(name)
            out.append(_check(f"package {name}", "ok", "this installation's"))
        except ImportError as error:
            out.append(_check(f"package {name}", "problem", str(error).splitlines()[0], "rename that file"))
    return out


def _torch() -> list[dict[str, str]]:
    import os
    import platform

    import torch

    checks = [
        _check("python", "ok", platform.python_version()),
        _check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads"),
    ]
    if torch.cuda.is_available():
        checks.append(_check("GPU", "ok", torch.cuda.get_device_name()))
    else:
        checks.append(_check("GPU", "missing", "no CUDA device", "everything runs on the CPU, only slower"))
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        checks.append(
            _check(
                "safe loading", "problem", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set",
                "unset it: with it, a model file could run code",
            )
        )  # fmt: skip
    return checks


def _optional() -> list[dict[str, str]]:
    from importlib.util import find_spec

    wanted = {
        "torchattacks": "pip install -c constraints.txt --no-deps torchattacks",
        "pyautoattack": "pip install --no-deps pyautoattack",
        "onnxruntime": "pip install 'certify-robustness[onnx]'",
        "ray": "pip install 'certify-robustness[ray]'",
        "diffusers": "pip install 'certify-robustness[diffusers]'",
        "nbclient": "pip install 'certify-robustness[notebooks]'",
    }
    checks = [
        _check(f"optional {name}", "ok" if find_spec(name) else "missing",
               "installed" if find_spec(name) else "not installed", "" if find_spec(name) else remedy)
        for name, remedy in wanted.items()
    ]  # fmt: skip
    return [*checks, *_torchvision()]


def _torchvision() -> list[dict[str, str]]:
    """torchattacks' metadata drags in a torchvision that does not import beside a CPU torch."""
    from importlib.util import find_spec

    if find_spec("torchvision") is None:
        return []
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except Exception as error:
        return [
            _check(
                "torchvision", "missing", f"does not import: {type(error).__name__}",
                "nothing here needs it: pip uninstall torchvision",
            )
        ]  # fmt: skip
    return [_check("torchvision", "ok", "imports")]


def _data() -> list[dict[str, Any]]:
    from certify import data
    from certify.errors import CertifyError

    checks = []
    for name in data.names():
        try:
            found = data.load(name, limit=1)
            shape = "x".join(map(str, found.x.shape[1:]))
            checks.append(_check(f"data {name}", "ok", f"{shape}, {found.num_classes} classes"))
        except CertifyError as error:
            checks.append(_check(f"data {name}", "missing", error.why, error.remedy))
    return checks
