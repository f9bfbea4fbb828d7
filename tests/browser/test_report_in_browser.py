"""The report in a real browser: silent, offline, sortable, filterable, readable in both themes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Page

pytestmark = pytest.mark.browser

SHOWN = (
    "return [...document.querySelectorAll('#table tbody tr')].map(r => r.children[arguments[0]].textContent)"
)


@pytest.fixture
def opened(page: Page, report: Path) -> Page:
    page.log("browser"), page.requests()
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    page.open(report.as_uri())
    return page


def column(page: Page, name: str) -> list[str]:
    names = page.run("return [...document.querySelectorAll('#table thead th')].map(t => t.textContent)")
    return page.run(SHOWN, names.index(name))


def press(page: Page, selector: str) -> None:
    page.run("document.querySelector(arguments[0]).click()", selector)


def fill(page: Page, selector: str, value: str) -> None:
    page.run(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        selector,
        value,
    )


def test_opens_without_console_message_or_request(opened, report):
    assert opened.log("browser") == []
    assert opened.requests() == [report.as_uri()]


def test_comparison_opens_without_console_message_or_request(page, comparison):
    page.log("browser"), page.requests()
    page.open(comparison.as_uri())
    assert page.log("browser") == []
    assert page.requests() == [comparison.as_uri()]


def test_the_board_is_silent_offline_sortable_and_filtered(page, board):
    page.log("browser"), page.requests()
    page.open(board.as_uri())
    rows = (
        "return [...document.querySelectorAll('#board tbody tr')]"
        ".filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    )
    names = page.run(rows)
    press(page, "#board thead th:nth-child(5) button")
    assert page.run("return document.querySelectorAll('#board th')[4].ariaSort") == "descending"
    assert page.run(rows) == sorted(names, key=lambda name: -float(name.rsplit("-", 1)[1]))
    fill(page, "#filter", "0.25")
    assert page.run(rows) == ["digits-one-0.25"]
    assert page.log("browser") == []
    assert page.requests() == [board.as_uri()]


def test_every_column_sorts_both_ways_with_missing_values_last(opened):
    heads = opened.run("return [...document.querySelectorAll('#table thead th')].map(t => t.textContent)")
    for i, name in enumerate(heads):
        press(opened, f"#table thead th:nth-child({i + 1}) button")
        first = opened.run("return document.querySelectorAll('#table th')[arguments[0]].ariaSort", i)
        rising = column(opened, name)
        press(opened, f"#table thead th:nth-child({i + 1}) button")
        falling = column(opened, name)
        if first == "descending":  # the table starts sorted by its first column
            rising, falling = falling, rising
        numbers = opened.run("return document.querySelectorAll('#table th')[arguments[0]].className", i)
        if numbers:
            for values, order in ((rising, 1), (falling, -1)):
                known = [float(v) for v in values if v != "–"]
                assert known == sorted(known, reverse=order < 0), name
                assert values[len(known) :] == ["–"] * (len(values) - len(known)), name
        else:
            assert rising[0] <= falling[0]
            assert rising != falling or len(set(rising)) == 1


def test_sorting_is_announced(opened):
    press(opened, "#table thead th:nth-child(5) button")
    marks = opened.run("return [...document.querySelectorAll('#table th')].map(t => t.ariaSort)")
    assert marks[4] == "ascending"
    assert marks.count("none") == len(marks) - 1


def test_filters_combine_and_the_count_follows(opened):
    fill(opened, "#verdict", "proof")
    assert set(column(opened, "Verdict")) == {"proof"}
    fill(opened, "#least", "0.6")
    radii = column(opened, "Certified radius")
    assert radii
    assert min(map(float, radii)) >= 0.6
    text = opened.run("return document.querySelector('#shown').textContent")
    assert text == f"{len(radii)} of 120 inputs"
    fill(opened, "#find", "seven")
    both = zip(column(opened, "True class"), column(opened, "Certified class"), strict=True)
    assert all("seven" in pair for pair in both)
    fill(opened, "#find", "no such class")
    assert column(opened, "Input") == []


def test_pages_show_every_input_once(opened):
    seen = column(opened, "Input")
    assert opened.run("return document.querySelector('#before').disabled") is True
    while not opened.run("return document.querySelector('#after').disabled"):
        press(opened, "#after")
        seen += column(opened, "Input")
    assert sorted(map(int, seen)) == list(range(120))


def test_saving_the_table_is_allowed_by_the_page_itself(opened):
    opened.run("window.saved = []; URL.createObjectURL = b => { window.saved.push(b.size); return '#'; }")
    press(opened, "#save")
    assert opened.run("return window.saved.length") == 1
    assert opened.run("return window.saved[0]") > 1000
    assert opened.log("browser") == []


def background(page: Page) -> str:
    return page.run("return getComputedStyle(document.body).backgroundColor")


def test_both_themes_render_and_the_button_overrides_the_system(opened, report):
    light = background(opened)
    press(opened, ".theme")
    dark = background(opened)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(17, 22, 28)")
    line = "return getComputedStyle(document.querySelector('.line-proof[d]')).stroke"
    bright = opened.run(line)
    press(opened, ".theme")
    assert background(opened) == light
    assert opened.run(line) != bright
    opened.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    opened.open(report.as_uri())
    assert background(opened) == dark
    assert opened.run("return document.querySelector('.theme').textContent") == "Light"


CONTRAST = """
const parse = c => c.match(/[\\d.]+/g).map(Number);
const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = c => { const [r, g, b] = c.map(linear);
  return .2126 * r + .7152 * g + .0722 * b; };
