"""Figures in the running text that follow from a formula are what the formula gives."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from certify.bounds import binomial_interval, binomial_lower
from certify.radii import RADII, radius_between, radius_down
from certify.randomised import randomised_lower
from certify.runner_up import leader_lower, rivals_upper

DOCS = Path(__file__).resolve().parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.split("\n") if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_largest_provable_radius_per_number_of_samples():
    text = page("choosing")
    samples = [int(cell.replace(" ", "")) for cell in row(text, "| samples n")]
    for n, shown in zip(samples, row(text, "| largest radius"), strict=True):
        exact = float(stats.norm.ppf(binomial_lower(n, n, 1e-3)))
        assert float(shown) == int(exact * 100) / 100
    assert "sigma above r / 3.8 at the usual 100 000 samples" in text


@pytest.mark.parametrize(("n", "shown"), [(100, 10), (1000, 3)])
def test_the_interval_of_an_accuracy(n, shown):
    low, high = binomial_interval(n // 2, n, 0.05)
    assert round(50 * (high - low)) == shown
    assert re.search(
        rf"{n if n < 1000 else '1 000'}\s+(inputs\s+)?(give\s+)?about ± {shown}\b", page("choosing")
    )


def test_the_printed_formula_on_a_half_space():
    text = page("theory").split("## T1.")[1].split("## T2.")[0]
    sigma, t = np.sqrt(2), 0.1
    p = float(stats.norm.cdf(t / sigma))
    assert f"gap is {2 * p - 1:.4f}" in text.replace("\n", " ")
    for dim, digits in ((2, 1), (3072, 0)):
        assert f"{RADII['as_printed'].radius(p, 1 - p, sigma, dim):.{digits}f}" in text


def test_ten_samples_agree_with_the_stated_probability():
    assert f"with probability {stats.norm.cdf(2) ** 10:.2f}" in page("theory").replace("\n", " ")


def test_the_false_bound_on_a_soft_score():
    text = page("theory").replace("\n", " ")
    assert "probability 0.096 has mean 0.048" in text
    assert binomial_lower(1, 1, 0.05) == pytest.approx(0.05)  # > 0.048, so the statement is false there


def test_the_shortcut_for_noise_inside():
    # x -> 2 (x + .5 xi) + .5 xi: the sum has variance 4 * .25 + .25 at slope 2.
    text = page("theory")
    assert f"{np.sqrt(0.25 + 0.25):.3f}" in text
    assert f"{np.sqrt(4 * 0.25 + 0.25) / 2:.3f}" in text


def test_the_corrected_covering_bound_beside_massart():
    text = page("theory").replace("\n", " ")
    d, n = 784, 60_000
    massart = np.sqrt(2 * np.log(2 * d) / n)
    eps = np.logspace(-6, 0, 20001)
    covering = float((np.sqrt(2 * d * np.log(3 / eps) / n) + eps).min())
    assert f"{massart:.3f} beside {covering:.3f}" in text


def test_the_arithmetic_of_a_large_run():
    text = page("sampling")
    for start, unit in (
        ("| fixed, 100 + 100,000", 1e9),
        ("| radius | about", 1e9),
        ("| decide | about", 1e6),
    ):
        each, total, hours = row(text, start)
        number = float(each.replace("about", "").replace(",", ""))
        samples = number * 50_000
        assert float(total.split()[0]) == pytest.approx(samples / unit, rel=0.02)
        assert float(hours.replace(",", "")) == pytest.approx(samples / 1000 / 3600, rel=0.03)


def test_the_gate_that_ninety_of_a_hundred_pass():
    low, _ = binomial_interval(90, 100, 0.05)
    assert f"may well be {np.ceil(low * 100) / 100:.2f}" in page("ci")


def test_the_radii_of_single_inputs_and_what_the_second_bound_costs():
    text = page("runner-up")
    rows = [line.strip("|").split("|") for line in text.split("\n") if re.match(r"\| (2|10+) \| [01]", line)]
    assert len(rows) == 8
    n = 100_000
    for classes, leader, rival, alone, both in ([cell.strip() for cell in row] for row in rows):
        k, m = round(float(leader) * n), round(float(rival) * n)
        one = radius_down(binomial_lower(k, n, 1e-3), 1.0)
        two = radius_between(leader_lower(k, n, 1e-3), rivals_upper(m, n, 1e-3), 1.0)
        assert alone == (f"{int(one * 1000) / 1000:.3f}" if one else "abstains")
        assert both == f"{int((two if int(classes) > 2 else one) * 1000) / 1000:.3f}"
    lost = [
        radius_down(binomial_lower(k, k, 1e-3), 1.0) - radius_down(binomial_lower(k, k, 0.99e-3), 1.0)
        for k in range(10, 400)
    ]
    assert 0.0012 < max(lost) <= 0.0013
    assert "at most 0.0013 sigma" in text.replace("\n", " ")


def test_what_a_number_between_two_counts_is_worth():
    text = page("sampling")
    usual = binomial_lower(100, 100, 1e-3)
    drawn = np.mean([randomised_lower(100, 100, 1e-3, (i + 0.5) / 2000) for i in range(2000)])
    assert (
        f"{int(usual * 1000) / 1000:.3f} at alpha = 0.001, and {int(drawn * 1000) / 1000:.3f} on average"
        in text
    )
