"""Every relative link and anchor of README, CHANGELOG and docs leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs_pages import LANGUAGES, PAGES, ROOT, anchors, blocks, links

LINKED = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "api").glob("*.md"))]


def broken_links(path: Path) -> list[str]:
    found = []
    for link in links(path):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(path):
    assert broken_links(path) == []


def test_a_broken_link_would_be_noticed(tmp_path):
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A heading: with `code` and 2 words\n\n## Twice\n\n## Twice\n")
    page.write_text(
        "[good](other.md#a-heading-with-code-and-2-words) [good](other.md#twice-1) [out](https://example.org/x)\n"
        "[gone](missing.md) [no heading](other.md#nowhere) ![no image](no.png)\n"
        "```bash\n[not a link](gone.md)\n```\n"
    )
    assert broken_links(page) == ["missing.md", "other.md#nowhere", "no.png"]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_block_names_its_language(path):
    assert {b.name for b in blocks(path) if b.language not in LANGUAGES} == set()


def test_every_page_is_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        names = {link.partition("#")[0] for link in links(page) if "://" not in link}
        todo += [p for n in names if n.endswith(".md") and (p := (page.parent / n).resolve()).exists()]
    assert set(PAGES) <= seen
