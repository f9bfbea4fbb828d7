"""Figures: drawn from the numbers they are given, savable, and without global state."""

import io

import pytest
import torch

from analysis import Finite, empirical_rademacher, ledger, plots
from analysis.correlation import RankCorrelation
from analysis.evidence import Evidence
from analysis.heldout import gap_from_counts
from analysis.lipschitz_estimates import LipschitzBracket
from analysis.margins import margin_distribution
from tests.analysis.test_ledger import DISTANCES, broken, half_space_run


def saved(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode()


def test_every_figure_draws_and_names_its_parts():
    run = half_space_run(DISTANCES)
    attacks = tuple(broken(i, t) for i, t in enumerate(DISTANCES))
    evidence = Evidence(records=run.records, settings=run.settings, attacks=attacks)
    gaps = [gap_from_counts(0, n, 20, 300) for n in (100, 300)]
    halves = [
        empirical_rademacher(
            Finite.half_spaces(torch.randn(20, 2), torch.zeros(20), sigma=s), torch.randn(9, 2)
        )
        for s in (0.0, 1.0)
    ]
    figures = [
        plots.bounds_against_n([100, 300], {"kl form": [0.6, 0.4]}, gaps),
        plots.slack_bars(ledger(run, attacks=attacks)),
        plots.margin_cdfs({"train": margin_distribution(torch.randn(30, 3), torch.zeros(30).long())}),
        plots.complexity_against_sigma([0.0, 1.0], {"half-spaces": halves}),
        plots.lipschitz_brackets({"mlp": LipschitzBracket(1.0, 2.0, 2.5, 9.0, ()),
                                  "other": LipschitzBracket(1.0, 2.0, 2.5, float("inf"), ())}),
        plots.tau_forest([RankCorrelation("path norm", 0.4, 0.1, 0.6, 0.01, 30, 0.95)]),
        plots.radii_against_distance(evidence),
    ]  # fmt: skip
    for figure in figures:
        assert saved(figure).startswith("<?xml")
        assert figure.axes[0].get_xlabel()


def test_printed_radius_lies_above_the_line_and_cohen_below():
    run = half_space_run(DISTANCES)
    attacks = tuple(broken(i, t) for i, t in enumerate(DISTANCES))
    axes = plots.radii_against_distance(
        Evidence(records=run.records, settings=run.settings, attacks=attacks)
    ).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    printed = lines["As printed (not a certificate)"]
    assert printed.get_color() == plots.REFUTED
    assert all(y > x for x, y in zip(printed.get_xdata(), printed.get_ydata(), strict=True))
    cohen = lines["Cohen et al."]
    assert all(y < x for x, y in zip(cohen.get_xdata(), cohen.get_ydata(), strict=True))


def test_refuted_rows_have_their_own_colour():
    axes = plots.slack_bars(ledger()).axes[0]
    from matplotlib.colors import to_hex

    colours = [to_hex(p.get_facecolor()).upper() for p in axes.patches]
    refuted = sum(row.status == "violated" and bool(row.theory) for row in ledger())
    assert colours.count(plots.REFUTED) == refuted


def test_empty_evidence_draws_an_empty_plane():
    assert saved(plots.radii_against_distance(Evidence()))
    assert saved(plots.tau_forest([]))
    with pytest.raises(ValueError):
        plots.bounds_against_n([100, 300], {"short": [0.6]}, [gap_from_counts(0, 9, 1, 9)] * 2)
