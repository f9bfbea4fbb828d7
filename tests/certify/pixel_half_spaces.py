"""A segmenter whose certificates are known: every pixel's class is the side of its own hyperplane."""

import numpy as np
import torch


class PixelHalfSpaces:
    """Pixel i has class 1 where w_i . x > b_i, |w_i| = 1: at x = 0 its distance to the other class is |b_i|.

    ``distances`` (height, width): the b_i; a negative one gives class 1 at zero.
    """

    def __init__(self, distances, seed: int = 0, *, dim: int | None = None) -> None:
        self.b = torch.tensor(np.asarray(distances), dtype=torch.float32)
        size = self.b.numel()
        w = np.random.default_rng(seed).standard_normal((size, dim or size))
        self.w = torch.tensor(w / np.linalg.norm(w, axis=1, keepdims=True), dtype=torch.float32)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Row by row: a product of matrices may round differently for other batch sizes.
        side = (x.flatten(1)[:, None, :] * self.w).sum(2).reshape(len(x), *self.b.shape) - self.b
        return torch.stack([-side, side], dim=1)

    @property
    def truth(self) -> np.ndarray:
        """The class of every pixel at zero."""
        return (self.b < 0).long().numpy()

    @property
    def radii(self) -> np.ndarray:
        """The true distance of every pixel at zero."""
        return self.b.abs().double().numpy()

    def violated(self, maps) -> bool:
        """Whether some certified pixel claims another class, or a radius beyond its distance."""
        wrong = (maps.selected != self.truth) | (maps.radius > self.radii)
        return bool((maps.certified & wrong).any())
