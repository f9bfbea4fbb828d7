"""Text of a stranger is shown and not obeyed."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from certify.files.text import block, code, command, lines, markdown, printable

HOSTILE = (
    "\x1b[2J\x1b[31mthe run holds", "a\nthe run holds", "\u202egnp.exe", "\u2066x\u2069", "\x9b31m",
    "\r\x08\x07", "\u2028", "\ud800", "\U000e0041", "\x00", "\x7f",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_has_nothing_to_obey(text):
    shown = printable(text)
    shown.encode()
    assert shown.isprintable()
    assert shown != text


def test_letters_of_all_scripts_stay():
    for text in ("Größe", "中文", "عربى", "हिन्दी", "naïve", "👩\u200d🔬", "σ ≤ ½", "a b"):
        assert printable(text) == text
    assert lines("one\ntwo\x1b") == "one\ntwo\\x1b"


LINKS = (
    "<img src=x onerror=run()>", "`code` <b>", "**100.0 %** certified", "[x](javascript:run())", "![x](y)",
    "| a | b |", "# Robustness", "## Robustness\n\n**100 %**", "- item", "1. one", "> quote", "* a", "+ b",
    "http://evil.example", "www.evil.example", "a@b.example", "&lt;script&gt;", "~~no~~", "$x^2$", "===",
    "---", "\\[x\\]", "a\u202eb", "```\ncode\n```", "{{7*7}}", "<!-- -->", "_it_", "![", "]]", "a\\",
)  # fmt: skip


@pytest.mark.parametrize("text", LINKS)
@pytest.mark.parametrize("kind", ["commonmark", "gfm-like"])
def test_markdown_shows_it_as_it_is(text, kind):
    machine = MarkdownIt(kind, {"linkify": False})
    for source in (markdown(text), f"- {markdown(text)}", f"> {markdown(text)}", f"| {markdown(text)} |"):
        page = machine.render(f"before\n\n{source}\n")
        tags = set(re.findall(r"<(/?\w+)", page)) - {"p", "/p", "ul", "/ul", "li", "/li", "blockquote",
                                                     "/blockquote"}  # fmt: skip
        assert not tags, (source, page)


@given(st.text(alphabet="`a <b>*#\n\\|", max_size=20))
def test_code_is_one_piece_of_code(text):
    machine = MarkdownIt("commonmark")
    page = machine.render(f"- name: {code(text)}\n")
    if text.split():
        assert page.count("<code>") == 1
    assert not set(re.findall(r"<(\w+)", page)) - {"ul", "li", "code", "p"}
    page = machine.render("\n".join(["text", "", *block(text), "", "# end"]))
    assert page.count("<pre>") == 1
    assert page.rstrip().endswith("<h1>end</h1>")


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("certify radius --model m.pt", True),
        ("certify radius --model 'my model.pt'", True),
        (shlex.join(["certify", "radius", "--model", "$(id)"]), True),
        ("certify radius --model $(id)", False),
        ("certify radius; rm -rf /", False),
        ("certify radius | sh", False),
        ("certify radius `id`", False),
        ("certify radius\nid", False),
        ("rm -rf /", False),
        ("", False),
        (3, False),
        ("certify 'radius", False),
    ],
)
def test_only_one_plain_command_is_offered_for_copying(text, fine):
    assert command(text) == (text if fine else None)
