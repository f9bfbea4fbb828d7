"""PAC-Bayes bounds on the Gibbs risk: three forms of one inequality.

A Gibbs classifier draws its weights afresh for every prediction from a posterior Q; ``kl`` is
KL(Q | P) to a prior P chosen without the ``n`` points the empirical risk is measured on. All
three bound the risk of that random classifier, not of the network at the posterior's mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.given import check_count, check_delta
from analysis.heldout import kl_inverse
from analysis.result import GUARANTEED, BoundResult
from certify.calls import checked
from certify.errors import InvalidSetting

#: Catoni's free parameter has to be fixed in advance: a union bound over this grid is paid.
CATONI_GRID = tuple(2.0 ** (k / 2) for k in range(-2, 9))


def kl_form(risk: float, kl: float, n: int, delta: float) -> float:
    """Largest p with kl(risk | p) <= (KL + ln(2 sqrt(n) / delta)) / n.

    Seeger 2002; Maurer 2004 (the constant 2 sqrt(n), for n >= 8).
    """
    return kl_inverse(risk, _complexity(kl, n, delta))


def mcallester(risk: float, kl: float, n: int, delta: float) -> float:
    """risk + sqrt((KL + ln(2 sqrt(n) / delta)) / (2 n)): the kl form weakened by Pinsker's inequality."""
    return risk + math.sqrt(_complexity(kl, n, delta) / 2)


def catoni(risk: float, kl: float, n: int, delta: float, *, grid: Sequence[float] = CATONI_GRID) -> float:
    """min over C in the grid of (1 - exp(-C risk - (KL + ln(m / delta)) / n)) / (1 - exp(-C)).

    Catoni 2007, Theorem 1.2.6, with a union bound over the m values of C.
    """
    _complexity(kl, n, delta)
    price = (kl + math.log(len(grid) / delta)) / n
    return min(-math.expm1(-c * risk - price) / -math.expm1(-c) for c in grid)


def gibbs_risk_upper(mean_error: float, draws: int, delta: float) -> float:
    """Upper bound on the empirical Gibbs risk from the mean error of ``draws`` weight samples.

    Chernoff in kl form for i.i.d. values in [0, 1]: kl(mean | risk) <= ln(1/delta)/draws.
    Langford and Caruana 2001.
    """
    return kl_inverse(mean_error, math.log(1 / delta) / draws)


@checked
def pac_bayes_bounds(
    mean_error: float,
    kl: float,
    n: int,
    delta: float = 0.05,
    *,
    draws: int,
    choices: int = 1,
    prior: str,
    predictor: str,
    seed: int | None = None,
    validity: str = GUARANTEED,
    assumptions: Sequence[str] = (),
) -> list[BoundResult]:
    """The three forms from a sampled empirical Gibbs risk, each valid with probability 1 - delta.

    A tenth of delta pays for the ``draws`` weight samples, the rest is shared by ``choices`` priors
    among which the best was picked after seeing the data. ``validity`` and further ``assumptions`` are the
    caller's to name: the map from weights to classifiers must be fixed before the points are seen.
    """
    check_delta(delta)
    check_count("draws", draws)
    check_count("choices", choices)
    sampling, rest = delta / 10, delta * 0.9 / choices
    risk = gibbs_risk_upper(mean_error, draws, sampling / choices)
    terms = {"empirical_gibbs_risk": mean_error, "risk_upper": risk, "kl": kl, "n": float(n)}
    forms = (
        ("PAC-Bayes, kl form", "Maurer 2004; Langford and Caruana 2001", kl_form),
        ("PAC-Bayes, McAllester", "McAllester 1999, constant of Maurer 2004", mcallester),
        ("PAC-Bayes, Catoni", "Catoni 2007, Theorem 1.2.6", catoni),
    )
    return [
        BoundResult(
            name=f"{name}, {prior}",
            reference=reference,
            target="risk",
            predictor=predictor,
            side="upper",
            validity=validity,
            value=form(risk, kl, n, rest),
            low=0.0,
            high=form(risk, kl, n, rest),
            terms=terms,
            delta=delta,
            union_terms={"weight_samples": sampling, "theorem": delta * 0.9, "priors": float(choices)},
            data_used=f"{n} training points, {draws} weight samples",
            assumptions=(f"prior: {prior}, independent of these points", "points i.i.d.", *assumptions),
            seed=seed,
        )
        for name, reference, form in forms
    ]


def _complexity(kl: float, n: int, delta: float) -> float:
    if not (kl >= 0 and n >= 8 and 0 < delta < 1):
        raise InvalidSetting(
            f"KL={kl!r}, n={n!r}, delta={delta!r} give no PAC-Bayes bound",
            why="the inequality needs KL >= 0, n >= 8 and 0 < delta < 1",
            remedy="use more points, and delta such as 0.05",
        )
    return (kl + math.log(2 * math.sqrt(n) / delta)) / n
