"""What can be broken of a segmentation: attacks on single pixels' classes, and on certified pixels.

    from attacks import Threat
    from attacks.dense import attack_segmentation, challenge_segmentation
    run = attack_segmentation(network, x, y, threat=Threat(2, eps=0.5))
    run.accuracy(), run.mean_iou(), run[0].broken

A pixel counts as broken only where it was confirmed; one that was not *survived this preset*, no more.
"""

from attacks.dense.challenge import challenge_segmentation
from attacks.dense.outcomes import Attempt, PixelAttack, SegmentationAttackRun
from attacks.dense.presets import DENSE_PRESETS
from attacks.dense.suite import attack_segmentation

__all__ = [
    "DENSE_PRESETS",
    "Attempt",
    "PixelAttack",
    "SegmentationAttackRun",
    "attack_segmentation",
    "challenge_segmentation",
]
