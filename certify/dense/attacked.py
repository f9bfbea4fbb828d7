"""What an attack did to the pixels of one image: one vocabulary for result, tally and stored outcome."""

from __future__ import annotations

import numpy as np

from certify.dense.maps import IGNORE


class AttackedPixels:
    """Maps of shape (height, width), and what follows from them.

    ``label``: the class each pixel was to lose (``IGNORE``: not at stake). ``clean``: its class before
    the attack, ``attacked`` under the strongest perturbation. ``by``: the number of the nearest attempt
    that was confirmed to change it, -1 where none was.
    """

    label: np.ndarray
    clean: np.ndarray
    attacked: np.ndarray
    by: np.ndarray

    @property
    def stake(self) -> np.ndarray:
        """Pixels whose class was to be changed."""
        return self.label != IGNORE

    @property
    def right(self) -> np.ndarray:
        """Pixels at stake that had their label's class before the attack: the ones that can be lost."""
        return self.stake & (self.clean == self.label)

    @property
    def broken(self) -> np.ndarray:
        """Pixels that lost it under the strongest perturbation: all by one and the same image."""
        return self.right & (self.attacked != self.label)

    @property
    def reached(self) -> np.ndarray:
        """Right pixels that some perturbation was confirmed to change, each maybe by another one."""
        return self.right & (self.by >= 0)
