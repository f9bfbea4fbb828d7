"""A few images of a segmentation run as pictures: input, truth, certified classes, radii.

A pixel that abstains is light grey with dark diagonal lines, in every picture; so the classes' colours
(chosen to be told apart by the colour-blind) never stand for "nothing proved".
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reports.numbers import percent_down, percent_up, radius_down, radius_short
from reports.png import data_uri

if TYPE_CHECKING:
    from certify.dense.maps import PixelMaps
    from certify.dense.run import SegmentedImage
    from reports.segmentation import PixelEvidence

#: How many images are shown, and the side that small pictures are enlarged to and large ones cut to.
MOST, SIDE = 6, 256
#: Okabe and Ito's colours: the colour-blind can tell them apart.
_OKABE_ITO = (
    (86, 180, 233), (230, 159, 0), (204, 121, 167), (0, 158, 115), (0, 114, 178), (213, 94, 0),
    (240, 228, 66),
)  # fmt: skip
_PALE, _DARK, _UNKNOWN = (226, 229, 233), (96, 106, 117), (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """One image: pictures as (title, alternative text, PNG data URI), and its numbers in words."""

    index: int
    pictures: tuple[tuple[str, str, str], ...]
    caption: str


def colours(classes: int) -> list[str]:
    """The colour of every class, as #rrggbb."""
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in _palette(classes).tolist()]


def panels(evidence: PixelEvidence) -> list[Panel]:
    """Up to ``MOST`` images, from the one with most certified pixels to the one with fewest."""
    images = evidence.run
    order = sorted(range(len(images)), key=lambda i: _share(images, i))[::-1]
    if len(order) > MOST:
        order = [order[round(i * (len(order) - 1) / (MOST - 1))] for i in range(MOST)]
    return [_panel(evidence, images[i]) for i in order]


def _share(images, i: int) -> tuple[float, int]:
    details = images.run.records[i].details if len(images) == len(images.run) else images[i].record.details
    return details["certified"] / max(1, details["pixels"]), -i


def _panel(evidence: PixelEvidence, image: SegmentedImage) -> Panel:
    maps, index, names = image.maps, image.record.index, evidence.classes
    pictures = [("input", f"Image {index}.", data_uri(_input(maps.preview)))]
    if maps.target is not None:
        known = np.where(maps.known, maps.target, -2)
        text = f"True classes of image {index}: {_mix(maps.target[maps.known], names)}."
        pictures.append(("truth", text, data_uri(_classes(known, len(names)))))
    share = float(maps.certified.mean())
    text = (
        f"Certified classes of image {index}: {_mix(maps.classes[maps.certified], names)} of the certified "
        f"pixels; {percent_up(1 - share)} of all pixels abstain."
    )
    pictures.append(("certified", text, data_uri(_classes(maps.classes, len(names)))))
    if (found := evidence.attacks.shown.get(index)) is not None:
        lost = percent_up(float(found.broken.sum() / max(1, found.stake.sum())))
        target = "smoothed segmentation" if found.smoothed else "base model"
        text = (
            f"Classes of image {index} in the {target} under one perturbation of size "
            f"{radius_short(float(found.row['eps']), 4)}: {lost} of the labelled pixels are lost."
        )
        pictures.append(("attacked", text, data_uri(_classes(found.attacked, len(names)))))
    caption = f"{percent_down(share)} certified"
    if maps.target is not None and maps.known.any():
        caption += f", {percent_down(float(maps.correct.sum() / maps.known.sum()))} certified and correct"
    if evidence.tested is None and maps.certified.any():
        reached = maps.radius[maps.certified]
        median, most = radius_down(float(np.median(reached)), 3), radius_down(float(reached.max()), 3)
        text = f"Certified radii of image {index}: median {median}, largest {most}; darker is larger."
        pictures.append(("radius", text, data_uri(_radii(maps, evidence.largest))))
        caption += f"; median radius {median}"
    return Panel(index, tuple(pictures), caption)


def _mix(labels: np.ndarray, names: tuple[str, ...], most: int = 4) -> str:
    """The commonest classes with their shares, in words."""
    found, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return ", ".join(f"{names[int(found[i])]} {counts[i] / labels.size:.0%}" for i in order) or "none"


def _input(preview: np.ndarray) -> np.ndarray:
    channels = preview[:3] if len(preview) >= 3 else np.repeat(preview[:1], 3, axis=0)
    return _sized(np.moveaxis(channels, 0, -1))


def _classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (height, width) as colours: -1 hatched, -2 (no true class) white."""
    labels = _sized(labels)
    out = np.full((*labels.shape, 3), _UNKNOWN, dtype=np.uint8)
    some = labels >= 0
    out[some] = _palette(classes)[labels[some]]
    return _hatched(out, labels == -1)


def _radii(maps: PixelMaps, largest: float) -> np.ndarray:
    unit = _sized(maps.radius / max(largest, 1e-12))[..., None]
    shades = np.array([235.0, 244, 250]) * (1 - unit) + np.array([0.0, 60, 110]) * unit
    return _hatched(np.round(shades).astype(np.uint8), ~_sized(maps.certified))


def _hatched(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(where.shape)
    lines = (rows + columns) % 8 < 2
    picture[where] = _PALE
    picture[where & lines] = _DARK
    return picture


def _sized(values: np.ndarray) -> np.ndarray:
    """Whole pixels repeated, or left out, so that the larger side is about ``SIDE``."""
    longest = max(values.shape[:2])
    if longest > SIDE:
        every = -(-longest // SIDE)
        return values[::every, ::every]
    times = max(1, SIDE // longest)
    return values.repeat(times, axis=0).repeat(times, axis=1)


def _palette(classes: int) -> np.ndarray:
    """Colours (classes, 3): the seven that the colour-blind can tell apart, then evenly spread hues."""
    more = [
        tuple(round(255 * v) for v in colorsys.hsv_to_rgb((i * 0.618034) % 1.0, 0.55 + 0.15 * (i % 3), 0.85))
        for i in range(max(0, classes - len(_OKABE_ITO)))
    ]
    return np.array([*_OKABE_ITO, *more][:classes], dtype=np.uint8)
