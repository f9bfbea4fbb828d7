"""Entry point of the ``certify`` command."""

from __future__ import annotations

import sys

import typer

from certify_cli import (
    attack,
    bounds,
    compare,
    demo,
    doctor,
    export,
    import_,
    merge,
    plan,
    radius,
    report,
    train,
    verify,
)
from certify_cli.memory import keep_freed_memory
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
    demo, doctor, train, plan, radius, attack, bounds, verify, compare, report, export, import_, merge,
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


def main() -> None:
    """Run the command; an interrupted run says how to go on."""
    keep_freed_memory()
    try:
        app(prog_name="certify")  # also for python -m certify_cli
    except KeyboardInterrupt:
        print("\ninterrupted; what was proved is kept, the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
