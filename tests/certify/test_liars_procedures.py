"""Faulty procedures: each is caught by a coverage test, and none can be expressed in the API.

A procedure's claim is wrong when the class it names has a probability below the bound it gives.
The catcher counts wrong claims over simulated inputs and tests "wrong with probability <= alpha"
exactly; it stays silent for every procedure of the library (false alarm 1e-6 each).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

import certify
from certify.bounds import binomial_lower
from certify.errors import InvalidSetting, RunConflict
from certify.procedures import make_procedure
from certify.records import Status

ALPHA = 0.05
TRIALS = 1500
TIE = np.full(10, 0.1)
COIN = np.array([0.5, 0.5])

Claim = tuple[int, float] | None


def caught(
    procedure: Callable[[np.random.Generator], Claim], truth: np.ndarray, *, alpha: float = ALPHA
) -> bool:
    """Whether the share of wrong claims over TRIALS inputs refutes the level alpha at 1e-6."""
    rng = np.random.default_rng(20_240)
    wrong = 0
    for _ in range(TRIALS):
        claim = procedure(rng)
        wrong += claim is not None and claim[1] > truth[claim[0]]
    return bool(stats.binom.sf(wrong - 1, TRIALS, alpha) < 1e-6)


def lower(k: int, n: int, alpha: float = ALPHA) -> float:
    return binomial_lower(int(k), n, alpha)


# -- faults --------------------------------------------------------------------------------------


def selected_on_the_estimation_sample(rng):
    counts = rng.multinomial(100, TIE)
    return int(counts.argmax()), lower(counts.max(), 100)


def selection_samples_reused(rng):
    first, fresh = rng.multinomial(100, TIE), rng.multinomial(100, TIE)
    label = int(first.argmax())
    return label, lower(first[label] + fresh[label], 200)


def peeking(rng):
    """A bound at level alpha after each of ten batches; the best one is kept."""
    hits = rng.binomial(100, 0.9, size=10).cumsum()
    return 0, max(lower(k, 100 * (i + 1)) for i, k in enumerate(hits))


def best_of_reruns(rng):
    return 0, max(lower(k, 1000) for k in rng.binomial(1000, 0.9, size=4))


def best_of_sigmas(rng):
    """Four noise levels, each with its own true radius; the largest radius claimed per input."""
    p = stats.norm.cdf(0.8 / np.array([0.25, 0.5, 0.75, 1.0]))  # half-space at distance 0.8
    radii = [
        s * stats.norm.ppf(lower(rng.binomial(2000, q), 2000))
        for s, q in zip((0.25, 0.5, 0.75, 1.0), p, strict=True)
    ]
    return 0, max(radii)


def alpha_for_either_of_two_classes(rng):
    """Prediction: the leader is claimed at level alpha, though either class could have led."""
    counts = rng.multinomial(1000, COIN)
    p_lower = lower(counts.max(), 1000)
    return (int(counts.argmax()), math.nextafter(0.5, 1)) if p_lower > 0.5 else None


def wald(rng):
    k = rng.binomial(100, 0.99)
    share = k / 100
    return 0, share - stats.norm.isf(ALPHA) * math.sqrt(share * (1 - share) / 100)


def two_sided_level_halved_the_wrong_way(rng):
    """A one-sided bound at 2 alpha: the end of a two-sided interval at level 4 alpha."""
    return 0, lower(rng.binomial(1000, 0.9), 1000, 2 * ALPHA)


FAULTS = {
    "selection on the estimation sample": (selected_on_the_estimation_sample, TIE),
    "selection samples reused": (selection_samples_reused, TIE),
    "peeking": (peeking, np.array([0.9, 0.1])),
    "best of reruns": (best_of_reruns, np.array([0.9, 0.1])),
    "best of sigmas": (best_of_sigmas, np.array([0.8, 0.0])),
    "alpha for either class": (alpha_for_either_of_two_classes, COIN),
    "alpha and alpha/2 exchanged": (two_sided_level_halved_the_wrong_way, np.array([0.9, 0.1])),
    "Wald": (wald, np.array([0.99, 0.01])),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_the_fault_is_caught(name):
    procedure, truth = FAULTS[name]
    assert caught(procedure, truth)


# -- the library's procedures under the same catcher ---------------------------------------------


def library(mode: str, truth: np.ndarray, **options) -> Callable[[np.random.Generator], Claim]:
    plan = make_procedure(mode, alpha=ALPHA, sigma=1.0, n_max=400, **options)

    def run(rng) -> Claim:
        progress, counts, drawn = plan.start(), np.zeros(len(truth), dtype=np.int64), 0
        while (wanted := progress.wanted()) is not None:
            counts = counts + rng.multinomial(wanted - drawn, truth)
            drawn = wanted
            progress.look(counts)
        end = progress.outcome()
        return (end.label, end.p_lower) if end.status is Status.CERTIFIED else None

    return run


@pytest.mark.parametrize("truth", [TIE, COIN, np.array([0.84, 0.16]), np.array([0.99, 0.01])], ids=str)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("fixed", {"n0": 20, "n": 380}),
        ("decide", {"radius": 0.0}),
        ("decide", {"radius": 1.0}),
        ("grid", {"step": 0.25}),
        ("radius", {}),
    ],
)
def test_the_library_is_not_caught(mode, options, truth):
    assert not caught(library(mode, truth, **options), truth)


def test_the_catcher_sees_a_boundary_that_is_one_vote_too_low():
    """Fixed mode with one extra vote credited: a small fault, at a small alpha, is still seen."""
    assert caught(lambda rng: (0, lower(min(rng.binomial(100, 0.97) + 1, 100), 100)), np.array([0.97, 0.03]))


# -- what the API does not let anyone write -------------------------------------------------------


def threshold(batch: torch.Tensor) -> torch.Tensor:
    """Class 1 iff the first coordinate exceeds one half."""
    one = batch.flatten(1)[:, 0] > 0.5
    return torch.stack((~one, one), dim=1).to(batch.dtype)


def smoothed(**options) -> certify.Smoothed:
    return certify.Smoothed(threshold, 0.25, num_classes=2, grid=1 / 255, batch_size=64, **options)


IMAGE = torch.full((1, 1, 1), 140 / 255)


def test_selection_and_estimation_use_different_samples():
    """Cohen's mode: the counts are those of samples n0 .. n0 + n - 1, redrawn here one by one."""
    g = smoothed()
    record = g.certify(IMAGE[None], mode="fixed", n0=30, n=200, seed=5)[0]
    votes = threshold(g.noisy(IMAGE, 230, seed=5, id=0)).argmax(1)
    assert list(record.counts) == votes[30:].bincount(minlength=2).tolist()
    assert record.details["selection_counts"] == votes[:30].bincount(minlength=2).tolist()
    assert record.samples == 230


