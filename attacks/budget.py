"""What an attack may spend."""

from __future__ import annotations

from dataclasses import dataclass

from certify.bounds import check_alpha
from certify.calls import checked_class
from certify.errors import InvalidSetting


@checked_class
@dataclass(frozen=True)
class Budget:
    """Limits of one attack call; verdicts do not depend on ``batch_size``.

    ``batch_size``: inputs attacked together. ``rows``: largest number of rows in one evaluation of
    the model. The others speak of smoothed classifiers: ``draws`` noise draws per gradient, then
    ``refine_draws`` for the minimal distance; ``confirm_samples`` fresh noise samples per
    confirmation, at error ``alpha`` divided by ``tries``, the largest number of confirmations one
    input may ask for.
    """

    batch_size: int = 256
    rows: int = 2048
    draws: int = 16
    refine_draws: int = 64
    confirm_samples: int = 4000
    alpha: float = 1e-3
    tries: int = 4

    def __post_init__(self) -> None:
        for name in ("batch_size", "rows", "draws", "refine_draws", "confirm_samples", "tries"):
            if getattr(self, name) < 1:
                raise InvalidSetting(
                    f"budget {name}={getattr(self, name)} is not a number of evaluations",
                    why="it must be at least 1",
                    remedy=f"give {name} >= 1, or leave it out",
                )
        if not 0 < self.alpha < 1:
            raise InvalidSetting(
                f"alpha={self.alpha} is not an error probability",
                why="it must lie strictly between 0 and 1",
                remedy="give alpha such as 0.001",
            )
        check_alpha(self.alpha / 2, name="half of alpha", shares=self.tries)
