"""table.tex and compare.tex are LaTeX for every name a run can have: parsed, and compiled if possible."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import reports
from reports.comparison import contrast
from reports.evidence import Evidence
from reports.latex import comparison_table, escape, latex
from tests.reports.evidence_fixture import stored_run

HOSTILE = (
    r"a\b{c}d_e^f~g%h#i$j&k",
    r"\input{/etc/passwd}",
    "50%\n\\end{table} <script>|`''\"",
    "sigma=0.25 -- (σ ≤ √2) ---",
    "Müller, Çelik, Łódź, ïj́ 中文 🎲 \u202eright to left\u0301\x07",
    "}{}{",
    "$$",
    "\\\\",
)
COMMANDS = {
    *("begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "multicolumn"),
    *("par", "smallskip", "footnotesize", "textbackslash", "textasciitilde", "textasciicircum"),
    *("textless", "textgreater", "textbar", "textasciigrave", "sigma", "alpha", "varepsilon", "lambda"),
    *("ell", "infty", "le", "surd", "ss", "ae", "o", "l", "AE", "O", "L", "u", "r", "H", "v", "c", "i", "j"),
}


def check(source: str) -> None:
    """A reader of the LaTeX these tables use: raises on anything that could stop or mislead a real one."""
    assert source.isascii()
    body = "\n".join(line for line in source.split("\n") if not line.startswith("%"))
    depth, maths, environments, cells, columns = 0, False, [], 0, 0
    tokens = re.findall(r"\\[A-Za-z]+|\\.|[{}$&%#_^~]|[^\\{}$&%#_^~]+", body, re.S)
    for k, token in enumerate(tokens):
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            assert depth >= 0, "a brace closes nothing"
        elif token == "$":
            maths = not maths
        elif token == "&":
            cells += 1
        elif token in "%#^":
            raise AssertionError(f"a bare {token}")
        elif token == "_":
            assert maths, "a bare _ outside of a formula"
        elif token in (r"\begin", r"\end"):
            name = tokens[k + 2]
            if token == r"\begin":
                environments.append((name, depth))
                if name == "tabular":
                    columns = sum(c in "rlc" for c in tokens[k + 5])
            else:
                assert environments.pop() == (name, depth), "environments cross"
        elif token == r"\multicolumn":
            cells += int(tokens[k + 2]) - 1
        elif token == r"\\":
            assert cells + 1 == columns, "a row has another number of cells than the table columns"
            cells = 0
        elif token.startswith("\\") and len(token) > 1 and token[1].isalpha():
            assert token[1:] in COMMANDS, token
    assert (depth, maths, environments, cells) == (0, False, [], 0)


def named(name: str, other: str = "b") -> tuple[str, str]:
    runs = [Evidence.of(stored_run(inputs=12), name), Evidence.of(stored_run(inputs=12, seed=4), other)]
    return latex(runs[0]), comparison_table(contrast(runs))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_leaves_the_tables_well_formed(name):
    for source in named(name, name[::-1]):
        check(source)
        assert "passwd" not in source or "\\textbackslash{}input" in source


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
@example("--\u0301")
@example("\ud7ff\ue000")
def test_escaped_text_is_ascii_balanced_and_obeys_nothing(text):
    check(f"\\caption{{{escape(text)}}}")


@pytest.mark.parametrize(
    "wrong",
    [r"\begin{tabular}{rr}1\\\end{tabular}", r"\begin{table}", "50% of", "a_b", "}", r"\input{x}", "é", "$x"],
)
def test_the_reader_notices_what_would_not_compile(wrong):
    with pytest.raises((AssertionError, IndexError)):
        check(wrong)


def test_letters_of_european_names_are_kept():
    assert escape("Müller, Çelik, Łódź") == r"M\"{u}ller, \c{C}elik, " + r"{\L}\'{o}d\'{z}"
    assert escape("ï") == r"\"{\i}"
    assert escape("a--b") == "a-{}-{}b"


def test_a_norm_is_one_symbol_with_its_index():
    assert escape("ℓ₁, ℓ₂ and ℓ∞") == r"$\ell_1$, $\ell_2$ and $\ell_\infty$"
    assert escape("ℓ of ∞") == r"$\ell$ of $\infty$"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_real_latex_compiles_hostile_names(tmp_path: Path):
    parts = []
    for k, name in enumerate(HOSTILE):
        for j, source in enumerate(named(name, name[::-1])):
            (tmp_path / f"t{k}{j}.tex").write_text(source, encoding="utf-8")
            parts.append(f"\\input{{t{k}{j}}}")
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "all.tex").write_text(head + "\\clearpage\n".join(parts) + "\n\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 1000


def test_the_files_a_report_writes_are_these_tables(tmp_path):
    stored = stored_run(tmp_path / "50%_of #1 & more", inputs=12)
    check(reports.build(stored).table.read_text(encoding="utf-8"))
    check(reports.compare([stored, stored_run(tmp_path / "b", inputs=12)]).table.read_text(encoding="utf-8"))
