"""The report of a segmentation run: what is proved of its pixels, and what the maps look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from certify.chances import at_least, at_most, error_probability, percent
from certify.dense.run import SegmentationRun, SegmentationScore
from certify.files.text import markdown, printable
from certify.inputs import interval_notes
from certify.laws import law_of
from certify.records import Estimate
from reports.attack_groups import norm_name
from reports.card import made_by
from reports.fronts import denoiser_of, front_sentences
from reports.html import environment, flat
from reports.latex import escape
from reports.numbers import count, percent_down, percent_interval, percent_up, plain, radius_short
from reports.pixel_attacks import pixel_attacks
from reports.pixel_maps import colours, panels
from reports.plots.pixels import certified_pixels
from reports.svg import Figure, ticks

if TYPE_CHECKING:
    from certify.store import StoredRun


@dataclass(frozen=True)
class Row:
    """One radius: the share of all pixels certified there, and of the labelled ones certified right."""

    radius: float
    share: float
    correct: Estimate | None


class PixelEvidence:
    """A stored segmentation run and what its report derives from it; nothing is certified again."""

    def __init__(self, stored: StoredRun, name: str | None = None) -> None:
        self.run = SegmentationRun.of(stored)
        self.name = name or stored.path.resolve().name
        self.settings: Mapping[str, Any] = stored.settings
        self.options: Mapping[str, Any] = stored.settings["mode_options"]
        self.sigma = float(stored.settings["sigma"])
        self.alpha = error_probability(stored.settings)
        self.norm = norm_name(str(stored.settings.get("norm") or "2"))
        self.records = list(stored.run)
        self.labelled = self.run.labelled
        self.attacks = pixel_attacks(stored, self.run)

    @property
    def tolerate(self) -> float:
        """The share of an image's pixels that may be certified wrongly."""
        return float(self.options.get("tolerate", 0.0))

    @property
    def tested(self) -> float | None:
        """The one radius that was tested (Holm); None where every pixel has its own."""
        return self.options.get("radius")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers."""
        data = self.settings.get("data")
        named = tuple(map(printable, (data.get("classes") if isinstance(data, Mapping) else None) or ()))
        many = int(self.settings["num_classes"])
        return named if len(named) == many else tuple(map(str, range(many)))

    @cached_property
    def largest(self) -> float:
        """The largest certified radius of any pixel."""
        return max((float(image.maps.radius.max()) for image in self.run), default=0.0)

    @cached_property
    def radii(self) -> tuple[float, ...]:
        """The radii of the table: the tested one, else round ones."""
        if self.tested is not None:
            return (self.tested,)
        return tuple(ticks(0.0, max(self.largest, self.sigma / 10), 6))

    @cached_property
    def headline_radius(self) -> float:
        """The tested radius, else the largest of the table up to half of sigma."""
        return max(r for r in self.radii if r <= max(self.sigma / 2, self.radii[0]))

    @cached_property
    def rows(self) -> list[Row]:
        return self.at(self.radii)

    @cached_property
    def score(self) -> SegmentationScore | None:
        return self.run.score() if self.labelled else None

    @cached_property
    def pixels(self) -> int:
        return sum(int(r.details["pixels"]) for r in self.records if r.details.get("pixels"))

    @cached_property
    def abstaining(self) -> int:
        return self.pixels - sum(int(r.details.get("certified") or 0) for r in self.records)

    def at(self, radii: tuple[float, ...]) -> list[Row]:
        """Shares at these radii."""
        shares = self.run.certified_share(radii)
        right = self.run.certified_correct(radii) if self.labelled else [None] * len(radii)
        return [Row(*row) for row in zip(radii, shares, right, strict=True)]


@dataclass(frozen=True)
class Parts:
    """What a report is written from."""

    html: str
    table: str
    card: str
    figures: Mapping[str, Figure]


def parts(stored: StoredRun) -> Parts:
    """The page, the LaTeX table, the model-card section and the figures of a segmentation run.

    Raises CorruptRun where the maps are not those that were stored.
    """
    evidence = PixelEvidence(stored)
    figures = {"pixels": certified_pixels(evidence)}
    return Parts(page(evidence, figures), table(evidence), card(evidence), figures)


def page(evidence: PixelEvidence, figures: Mapping[str, Figure]) -> str:
    """The whole report as one HTML document, escaped throughout."""
    shown = panels(evidence)
    score = evidence.score
    by_class: list[tuple[str, float | None, float | None]] = (
        []
        if score is None
        else list(zip(evidence.classes, score.class_iou, score.plain_class_iou, strict=True))
    )
    return (
        environment()
        .get_template("segmentation.html.j2")
        .render(
            evidence=evidence,
            share=headline_share(evidence),
            claim=headline_claim(evidence),
            details=headline_details(evidence),
            says=says(evidence),
            omits=omits(evidence),
            attacked=attacked(evidence),
            figures={name: Markup(figure.inline()) for name, figure in figures.items()},
            by_class=by_class,
            panels=shown,
            key=list(zip(evidence.classes, colours(len(evidence.classes)), strict=True)),
            table=[r for r in evidence.records if r.details.get("pixels")],
            front=denoiser_of(evidence.settings),
            settings=flat(evidence.settings),
            samples=sum(r.samples for r in evidence.records),
            seconds=sum(r.seconds for r in evidence.records),
        )
    )


def headline_share(evidence: PixelEvidence) -> str:
    if not evidence.records:
        return "No image"
    [row] = evidence.at((evidence.headline_radius,))
    return percent_down(row.share if row.correct is None else row.correct.value)


def headline_claim(evidence: PixelEvidence) -> str:
    if not evidence.records:
        return "has been certified yet."
    what = "the labelled pixels" if evidence.labelled else "the pixels"
    keep = "have and keep their true class" if evidence.labelled else "keep their class"
    radius = evidence.headline_radius
    reach = (
        f"under every change of the whole image of {evidence.norm} size up to {radius_short(radius, 4)}."
        if radius > 0
        else "in the smoothed segmentation."
    )
    return f"of {what} of {count(len(evidence.records))} images are proved to {keep} {reach}"


def headline_details(evidence: PixelEvidence) -> list[str]:
    how = (
        f"{'Lehmann and Romano' if evidence.tolerate else 'Holm'}'s procedure tested this one radius, chosen "
        "beforehand"
        if evidence.tested is not None
        else "every pixel has a radius of its own (Bonferroni), so other radii may be read off below"
    )
    but = f", but at most {percent(evidence.tolerate)} of its pixels," if evidence.tolerate else ""
    lines = [
        f"Image by image, all its certified pixels{but} hold together with probability at least "
        f"{at_least(evidence.alpha)}: {how}."
    ]
    if evidence.pixels:
        left = percent_up(evidence.abstaining / evidence.pixels)
        lines.append(f"{left} of the pixels abstain: about their class nothing is proved.")
    return lines


def says(evidence: PixelEvidence) -> list[str]:
    n = len(evidence.records)
    expected = min(1.0, n * evidence.alpha)
    wrong = "more wrong certified pixels than that" if evidence.tolerate else "a wrong certified pixel"
    return [
        "It is about the smoothed segmentation: at every pixel, the class that the model gives it most often "
        "when noise is added to the whole image.",
        *_at_once(evidence),
        f"Over {count(n)} images the probability that some image has {wrong} is at most {at_most(expected)}.",
        *front_sentences(evidence.settings),
    ]


def _at_once(evidence: PixelEvidence) -> list[str]:
    """What an attacker of a whole image can do to its certified pixels."""
    if evidence.tolerate:
        return [
            f"Of one image's pixels at most {percent(evidence.tolerate)} are certified wrongly; which ones "
            "is not known. All other certified pixels keep their classes all at once within the "
            f"{evidence.norm} ball."
        ]
    return [
        "The certified pixels of one image keep their classes all at once, whichever way the image is "
        f"moved within the {evidence.norm} ball: an attacker who spends everything on one pixel changes "
        "neither that pixel nor any other certified one."
    ]


def omits(evidence: PixelEvidence) -> list[str]:
    lines = [
        "A certified class may be the wrong one: only the share that is also correct counts as a proof.",
        "An abstaining pixel is neither right nor broken. Beyond the radius nothing is claimed.",
        "One call of the model on a clean image has no certificate; its scores are shown for comparison.",
        "The intervals over images speak of the images' population; they are Student's, an approximation.",
        "The run directory is hashed, not signed.",
        *interval_notes(evidence.records, evidence.settings),
    ]
    if caveat := law_of(evidence.settings).caveat:
        lines.insert(0, caveat)
    return lines


def attacked(evidence: PixelEvidence) -> str:
    """What attacks on the smoothed segmentation say about the certificates, in one sentence."""
    hits = evidence.attacks.contradictions
    if hits:
        images = len({hit.index for hit in hits})
        return (
            f"{count(len(hits))} certified pixel{'s' * (len(hits) > 1)} of {count(images)} image"
            f"{'s' * (images > 1)} changed class within the certified radius; a certificate and a "
            "counterexample contradict each other."
        )
    pixels, images = evidence.attacks.challenged
    tried = (
        f" {count(pixels)} certified pixels of {count(images)} images were attacked inside their own balls."
        if images
        else ""
    )
    if not images and not any(row.smoothed for row in evidence.attacks.rows):
        return "The smoothed segmentation has not been attacked yet."
    return f"No certified pixel was confirmed to change its class within its radius.{tried}"


def table(evidence: PixelEvidence) -> str:
    """The certified shares as a LaTeX float (booktabs)."""
    settings = (
        f"{count(len(evidence.records))} images, $\\sigma={evidence.sigma:g}$, $\\alpha={evidence.alpha:g}$ "
        f"per image, {escape(str(evidence.options.get('correction')).capitalize())}"
        + (f", {escape(percent(evidence.tolerate))} of the pixels may be wrong" if evidence.tolerate else "")
    )
    lines = [
        "% Needs \\usepackage{booktabs}. Certified values are rounded down.",
        "\\begin{table}[t]", "\\centering",
        f"\\caption{{Certified pixels of {escape(evidence.name)} ({settings}), "
        f"{escape(evidence.norm)} radius.}}",
        "\\begin{tabular}{r rrr}", "\\toprule",
        "Radius & Certified & Certified, correct & Interval \\\\", "\\midrule",
    ]  # fmt: skip
    for row in evidence.rows:
        right = ("--", "--")
        if row.correct is not None:
            right = escape(percent_down(row.correct.value)), escape(percent_interval(row.correct))
        lines.append(
            f"{radius_short(row.radius, 4)} & {escape(percent_down(row.share))} & {' & '.join(right)} \\\\"
        )
    lines += ["\\bottomrule", "\\end{tabular}"]
    if (score := evidence.score) is not None:
        lines.append(
            f"\\par\\smallskip\\footnotesize Mean IoU {plain(score.mean_iou)} (abstaining pixels count as "
            f"wrong); base model without noise {plain(score.plain_mean_iou)}."
        )
    return "\n".join([*lines, "\\end{table}", ""])


def card(evidence: PixelEvidence) -> str:
    """What a model card should say about this run."""
    lines = ["## Robustness of the segmentation", ""]
    if evidence.attacks.contradictions:
        lines += [f"**This run is invalid: {attacked(evidence)}**", ""]
    lines += [
        f"**{headline_share(evidence)}** {headline_claim(evidence)}",
        "",
        *headline_details(evidence),
        "",
    ]
    lines += [
        "| radius | certified | certified and correct | 95 % interval |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in evidence.rows:
        right = ("–", "–")
        if row.correct is not None:
            right = percent_down(row.correct.value), percent_interval(row.correct)
        lines.append(f"| {radius_short(row.radius, 4)} | {percent_down(row.share)} | {' | '.join(right)} |")
    if (score := evidence.score) is not None:
        lines += [
            "", f"Mean IoU {plain(score.mean_iou)}, abstaining pixels counted as wrong; base model without "
            f"noise {plain(score.plain_mean_iou)}.",
        ]  # fmt: skip
    if evidence.attacks.rows or evidence.attacks.challenged[1]:
        lines += ["", attacked(evidence)]
    lines += ["", "### Guarantee", "", f"> {markdown(evidence.run.guarantee)}", ""]
    lines += [f"- {markdown(s)}" for s in says(evidence)]
    lines += ["", "Not claimed:", ""] + [f"- {markdown(s)}" for s in omits(evidence)]
    return "\n".join([*lines, *made_by(evidence.settings.get("command"))]) + "\n"
