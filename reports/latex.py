"""The certified-accuracy table and the formula table as LaTeX (booktabs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certify.records import Estimate
from reports import tables
from reports.attack_groups import norm_name
from reports.evidence import Evidence
from reports.numbers import percent_down, percent_interval, percent_up, radius_down

if TYPE_CHECKING:
    from reports.comparison import Comparison

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_SYMBOL = {
    "ℓ": r"$\ell$",
    "₁": "$_1$",
    "₂": "$_2$",
    "\u00a0": "~",
    "–": "--",
    "−": "$-$",
    "∞": r"$\infty$",
    "\u202f": r"\,",
    "≤": r"$\le$",
    "√": r"$\surd$",
}


def latex(evidence: Evidence) -> str:
    """A float with one table; needs the package booktabs. Intervals are 95 %, over inputs."""
    rows = tables.accuracy_rows(evidence)
    what = "Certified accuracy" if evidence.labelled else "Certified share"
    settings = (
        f"$n={len(evidence.run)}$ inputs, $\\sigma={evidence.sigma:g}$, $\\alpha={evidence.alpha:g}$, "
        f"{escape(norm_name(evidence.norm))} radius"
    )
    attacked = any(row.attacked for row in rows)
    lines = [
        "% Needs \\usepackage{booktabs}. Certified values are rounded down, attacked ones up.",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{what} of {escape(evidence.name)} ({settings}), "
        "with 95\\,\\% Clopper--Pearson intervals.}",
        f"\\begin{{tabular}}{{r rr{' rr' if attacked else ''}}}",
        "\\toprule",
        "Radius & Certified & Interval" + (" & After attack & Interval" if attacked else "") + r" \\",
        "\\midrule",
    ]
    for row in rows:
        cells = [f"{row.radius:g}", escape(percent_down(row.proved.value)), _interval(row.proved)]
        if attacked:
            known = row.attacked
            cells += [escape(percent_up(known.value)), _interval(known)] if known else ["--", "--"]
        lines.append(" & ".join(cells) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    mean = f"Mean certified radius {radius_down(evidence.run.mean_radius())}."
    lines += [f"\\par\\smallskip\\footnotesize {escape(mean)}", "\\end{table}", ""]
    return "\n".join(lines)


def comparison_table(comparison: Comparison) -> str:
    """Certified accuracy of every run at common radii; needs the package booktabs."""
    names = [escape(e.name) for e in comparison.runs]
    lines = [
        "% Needs \\usepackage{booktabs}. Certified values are rounded down.",
        "\\begin{table}[t]",
        "\\centering",
        "\\caption{Certified accuracy with 95\\,\\% Clopper--Pearson intervals.}",
        f"\\begin{{tabular}}{{r{' rr' * len(names)}}}",
        "\\toprule",
        "Radius" + "".join(f" & \\multicolumn{{2}}{{c}}{{{name}}}" for name in names) + r" \\",
        "\\midrule",
    ]
    for i, radius in enumerate(comparison.radii):
        cells = [f"{radius:g}"]
        for row in comparison.accuracies:
            cells += [escape(percent_down(row[i].value)), _interval(row[i])]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def escape(text: str) -> str:
    """Text with LaTeX's special characters and this package's symbols made printable."""
    return "".join(_SPECIAL.get(c) or _SYMBOL.get(c) or c for c in text)


def _interval(estimate: Estimate) -> str:
    return escape(percent_interval(estimate))
