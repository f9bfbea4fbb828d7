"""Train a posterior by minimising its own PAC-Bayes bound, with a prior learned on other data.

Perez-Ortiz, Rivasplata, Shawe-Taylor and Szepesvari, "Tighter risk certificates for neural networks",
JMLR 2021 (PAC-Bayes with backprop); Dziugaite and Roy, UAI 2017 and 2018 (data-dependent priors). The
bound it ends with is computed only on points that the prior has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from analysis.gibbs import Gibbs, gaussian_kl
from analysis.pac_bayes import pac_bayes_bounds
from analysis.result import BoundResult
from analysis.streams import stream
from certify.calls import checked
from certify.errors import InvalidSetting

#: The cross-entropy is clipped at ln(1/P_MIN) and divided by it, to lie in [0, 1].
P_MIN = 1e-4


@dataclass(frozen=True)
class Posterior:
    """A trained Gibbs classifier, the prior it is compared with, and the bounds it satisfies.

    ``held`` are the indices of the training points that the bound was computed on.
    """

    gibbs: Gibbs
    prior: dict[str, Tensor]
    prior_scale: float
    kl: float
    held: Tensor
    bounds: tuple[BoundResult, ...]


@checked
def fit_posterior(
    factory: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    delta: float = 0.05,
    *,
    prior_share: float = 0.5,
    prior_scale: float = 0.03,
    prior_epochs: int = 60,
    epochs: int = 60,
    batch_size: int = 64,
    lr: float = 2e-3,
    input_sigma: float = 0.0,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> Posterior:
    """Learn the prior's mean on a random share of the data, posterior and bound on the rest.

    ``factory()`` builds the network (batch, ...) -> (batch, classes). The prior is N(w0, prior_scale^2 I)
    with w0 trained on the first part under that same weight noise (so that it is flat there);
    the posterior N(w, diag s^2) minimises clipped cross-entropy + sqrt((KL + ln(2 sqrt(n)/delta)) / (2n)).
    ``input_sigma`` trains and bounds the classifier under Gaussian input noise. ``draws`` weight samples
    evaluate the final bound. Raises InvalidSetting when fewer than 8 points remain for the bound.
    """
    generator = stream(0, "posterior") if generator is None else generator
    order = torch.randperm(len(y), generator=generator)
    cut = round(prior_share * len(y))
    learned, held = order[:cut], order[cut:]
    if len(held) < 8 or prior_scale <= 0:
        raise InvalidSetting(
            f"{len(held)} points are left for the bound, prior_scale = {prior_scale}",
            why="the bound is computed on points that the prior has not seen, and needs a positive scale",
            remedy="use more data, a smaller prior_share, and prior_scale such as 0.03",
        )
    model = factory().eval()
    mean = {k: v.detach().clone().requires_grad_() for k, v in model.named_parameters()}
    noise = _Noise(prior_scale, input_sigma, generator)
    if cut:
        optimizer = torch.optim.Adam(mean.values(), lr=lr)
        for rows in _batches(learned, batch_size, prior_epochs, generator):
            optimizer.zero_grad()
            F.cross_entropy(noise.logits(model, mean, None, x[rows]), y[rows]).backward()
            optimizer.step()
    prior = {k: v.detach().clone() for k, v in mean.items()}
    raw = {k: torch.full_like(v, _inverse_softplus(prior_scale)).requires_grad_() for k, v in mean.items()}
    optimizer = torch.optim.Adam([*mean.values(), *raw.values()], lr=lr / 4)
    n = len(held)
    for rows in _batches(held, batch_size, epochs, generator):
        optimizer.zero_grad()
        spread = {k: F.softplus(v) for k, v in raw.items()}
        logits = noise.logits(model, mean, spread, x[rows])
        loss = (F.nll_loss(_clipped_log(logits), y[rows])) / math.log(1 / P_MIN)
        price = (_kl(mean, spread, prior, prior_scale) + math.log(2 * math.sqrt(n) / delta)) / (2 * n)
        (loss + torch.sqrt(price)).backward()
        optimizer.step()
    scale = {k: F.softplus(v).detach() for k, v in raw.items()}
    gibbs = Gibbs(model, {k: v.detach() for k, v in mean.items()}, scale, input_sigma)
    kl = gaussian_kl(gibbs.mean, scale, prior, prior_scale)
    risk = gibbs.empirical_risk(x[held], y[held], draws=draws, generator=generator)
    label = f"prior learned on {cut} other points" if cut else "prior at initialisation"
    noisy = f", input noise {input_sigma:g}" if input_sigma else ""
    bounds = pac_bayes_bounds(
        risk, kl, n, delta, draws=draws, prior=label, seed=generator.initial_seed(),
        predictor=f"Gibbs: posterior trained on its bound{noisy}",
    )  # fmt: skip
    return Posterior(gibbs, prior, prior_scale, kl, held, tuple(bounds))


@dataclass(frozen=True)
class _Noise:
    prior_scale: float
    input_sigma: float
    generator: torch.Generator

    def logits(self, model: nn.Module, mean, spread, x: Tensor) -> Tensor:
        weights = {
            k: m
            + (self.prior_scale if spread is None else spread[k])
            * torch.randn(m.shape, generator=self.generator)
            for k, m in mean.items()
        }
        if self.input_sigma:
            x = x + self.input_sigma * torch.randn(x.shape, generator=self.generator)
        return functional_call(model, weights, (x,))


def _kl(mean, spread, prior, prior_scale: float) -> Tensor:
    total = torch.zeros(())
    for key, m in mean.items():
        variance = (spread[key] / prior_scale) ** 2
        total = (
            total + 0.5 * (variance - 1 - torch.log(variance) + ((m - prior[key]) / prior_scale) ** 2).sum()
        )
    return total


def _clipped_log(logits: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=1).clamp_min(math.log(P_MIN))


def _batches(rows: Tensor, size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from rows[torch.randperm(len(rows), generator=generator)].split(size)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
