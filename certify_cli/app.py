"""The ``certify`` command as a typer application: every verb, and what they share."""

from __future__ import annotations

import typer

from certify_cli import (
    attack,
    board,
    bounds,
    compare,
    demo,
    doctor,
    export,
    import_,
    merge,
    plan,
    population,
    radius,
    report,
    train,
    verify,
)
from certify_cli.panels import Verbs, group_options

app = typer.Typer(
    name="certify",
    cls=Verbs,
    help="Prove, attack and bound claims about a neural network, and keep the evidence.",
    epilog="Start with: certify demo     Every verb explains itself: certify radius --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_VERBS = (
    demo, doctor, train, plan, radius, population, attack, bounds, verify, compare, report, board, export,
    import_, merge,
)  # fmt: skip
for _verb in _VERBS:
    _verb.register(app)
group_options(app)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        import certify

        print(certify.__version__)
        raise typer.Exit()
