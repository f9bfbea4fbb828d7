"""What can be broken: attacks on a model and on its smoothed version, judged.

    from attacks import Threat, attack
    run = attack(model, x, y, threat=Threat(norm=2, eps=0.5), preset="standard", seed=0)
    run.counts(), run.robust_accuracy(), run.frame()

Only what one judge confirmed counts as broken; an input that was not *survived this preset*, no more.
"""

from attacks.budget import Budget
from attacks.challenge import challenge
from attacks.outcomes import AttackOutcome, AttackRun, AttackStatus
from attacks.presets import PRESETS
from attacks.saved import load, save
from attacks.suite import attack
from attacks.threat import Threat

__all__ = [
    "PRESETS",
    "AttackOutcome",
    "AttackRun",
    "AttackStatus",
    "Budget",
    "Threat",
    "attack",
    "challenge",
    "load",
    "save",
]


def __dir__() -> list[str]:
    return sorted(__all__)