def test_prediction_uses_noise_of_its_own():
    g = smoothed()
    certified = g.certify(IMAGE[None], mode="fixed", n0=1, n=999, seed=5)[0]
    predicted = g.predict(IMAGE[None], n=1000, seed=5)[0]
    own = threshold(g.noisy(IMAGE, 1000, seed=5, id=0)).argmax(1).bincount(minlength=2)
    assert predicted.counts != tuple(own.tolist())
    assert certified.samples == predicted.samples


def test_a_rerun_is_the_same_run():
    """Rerunning changes nothing, and another seed does not enter the same run directory."""
    g = smoothed()
    first, again = (g.certify(IMAGE[None], n_max=500, seed=3)[0] for _ in range(2))
    assert (first.counts, first.radius, first.samples) == (again.counts, again.radius, again.samples)


def test_a_run_directory_keeps_its_seed_sigma_and_alpha(tmp_path):
    smoothed().certify(IMAGE[None], n_max=500, seed=3, store=tmp_path / "run")
    for other in ({"seed": 4}, {"seed": 3, "alpha": 0.01}, {"seed": 3, "n_max": 600}):
        with pytest.raises(RunConflict):
            smoothed().certify(IMAGE[None], store=tmp_path / "run", **{"n_max": 500, **other})


def test_inputs_never_share_noise():
    """Equal images under different ids: independent counts; equal ids are refused."""
    g = smoothed()
    x = IMAGE[None].expand(40, -1, -1, -1)
    counts = np.array([r.counts[1] for r in g.certify(x, mode="fixed", n0=1, n=400, seed=8)])
    p = counts.mean() / 400
    dispersion = ((counts - counts.mean()) ** 2).sum() / (400 * p * (1 - p))
    assert 1e-6 < stats.chi2.cdf(dispersion, 39) < 1 - 1e-6
    with pytest.raises(InvalidSetting, match="ids"):
        g.certify(x, ids=[7] * 40)


def test_shared_noise_would_be_seen():
    """One noise for all inputs: the dispersion of the counts collapses, so the test above can fail."""
    g = smoothed()
    votes = threshold(g.noisy(IMAGE, 400, seed=8, id=0)).argmax(1).sum().item()
    counts = np.full(40, votes)
    dispersion = ((counts - counts.mean()) ** 2).sum()
    assert stats.chi2.cdf(dispersion, 39) < 1e-6


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, float("nan"), -0.1])
def test_levels_that_promise_nothing_are_refused(alpha):
    with pytest.raises(InvalidSetting):
        smoothed().certify(IMAGE[None], alpha=alpha)
