"""The certificate in one paragraph: what holds, where, with which probability, and over what.

Each number is rounded against the claim. The same words stand at the head of a report; ``docs/soundness.md``
takes them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certify.audits import POPULATION_SENTENCE, SENTENCE, TWO_SIDED_SENTENCE
from certify.chances import at_least, percent
from certify.denoising import what_is_certified
from certify.seeds import BITS, Seed

if TYPE_CHECKING:
    from certify.dense.procedure import PixelTests
    from certify.dense.smoothing import SmoothedSegmentation
    from certify.population.plan import Plan
    from certify.procedures.outcome import Procedure
    from certify.smoothing import Smoothed


def of_classes(g: Smoothed, procedure: Procedure, alpha: float, seed: Seed) -> str:
    """The guarantee of a run that certifies one class per input."""
    law = g.noise.about
    return (
        f"For each input separately, {promise(alpha)}, the smoothed classifier of "
        f"{what_is_certified(g.model)} (sigma = {g.sigma_scale:g}, {law.label}, {g.classifier.dtype}) "
        "returns the certified class at "
        f"{law.reach(g.grid)} within the certified l{g.norm} distance. That probability is each tried "
        f"input's; it is no error rate among the certified ones. {origin(seed)} {procedure.guarantee()}"
        f"{TWO_SIDED_SENTENCE if getattr(procedure, 'runner_up', 0.0) else SENTENCE}"
    )


def of_pixels(g: SmoothedSegmentation, procedure: PixelTests, seed: Seed) -> str:
    """The guarantee of a run that certifies pixels."""
    law = g.noise.about
    return (
        f"For each image separately, {promise(procedure.alpha)}, the smoothed segmentation of "
        f"{what_is_certified(g.model)} (sigma = {g.sigma_scale:g}, {law.label}, {g.classifier.dtype}) "
        f"gives every certified pixel of the image, {all_but(procedure.tolerate)}, its certified class at "
        f"{law.reach(g.grid)} within the certified l{g.norm} distance of the image. That probability is each "
        "tried image's; it is no error rate among "
        f"the certified ones. {origin(seed)} {procedure.guarantee()} Pixels that are not certified abstain."
        f"{SENTENCE}"
    )


def of_population(g: Smoothed, plan: Plan, seed: Seed) -> str:
    """The guarantee of a run that states something about a population, or about a set of inputs."""
    law = g.noise.about
    one = ""
    if plan.one_pass:
        one = ", or the accuracy of the one-copy classifier under every attack of that size"
    return (
        f"For all statements of this run together, {promise(plan.alpha)} and over the draw of the inputs no "
        f"lower end exceeds the share of the {plan.about} on which the smoothed classifier of "
        f"{what_is_certified(g.model)} (sigma = {plan.sigma:g}, {law.label}, {g.classifier.dtype}) is right "
        f"and stays right at {law.reach(g.grid)} within the stated l2 distance{one}. {origin(seed)} "
        f"{plan.guarantee()}{POPULATION_SENTENCE}"
    )


def all_but(tolerate: float) -> str:
    """Of how many certified pixels of an image a guarantee speaks together."""
    if not tolerate:
        return "all of them together"
    return f"all of them together but at most {percent(tolerate)} of the image's pixels"


def promise(alpha: float) -> str:
    """The probability of a certificate, and the randomness that it is over."""
    return (
        f"with probability at least {at_least(alpha)} over the seed of the noise ({BITS} random bits, drawn "
        "independently of model, data and settings; what the generator, Philox, makes of them is taken as "
        "random)"
    )


def origin(seed: Seed) -> str:
    """Where this run's seed came from."""
    if seed.origin == "drawn":
        return "The seed was drawn for this run."
    return (
        "The seed was chosen by the user, to whom it is left that model, data and settings had no part in it."
    )
