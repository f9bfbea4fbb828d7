"""Entry point of the ``certify`` command.

It imports next to nothing before Ctrl-C is in its hands: what follows takes a second to load. (``_signal`` is
``signal`` without its enumerations, whose import could be interrupted already.)
"""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Exit status of a command that Ctrl-C ended, as shells have it: 128 + SIGINT.
INTERRUPTED = 130


def main() -> None:
    """Run the command; an interrupted one says what it keeps and how to go on."""
    stop = _Stop()
    try:
        from certify_cli.app import app
        from certify_cli.memory import keep_freed_memory

        keep_freed_memory()
        app(prog_name="certify")  # also for python -m certify_cli
    except SystemExit as ended:
        if ended.code != INTERRUPTED:
            stop.ignore()  # all is done but the interpreter's own end
            raise
        # typer says nothing where it is interrupted itself; a verb has said what it keeps.
        told = getattr(ended.__context__, "told", False)
    except KeyboardInterrupt:
        told = False
    except Exception:
        # Libraries that are interrupted while they load raise whatever they like.
        if not stop.asked:
            raise
        told = False
    else:
        return
    if not told:
        print("\ninterrupted before the work began; the same command begins again", file=sys.stderr)
    _leave()


def _leave() -> None:
    """End now: everything is put away, and taking torch apart would take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "ray" in sys.modules:  # it stops its own processes at the interpreter's end
        sys.exit(INTERRUPTED)
    os._exit(INTERRUPTED)


class _Stop:
    """Ctrl-C: the first one lets the verb put away what it has, a second one ends the process at once.

    Whoever started the command without Ctrl-C (nohup, a shell's background jobs) keeps it so.
    """

    def __init__(self) -> None:
        self.asked = False
        if _signal.getsignal(_signal.SIGINT) not in (_signal.SIG_IGN, None):
            _signal.signal(_signal.SIGINT, self)

    def ignore(self) -> None:
        if _signal.getsignal(_signal.SIGINT) is self:
            _signal.signal(_signal.SIGINT, _signal.SIG_IGN)

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked:
            os.write(2, b"\ninterrupted again: stopped at once; what was stored is intact\n")
            os._exit(INTERRUPTED)
        self.asked = True
        if _loads_torch(frame):
            os.write(2, b"\ninterrupted while torch was loading; the same command begins again, or goes on\n")
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt


def _loads_torch(frame: Any) -> bool:
    """Whether torch is being imported: its C++ parts end the process where an exception crosses them."""
    while frame is not None:
        if (
            frame.f_code.co_name == "<module>"
            and frame.f_globals.get("__name__", "").split(".")[0] == "torch"
        ):
            return True
        frame = frame.f_back
    return False


def __getattr__(name: str) -> Any:
    if name == "app":  # where the command is used as a typer application
        from certify_cli.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
