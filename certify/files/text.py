"""Text that a stranger wrote, shown: on a terminal, which obeys some characters, or in Markdown."""

from __future__ import annotations

import re
import shlex
import unicodedata

#: Characters without a shape that letters of some scripts and emoji need: joiners and the soft hyphen.
_HARMLESS = "\u200c\u200d\u00ad"
#: What Markdown, or the HTML inside it, takes for more than text: anywhere, and at the start of a line.
_MARKS = re.compile(r"([\\`*_{}\[\]<>&|~$#@]|:(?=//)|(?<=www)\.)")
_START = re.compile(r"^([-+=]|\d+(?=[.)]))")


def printable(text: object) -> str:
    """``text`` as one line that a terminal shows and does not obey.

    Control characters (so ANSI escapes), line ends, characters that turn the direction of writing and
    halves of characters stand as their codes, such as \\x1b.
    """
    return "".join(
        c if _plain(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text)
    )


def lines(text: object) -> str:
    """``printable`` line by line: line ends stay."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def markdown(text: object) -> str:
    """``text`` as one line of Markdown that every renderer shows as it is: no markup, no HTML, no link."""
    shown = _MARKS.sub(r"\\\1", printable(" ".join(str(text).split())))
    return _START.sub(r"\\\1" if not shown[:1].isdigit() else r"\1\\", shown)


def code(text: object) -> str:
    """``text`` as inline code in Markdown, on one line, with a fence that nothing in it can close."""
    shown = printable(" ".join(str(text).split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    inside = f" {shown} " if shown[:1] == "`" or shown[-1:] == "`" else shown
    return f"{fence}{inside}{fence}"


def block(text: object) -> list[str]:
    """``text`` as the lines of a code block in Markdown, with a fence that nothing in it can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", str(text))), default=0))
    return [fence, lines(text), fence]


def command(text: object) -> str | None:
    """What a run says it was made with, if it is one command of ``certify`` and nothing besides; else None.

    What a reader copies into a shell must not be more than it looks: words quoted as this package quotes
    them, the first of them ``certify``.
    """
    try:
        words = shlex.split(str(text))
    except ValueError:
        return None
    return str(text) if words[:1] == ["certify"] and shlex.join(words) == text else None


def _plain(character: str) -> bool:
    if character in _HARMLESS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
