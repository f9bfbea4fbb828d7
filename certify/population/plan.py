"""What a run states about a population, fixed before the first sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certify.bounds import check_alpha
from certify.errors import InvalidSetting
from certify.population.bounds import MOST_COPIES, PILOT, level_of, pilot_size
from certify.population.order import keyed_order
from certify.population.rules import ABOUT

TASK = "population"
#: Copies of each input where nobody says how many; one is enough for the one-copy classifier.
SAMPLES, ONE_PASS_SAMPLES = 25, 1
#: No more radii and inputs are planned than this.
MOST_RADII, MOST_INPUTS = 64, 4_000_000
#: Targets are moved outward by this much: more than two ways to compute them differ by.
_OUTWARD = 1e-12


@dataclass(frozen=True)
class Plan:
    """Radii to state, copies per input, and which inputs of a split of ``of`` are used for what.

    ``inputs`` of the split are drawn; the first ``pilot`` of them choose the rules, the others are counted.
    ``alpha`` is shared by the radii and, with ``one_pass``, the one-copy classifier. ``shift``: mean size
    of the shifts that its accuracy is stated for.
    """

    radii: tuple[float, ...]
    sigma: float
    tv: float
    n: int
    of: int
    inputs: int
    pilot: int
    alpha: float
    about: str = "population"
    one_pass: bool = False
    shift: float | None = None

    name = TASK
    statistic = "counts"

    @property
    def share(self) -> float:
        """The level of each statement: by the union bound all lower ends hold together at alpha.

        From one copy of each input all of them follow from one bound, on the mean of p.
        """
        return self.alpha / self.sharing

    @property
    def sharing(self) -> int:
        """How many statements share the level."""
        return 1 if self.n == 1 and self.about == "population" else len(self.radii) + self.one_pass

    def targets(self, radius: float) -> tuple[float, float]:
        """p that proves ``radius``, and p below which no proof is left; both beyond the sampler's error."""
        from scipy import special

        p = float(special.ndtr(radius / self.sigma))
        return p + self.tv + _OUTWARD, p - self.tv - _OUTWARD

    def order(self, seed: int | str) -> list[int]:
        """The ids of the inputs drawn from the split: the pilot's first, then the counted ones."""
        return keyed_order(range(self.of), seed, TASK)[: self.inputs]

    def settings(self) -> dict[str, Any]:
        """Every number that defines the plan, as JSON types."""
        return {
            "radii": list(self.radii), "n": self.n, "of": self.of, "inputs": self.inputs,
            "pilot": self.pilot, "alpha": self.alpha, "tv": self.tv, "about": self.about,
            "one_pass": self.one_pass, "shift": self.shift,
        }  # fmt: skip

    @classmethod
    def of_settings(cls, settings: Any) -> Plan:
        """The plan that a run with these settings was made by."""
        options = settings["mode_options"]
        return cls(
            radii=tuple(float(r) for r in options["radii"]), sigma=float(settings["sigma"]),
            tv=float(options["tv"]), n=int(options["n"]), of=int(options["of"]),
            inputs=int(options["inputs"]), pilot=int(options["pilot"]), alpha=float(options["alpha"]),
            about=str(options["about"]), one_pass=bool(options["one_pass"]), shift=options["shift"],
        )  # fmt: skip

    def guarantee(self) -> str:
        """What all of the run's statements rest on, as sentences."""
        whom = {
            "population": "inputs drawn independently from the population",
            "set": "a random subset of a finite set of inputs, which the statement is about",
        }[self.about]
        return (
            f"{self.n} noisy copies of each of {self.inputs} inputs are classified; {self.pilot} only choose "
            f"the rules. It presumes {whom}, none of them chosen, or used for training or tuning, "
            "and settings that were fixed before. No input is certified by itself. An upper end is about the "
            "criterion of the proof: an input that misses it may still be robust."
        )


def make_plan(
    radii: Sequence[float], *, sigma: float, tv: float, of: int, samples: int | None = None,
    inputs: int | None = None, confidence: float = 0.999, pilot: float | None = None,
    about: str = "population", one_pass: bool = False, shift: float | None = None,
) -> Plan:  # fmt: skip
    """The plan for a split of ``of`` inputs. ``samples``: copies of each (25; 1 with ``one_pass``).

    ``pilot``: share of the inputs (0.1; none for one copy, where there is only one rule).

    Raises InvalidSetting for radii that repeat, are no radii or cannot be told with so few copies and inputs.
    """
    if about not in ABOUT:
        raise InvalidSetting(
            f"a statement about {about!r} is unknown",
            why="inputs are independent draws from a population, or a random subset of a finite set",
            remedy=f"use {' or '.join(ABOUT)}",
        )
    if samples is None:
        samples = ONE_PASS_SAMPLES if one_pass else SAMPLES
    inputs = of if inputs is None else inputs
    if pilot is None:
        pilot = 0.0 if samples == 1 else PILOT
    if max(samples / MOST_COPIES, len(radii) / MOST_RADII, of / MOST_INPUTS) > 1:
        raise InvalidSetting(
            f"{samples} copies of each input, {len(radii)} radii and {of} inputs are too many for statements",
            why=f"at most {MOST_COPIES}, {MOST_RADII} and {MOST_INPUTS:,} are planned",
            remedy="use 25 to 100 copies: more inputs say more than more copies",
        )
    if samples < 1 or not 2 <= inputs <= of:
        raise InvalidSetting(
            f"{samples} copies of {inputs} of {of} inputs cannot be drawn",
            why="each input needs at least one copy, and at least two inputs of the split must be used",
            remedy="use --samples 25, and leave --limit out to use the whole split",
        )
    if shift is not None and (not one_pass or not (math.isfinite(shift) and shift >= 0)):
        raise InvalidSetting(
            f"a shift of {shift} cannot be stated",
            why="it is the finite mean size of a shift, and about the classifier that answers from one copy",
            remedy="add --one-pass, and give a size such as --shift 0.1",
        )
    values = tuple(float(r) for r in radii)
    if not values or len(set(values)) != len(values) or not all(math.isfinite(r) and r >= 0 for r in values):
        raise InvalidSetting(
            f"the radii {list(radii)} cannot be stated",
            why="each must be finite, at least 0, and given once: every radius costs a part of the level",
            remedy="give --radius 0.5, or several such as --radius 0.25 --radius 0.5",
        )
    found = Plan(
        values, sigma, tv, int(samples), of, inputs, pilot_size(inputs, pilot), level_of(confidence),
        about, one_pass, shift,
    )  # fmt: skip
    check_alpha(found.share)
    for radius in values:
        _refuse_beyond_reach(found, radius)
    return found


def _refuse_beyond_reach(plan: Plan, radius: float) -> None:
    """Even with every copy of every input right, enough of them are needed to prove anything."""
    target = plan.targets(radius)[0]
    counted = plan.inputs - plan.pilot
    need = math.log(plan.share) / counted  # P(all of an input's copies are right) that all counted ones prove
    if plan.n * math.log(min(target, 1.0)) < need or (target < 1.0 and plan.one_pass):
        return
    copies = (
        f"--samples {math.ceil(need / math.log(target)) + 1}" if target < 1.0 - 1e-9 else "a smaller radius"
    )
    raise InvalidSetting(
        f"nothing can be stated about radius {radius:g} with {plan.n} copies of {counted} counted inputs",
        why=f"it needs copies that are right with probability {target:.6g}, and an input at that limit "
        f"has all of its copies right with probability {min(target, 1.0) ** plan.n:.4g}",
        remedy=f"use {copies}, or a network trained with more noise",
    )
