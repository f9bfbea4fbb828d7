"""``certify merge``: the shards of one run become the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify_cli import common

EPILOG = "Example: certify merge runs/s1 runs/s2 runs/s3 --out runs/whole"


def register(app: typer.Typer) -> None:
    app.command("merge", epilog=EPILOG, rich_help_panel="Results")(common.guarded(merge))


def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="Run directories that `certify radius --shard i/n` wrote.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory of the whole run.", show_default=False)],
    data_root: common.DataRoot = None,
    as_json: common.AsJson = False,
) -> None:
    """Put the shards of one run together; nothing is sampled again.

    Shards i/n of one command show by hashes that they saw one data set; other parts are compared with it.
    """
    from certify.store import records_digest
    from certify.store.merge import merge as join
    from certify_cli.reopen import rows_of

    run = join(shards, out, command=common.command_line(), rows=rows_of(shards[0], None, data_root))
    summary = {"run": str(out), "shards": len(shards), "inputs": len(run), "digest": records_digest(run)}
    if as_json:
        common.print_json(summary)
        return
    console = common.tables()
    parts = f"{len(shards)} shard{'' if len(shards) == 1 else 's'}"
    console.print(f"{parts}, {len(run)} inputs, digest {summary['digest'][:16]}...")
    console.print(f"run directory: {out}", soft_wrap=True)
    common.say_next(f"certify verify {out}")
