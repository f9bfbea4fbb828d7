"""The pages of the documentation taken apart: fenced blocks, shell commands, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Every page a reader opens; the API pages are generated and have tests of their own.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = ("bash", "sh", "console")
LANGUAGES = {*SHELL, "python", "yaml", "text"}

FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """One fenced block: the page's name, the line it starts on, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order, without the indentation of a list item."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent, body = match[1], match[3]
        lines = [line.removeprefix(indent) for line in body.split("\n")]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(path.name, line, match[2], "\n".join(lines)))
    return found


def commands(text: str) -> list[str]:
    """The commands of a shell block: prompts and comments removed, continued lines joined."""
    found = []
    for line in text.replace("\\\n", " ").split("\n"):
        bare = re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ")
        if bare:
            found.append(re.sub(r"\s+", " ", bare))
    return found


def inline_commands(path: Path) -> list[str]:
    """Commands of this toolkit that stand in the running text or in a table."""
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    spans = re.findall(r"`([^`\n]+)`", prose)
    return [s.replace(r"\|", "|") for s in spans if re.match(r"certify [a-z]", s)]


def workflow_commands(document: dict) -> list[str]:
    """The commands of every ``run`` step of a workflow."""
    steps = [step for job in document["jobs"].values() for step in job["steps"]]
    return [command for step in steps if "run" in step for command in commands(step["run"])]


def words(command: str) -> list[str]:
    """A command split as a shell would."""
    return shlex.split(command)


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "``", FENCE.sub("", path.read_text(encoding="utf-8")))


def links(path: Path) -> list[str]:
    """The targets of a page's links and images."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)", text)


def anchors(path: Path) -> set[str]:
    """The anchors that code forges give to a page's headings; repeated ones are numbered."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", path.read_text(encoding="utf-8")), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        seen = found.get(slug, 0)
        found[slug] = seen + 1
        names.add(slug if seen == 0 else f"{slug}-{seen}")
    return names
