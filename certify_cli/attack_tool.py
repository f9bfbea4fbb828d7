"""``certify attack --with``: an attack of another library, built from its name."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Annotated, Any

import typer

from certify_cli import common

#: The libraries whose attacks can be named, and the module that holds them.
LIBRARIES = {"torchattacks": "torchattacks", "foolbox": "foolbox.attacks", "adv_lib": "adv_lib.attacks"}

With = Annotated[
    str | None,
    typer.Option(
        "--with", help="With --model: another library's attack in place of a preset (torchattacks:CW)."
    ),
]
WithArgs = Annotated[
    str | None,
    typer.Option("--with-args", help="JSON object of arguments for --with, such as '{\"steps\": 50}'."),
]


def built(name: str | None, args: str | None, network: Any, threat: Any, *, preset: str | None) -> Any:
    """The attack ``library:Name`` on ``network``, None without a name. Raises InvalidSetting, MissingExtra.

    One that takes ``eps`` (``epsilon``) gets the threat's size where ``args`` name none.
    """
    from certify.errors import InvalidSetting

    if name is None:
        refuse(None, args, "without --with")
        return None
    if preset is not None:
        raise InvalidSetting(
            f"--preset {preset} and --with {name} exclude each other",
            why="the named attack runs in place of a preset",
            remedy="leave one of them out",
        )
    made = _named(name)
    arguments = common.json_object(args, "--with-args")
    known = inspect.signature(made).parameters
    if threat.eps is not None and not name.startswith("foolbox"):
        size = next((p for p in ("eps", "epsilon", "ε") if p in known), None)
        arguments = ({} if size is None else {size: threat.eps}) | arguments
    try:
        if name.startswith("adv_lib"):
            inspect.signature(made).bind_partial(network, **arguments)
            return functools.partial(made, **arguments)
        return made(network, **arguments) if name.startswith("torchattacks") else made(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidSetting(
            f"{name} cannot be made with --with-args {args or '{}'}",
            why=str(error),
            remedy=f"it takes {', '.join(p for p in known if p not in ('model', 'inputs', 'labels'))}",
        ) from error


def refuse(name: str | None, args: str | None, where: str, *, target: int | None = None) -> None:
    """Raise InvalidSetting where an option was given that has no meaning here."""
    from certify.errors import InvalidSetting

    for option, value in (("--with", name), ("--with-args", args), ("--target", target)):
        if value is not None:
            raise InvalidSetting(
                f"{option} has no meaning {where}",
                why="it belongs to an attack on the inputs of one base classifier",
                remedy="certify attack --model ckpt.pt --with torchattacks:CW, or --target 3",
            )


def _named(name: str) -> Any:
    from certify.errors import InvalidSetting, MissingExtra

    library, _, own = name.partition(":")
    if library not in LIBRARIES or not own:
        raise InvalidSetting(
            f"--with {name} names no attack",
            why=f"it is library:Name, and the libraries are {', '.join(LIBRARIES)}",
            remedy="such as --with torchattacks:CW",
        )
    try:
        module = importlib.import_module(LIBRARIES[library])
    except ImportError as error:
        raise MissingExtra(
            f"--with {name} needs {library}",
            why=str(error),
            remedy=f"pip install {library.replace('_', '-')}",
        ) from error
    made = getattr(module, own, None)
    if own.startswith("_") or not callable(made):
        raise InvalidSetting(
            f"{library} has no attack {own}",
            why=f"there is no such name in {module.__name__}",
            remedy="spell it as the library does",
        )
    return made
