"""The one door to the model under attack: scores, input gradients, and their cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attacks.under_attack import UnderAttack, slope

#: A loss maps (scores (rows, classes)) to (rows,): the attack ascends it.
Loss = Callable[[Tensor], Tensor]


class Oracle:
    """Scores and input gradients of ``model`` in the working precision, counted per input.

    ``focus(samples)`` names the input behind each row of the following calls, so that cost is
    charged to the right input; it is charged when the focus changes, which keeps single calls free
    of bookkeeping. Parameters receive no gradient: only the inputs are differentiated.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], inputs: int) -> None:
        self.model = UnderAttack.of(model)
        self.forwards = np.zeros(inputs, dtype=np.int64)
        self.backwards = np.zeros(inputs, dtype=np.int64)
        #: Inputs on which a search by scores met one margin only: it had nothing to follow.
        self.plateau = np.zeros(inputs, dtype=bool)
        self._rows: np.ndarray | None = None
        self._pending = [0, 0]

    def focus(self, samples: Tensor | None) -> None:
        """The next calls evaluate these inputs, one per row (None: charge what is pending)."""
        if self._rows is not None and any(self._pending):
            np.add.at(self.forwards, self._rows, self._pending[0])
            np.add.at(self.backwards, self._rows, self._pending[1])
        self._pending = [0, 0]
        self._rows = None if samples is None else samples.cpu().numpy()

    def scores(self, x: Tensor) -> Tensor:
        """(rows, classes) scores, without a graph."""
        self._pending[0] += 1
        with torch.no_grad():
            return self.model(x)

    def answers(self, x: Tensor) -> Tensor:
        """(rows, classes) scores of the model's own classes, whatever the search sees of them."""
        return self.scores(x)

    def own(self, x: Tensor) -> Tensor:
        """``answers`` with a graph."""
        return self.differentiable(x)

    def differentiable(self, x: Tensor) -> Tensor:
        """Scores with a graph, for one backward pass by the caller."""
        self._pending[0] += 1
        self._pending[1] += 1
        return self.model(x)

    def ascend(self, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (rows, classes), loss (rows,) and its gradient at ``x``, all detached."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            scores = self.differentiable(leaf)
            value = loss(scores)
            gradient = slope(value, leaf)
        return scores.detach(), value.detach(), gradient