const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const found = [];
const parts = 'p, li, td, th, dt, dd, h1, h2, h3, figcaption, .chip, caption, b, .quiet';
for (const e of document.querySelectorAll(parts)) {
  if (!e.textContent.trim() || !e.offsetParent) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(ground(e).slice(0, 3))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) found.push(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
}
return [...new Set(found)];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_accessibility_asks_for(opened, report, theme):
    opened.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    opened.open(report.as_uri())
    assert opened.run(CONTRAST) == []


def test_nothing_is_wider_than_a_phone(opened, report):
    try:
        opened.command(
            "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True
        )
        opened.open(report.as_uri())
        assert opened.run("return document.documentElement.scrollWidth") <= 390
    finally:
        opened.command("Emulation.clearDeviceMetricsOverride")


def test_images_and_plots_have_words_and_ids_are_unique(opened):
    silent = (
        "return document.querySelectorAll('img:not([alt]), svg:not([aria-label]):not([aria-hidden])').length"
    )
    assert opened.run(silent) == 0
    twice = (
        "const i = [...document.querySelectorAll('[id]')].map(e => e.id); return i.length - new Set(i).size"
    )
    assert opened.run(twice) == 0
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert opened.run(broken) == 0
    links = "return [...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash)"
    for target in opened.run(links):
        assert opened.run("return document.querySelector(arguments[0]) !== null", target), target


def test_print_drops_the_controls_and_uses_paper_colours(opened):
    press(opened, ".theme")
    try:
        opened.command("Emulation.setEmulatedMedia", media="print")
        assert background(opened) == "rgb(255, 255, 255)"
        assert opened.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
        assert opened.run("return getComputedStyle(document.querySelector('.tools')).display") == "none"
    finally:
        opened.command("Emulation.setEmulatedMedia", media="")


def test_print_shows_every_input_and_the_screen_goes_back_to_pages(opened):
    rows = "return document.querySelectorAll('#table tbody tr').length"
    assert opened.run(rows) == 50
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run(rows) == 120
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run(rows) == 50
    fill(opened, "#verdict", "proof")
    opened.run("dispatchEvent(new Event('beforeprint'))")
    kept = opened.run(rows)
    assert (
        opened.run("return document.querySelector('#printed').textContent")
        == f"Printed: {kept} of 120 inputs."
    )
