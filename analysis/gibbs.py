"""The Gibbs classifier of a network: Gaussian noise on its weights, fresh for every prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from analysis.heldout import MeasuredGap, kl_inverse
from analysis.hidden_state import hidden_state, refuse_learned
from analysis.pac_bayes import kl_form, pac_bayes_bounds
from analysis.result import GUARANTEED, GUARANTEED_IF_FIXED, BoundResult
from analysis.streams import stream
from certify.bounds import binomial_interval
from certify.calls import checked
from certify.errors import InvalidInput, InvalidModel, InvalidSetting

#: Standard deviations of the weights that are tried; the union bound pays for all of them.
SCALES = tuple(1.2 * 2.0**-k for k in range(10))

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Gibbs:
    """Weights N(mean, diag(scale^2)) around a network; ``scale`` is one number or one tensor per weight.

    ``input_sigma`` adds Gaussian noise to the inputs as well (the noise is part of the classifier).
    """

    model: nn.Module
    mean: Weights
    scale: float | Weights
    input_sigma: float = 0.0

    @classmethod
    def around(cls, model: nn.Module, scale: float) -> Gibbs:
        """Isotropic noise around the network's own weights."""
        return cls(model, {k: v.detach() for k, v in model.named_parameters()}, scale)

    def deviation(self, name: str) -> Tensor | float:
        """Standard deviation of the noise on the parameter ``name``."""
        return self.scale if isinstance(self.scale, int | float) else self.scale[name]

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One set of weights."""
        return {
            k: m + self.deviation(k) * torch.randn(m.shape, generator=generator, dtype=m.dtype)
            for k, m in self.mean.items()
        }

    def errors(self, weights: Weights, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Whether each point is misclassified under these weights, shape (n,), bool."""
        out = []
        with torch.no_grad():
            for xs, ys in zip(x.split(2000), y.split(2000), strict=True):
                if self.input_sigma:
                    xs = xs + self.input_sigma * torch.randn(xs.shape, generator=generator)
                out.append(functional_call(self.model, dict(weights), (xs,)).argmax(1) != ys)
        return torch.cat(out)

    def empirical_risk(self, x: Tensor, y: Tensor, *, draws: int = 100, generator: torch.Generator) -> float:
        """Mean error over ``draws`` weight samples on the points."""
        _check(x, y, draws)
        total = sum(
            float(self.errors(w, x, y, generator).double().mean()) for w in self._draws(draws, generator)
        )
        return total / draws

    def risk_interval(
        self, x: Tensor, y: Tensor, *, delta: float = 0.05, generator: torch.Generator
    ) -> tuple[int, float, float]:
        """Mistakes with fresh weights for *every* point, and the Clopper-Pearson interval of the Gibbs risk.

        One independent draw per point makes the mistakes i.i.d. Bernoulli with the Gibbs risk.
        """
        _check(x, y, 1)
        wrong = 0
        for xs, ys in zip(x.split(1), y.split(1), strict=True):
            wrong += int(self.errors(self.draw(generator), xs, ys, generator))
        low, high = binomial_interval(wrong, len(y), delta)
        return wrong, low, high

    def gap(
        self,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        *,
        draws: int = 100,
        delta: float = 0.05,
        predictor: str,
        generator: torch.Generator,
    ) -> MeasuredGap:
        """The measured generalization gap of the Gibbs classifier.

        Both errors are estimated. A tenth of delta pays for the training error, a mean over ``draws``
        independent weights (Chernoff in kl form, on both sides), the rest for the test error.
        """
        train_error = self.empirical_risk(*train, draws=draws, generator=generator)
        budget = math.log(20 / delta) / draws
        train_high, train_low = kl_inverse(train_error, budget), 1 - kl_inverse(1 - train_error, budget)
        wrong, low, high = self.risk_interval(*test, delta=0.9 * delta, generator=generator)
        n = len(test[1])
        return MeasuredGap(
            wrong / n - train_error, low - train_high, high - train_low, train_error, wrong / n,
            low, high, len(train[1]), n, delta, predictor, train_low, train_high,
        )  # fmt: skip

    def _draws(self, draws: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        return (self.draw(generator) for _ in range(draws))


def gaussian_kl(mean: Weights, scale: float | Weights, prior: Weights, prior_scale: float) -> float:
    """KL(N(mean, diag scale^2) | N(prior, prior_scale^2 I)) over all weights, in nats."""
    total = 0.0
    for key, m in mean.items():
        s = torch.as_tensor(scale if isinstance(scale, int | float) else scale[key]).double()
        variance = (s / prior_scale) ** 2
        shift = ((m.double() - prior[key].double()) / prior_scale) ** 2
        per_weight = (variance - 1 - torch.log(variance)).expand(m.shape) + shift
        total += 0.5 * float(per_weight.sum())
    return max(0.0, total)


@checked
def perturbation_bounds(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    delta: float = 0.05,
    *,
    prior: Weights | None = None,
    prior_name: str | None = None,
    fresh: nn.Module | None = None,
    draws: int = 300,
    generator: torch.Generator | None = None,
) -> tuple[list[BoundResult], Gibbs]:
    """PAC-Bayes bounds for the network with Gaussian noise on its weights, and that classifier.

    The prior is N(w0, s^2 I) with w0 = ``prior`` (zero where None), the posterior N(w, s^2 I), so that
    KL = |w - w0|^2 / (2 s^2); s is the best of ``SCALES`` and the union bound pays for the choice.
    ``prior`` must not depend on (x, y): initial weights, or weights trained on other data.
    ``fresh`` is an untrained network of the same architecture: what else the network holds (buffers) must be
    as it is there. Without it buffers are assumed independent of (x, y), and the rows' validity says so.
    Raises InvalidInput for a network without weights; InvalidModel in training mode and for one whose running
    statistics or other buffers were learned.
    """
    generator = stream(0, "weights") if generator is None else generator
    mean = {k: v.detach().cpu() for k, v in model.named_parameters()}
    if not mean:
        raise InvalidInput(
            "the network has no weights to perturb",
            why="PAC-Bayes compares a posterior over weights with a prior",
            remedy="use the test-set bound",
        )
    if any(part.training for part in model.modules()):
        raise InvalidModel(
            "a Gibbs classifier needs its network in evaluation mode",
            why="in training mode an answer depends on the other points of the batch, or on further noise",
            remedy="call model.eval() first",
        )
    state = hidden_state(model, fresh)
    refuse_learned(state)
    start = {k: torch.zeros_like(v) for k, v in mean.items()} if prior is None else prior
    name = prior_name or ("zero weights" if prior is None else "given weights")
    scale = _pilot(model, mean, start, x, y, delta, generator)
    gibbs = Gibbs(model, mean, scale)
    rows = pac_bayes_bounds(
        gibbs.empirical_risk(x, y, draws=draws, generator=generator),
        gaussian_kl(mean, scale, start, scale), len(y), delta, draws=draws, choices=len(SCALES), prior=name,
        predictor=f"Gibbs: weights with noise {scale:.3g}", seed=generator.initial_seed(),
        validity=GUARANTEED_IF_FIXED if state.unknown else GUARANTEED,
        assumptions=[f"{', '.join(state.unknown[:3])} independent of these points"] if state.unknown else (),
    )  # fmt: skip
    return rows, gibbs


def _pilot(
    model: nn.Module,
    mean: Weights,
    start: Weights,
    x: Tensor,
    y: Tensor,
    delta: float,
    generator: torch.Generator,
) -> float:
    """The scale that promises the smallest bound, from a few draws on some of the points."""
    few = slice(0, 300)
    promised = {}
    for scale in SCALES:
        risk = Gibbs(model, mean, scale).empirical_risk(x[few], y[few], draws=8, generator=generator)
        kl = gaussian_kl(mean, scale, start, scale)
        promised[scale] = (kl_form(risk, kl, len(y), delta / len(SCALES)), kl)
    # Where every bound is vacuous the least complexity is the least bad.
    return min(promised, key=lambda s: promised[s])


def squared_distance(mean: Weights, prior: Weights | None = None) -> float:
    """|w - w0|^2, with w0 = 0 by default."""
    return math.fsum(
        float(((v if prior is None else v - prior[k]).double() ** 2).sum()) for k, v in mean.items()
    )


def _check(x: Tensor, y: Tensor, draws: int) -> None:
    if len(x) != len(y) or len(y) == 0 or draws < 1:
        raise InvalidSetting(
            f"{len(x)} inputs, {len(y)} labels, {draws} draws",
            why="the Gibbs risk needs labelled points and at least one draw",
            remedy="pass x and y of equal, positive length",
        )
