"""The certified-accuracy table and the formula table as LaTeX (booktabs)."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from certify.records import Estimate
from reports import tables, words
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
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "{''}",
    "-": "-{}",  # two in a row would become a dash
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
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "ß": r"{\ss}",
    "æ": r"{\ae}",
    "ø": r"{\o}",
    "ł": r"{\l}",
    "Æ": r"{\AE}",
    "Ø": r"{\O}",
    "Ł": r"{\L}",
}
#: Combining accents and the commands that set them on a letter.
_ACCENT = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def latex(evidence: Evidence) -> str:
    """A float with one table; needs the package booktabs. Intervals are 95 %, over inputs."""
    rows = tables.accuracy_rows(evidence)
    say = evidence.say
    what = (say.accuracy if evidence.labelled else say.share).capitalize()
    settings = (
        f"$n={len(evidence.run)}$ inputs, $\\sigma={evidence.sigma:g}$, $\\alpha={evidence.alpha:g}$, "
        f"{escape(norm_name(evidence.norm))} radius"
    )
    attacked, part = any(row.attacked for row in rows), any(row.confronted for row in rows)
    lines = [
        "% Needs \\usepackage{booktabs}. Radii and shares are rounded down, attacked ones up.",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{what} of {escape(evidence.name)} ({settings}), "
        "with 95\\,\\% Clopper--Pearson intervals.}",
        f"\\begin{{tabular}}{{r rr{' r' if part else ''}{' rr' if attacked else ''}}}",
        "\\toprule",
        f"Radius & {say.certified.capitalize()} & Interval"
        + (f" & {escape(words.same_inputs(evidence))}" if part else "")
        + (f" & {escape(words.after_attack(evidence))} & Interval" if attacked else "")
        + r" \\",
        "\\midrule",
    ]
    for row in rows:
        cells = [f"{row.radius:g}", escape(percent_down(row.proved.value)), _interval(row.proved)]
        if part:
            cells.append(escape(percent_down(row.confronted.value)) if row.confronted else "--")
        if attacked:
            known = row.attacked
            cells += [escape(percent_up(known.value)), _interval(known)] if known else ["--", "--"]
        lines.append(" & ".join(cells) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    mean = f"Mean {say.certified} radius {radius_down(evidence.run.mean_radius())}."
    if evidence.two_sided:
        mean = words.one_sided_sentence(evidence)
    lines += [f"\\par\\smallskip\\footnotesize {escape(mean)}", "\\end{table}", ""]
    return "\n".join(lines)


def comparison_table(comparison: Comparison) -> str:
    """Certified accuracy of every run at common radii; needs the package booktabs."""
    names = [escape(f"{e.name} (claimed)" if e.imported else e.name) for e in comparison.runs]
    lines = [
        "% Needs \\usepackage{booktabs}. Values are rounded down.",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{comparison.say.accuracy.capitalize()} with 95\\,\\% Clopper--Pearson intervals.}}",
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
    """Text that LaTeX prints and never obeys, in ASCII: any engine and any font encoding compile it.

    Accented Latin letters and this package's symbols are set; a character beyond them stands as its
    code point, such as [U+4E2D], and a control character as a space.
    """
    plain = "".join(map(_letter, unicodedata.normalize("NFC", text)))
    return re.sub(r"\$\\ell\$\$_?(\d|\\infty)\$", r"$\\ell_\1$", plain)  # a norm is one symbol


def _letter(character: str) -> str:
    if known := _SPECIAL.get(character) or _SYMBOL.get(character):
        return known
    if character.isascii():
        return character if character.isprintable() else " "
    base, *accents = unicodedata.normalize("NFD", character)
    if len(accents) == 1 and accents[0] in _ACCENT and base.isascii() and base.isalpha():
        dotless = rf"\{base}" if base in "ij" and accents[0] != "\u0327" else base
        return rf"\{_ACCENT[accents[0]]}{{{dotless}}}"
    if unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    return f"[U+{ord(character):04X}]"


def _interval(estimate: Estimate) -> str:
    return escape(percent_interval(estimate))
