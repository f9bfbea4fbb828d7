"""A badge for a README: the share that is certified at one radius, as a small SVG of its own."""

from __future__ import annotations

import html
from typing import Any

from certify.dense.run import is_segmentation
from certify.population.statements import is_population
from reports.evidence import Evidence
from reports.numbers import percent_down, radius_down
from reports.population import PopulationEvidence
from reports.segmentation import PixelEvidence

#: Green where it is proved, grey where it is a log's claim, red where an attack contradicts it.
PROVED, CLAIMED, INVALID = "#2b7a4b", "#6b7280", "#b3261e"
_HEIGHT, _PAD, _CHARACTER = 20, 7, 6.6


def badge(stored: Any) -> str:
    """The badge of a stored run, SVG text; the same run gives the same bytes.

    Claim: ``certified 76.0 % @ l2 0.5`` is the share of the run's inputs that are certified (and right, where
    labelled) at the radius of the page's headline, rounded down. An imported log is "claimed", not certified;
    a run that an attack contradicts is "invalid". A population run states its lower bound.
    """
    said, shown, colour = _words(stored)
    return _drawn(said, shown, colour)


def _words(stored: Any) -> tuple[str, str, str]:
    if is_population(stored.settings):
        first = PopulationEvidence(stored).statements[0]
        return (
            "population certified",
            f"≥ {percent_down(first.lower)} @ l2 {radius_down(first.radius, 2)}",
            PROVED,
        )
    norm = stored.settings.get("norm") or "2"
    if is_segmentation(stored.settings):
        row = PixelEvidence(stored).rows[0]
        return "certified pixels", f"{percent_down(row.share)} @ l{norm} {radius_down(row.radius, 2)}", PROVED
    evidence = Evidence.of(stored)
    if not len(evidence.run):
        return "certified", "nothing yet", CLAIMED
    radius = evidence.headline_radius
    share = percent_down(evidence.certified_accuracy([radius])[0].value)
    if evidence.contradictions:
        return "certificates", "invalid", INVALID
    colour = CLAIMED if evidence.imported else PROVED
    return str(evidence.say.certified), f"{share} @ l{norm} {radius_down(radius, 2)}", colour


def _drawn(said: str, shown: str, colour: str) -> str:
    left, right = (len(text) * _CHARACTER + 2 * _PAD for text in (said, shown))
    width = left + right
    text = "".join(
        f'<text x="{middle:.1f}" y="14" textLength="{len(part) * _CHARACTER:.1f}">{html.escape(part)}</text>'
        for part, middle in ((said, left / 2), (shown, left + right / 2))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}" height="{_HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{said} {shown}")}"><title>{html.escape(f"{said} {shown}")}</title>'
        f'<rect width="{width:.1f}" height="{_HEIGHT}" rx="3" fill="{colour}"/>'
        f'<path d="M3 0H{left:.1f}V{_HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#3b4148"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{text}</g></svg>\n"
    )


__all__ = ["badge"]
