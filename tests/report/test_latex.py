import re
import shutil
import subprocess

import pytest
from handmade import NASTY, row
from hypothesis import example, given
from hypothesis import strategies as st

from rwtool.evaluation.rows import Rules
from rwtool.report.latex import escape_latex, latex_table
from rwtool.statistics.comparison import compare_rows as compare


def test_summary_tex_to_the_letter(report):
    lines = (report / "summary.tex").read_text(encoding="utf-8").splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("%")) == LATEX
    assert lines[0].startswith("% spread: ")


LATEX = r"""\begin{tabular}{lcc}
\hline
 & \multicolumn{2}{c}{RV} \\
Method & Dice & HD (mm) \\
\hline
old & $0.250 \pm 0.000$ & $10.00 \pm 0.00$ \\
 & $[0.250, 0.250]$ & $[10.00, 10.00]$ \\
\quad (exclude) &  & $10.00 \pm 0.00$ \\
 &  & $[10.00, 10.00]$ \\
new & $0.521 \pm 0.310$ & $23.33 \pm 37.56$ \\
 & $[0.195, 0.847]$ & $[0.00, 62.75]$ \\
\quad (exclude) &  & $8.00 \pm 0.00$ \\
 &  & $[8.00, 8.00]$ \\
\hline
\end{tabular}
"""


def latex_rows(text):
    """Cells of each line that ends a row."""
    rows = []
    for line in text.splitlines():
        if line.endswith(r"\\") and not line.startswith("%"):
            cells = re.split(r"(?<!\\)&", line)
            spans = [re.search(r"\\multicolumn\{(\d+)\}", cell) for cell in cells]
            rows.append(sum(int(span[1]) if span else 1 for span in spans))
    return rows


def nasty_rows():
    return [
        row(method, f"{group}{i}", 0.5 + 0.1 * (i + 1) * (method != NASTY), label=label, group=group, class_name=name)
        for group in ("E_D", "E&S")
        for method in (NASTY, "[2pt] --- *x", "")
        for label, name in ((1, "R_V [%]"), (2, ""))
        for i in range(6)
        if method
    ]


def test_latex_has_balanced_braces_equal_rows_and_no_bare_specials():
    text = latex_table(compare(nasty_rows(), Rules()), Rules())
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    plain = re.sub(r"\\[&%$#_{}~^]", "", code)
    assert plain.count("{") == plain.count("}")
    assert set(latex_rows(text)) == {3}
    assert len(latex_rows(text)) == 2 + 2 * (1 + 2 * 2)  # each method has its intervals below it
    assert not re.search(r"[#%~]", plain)
    assert plain.count("$") % 2 == 0
    outside_math = re.sub(r"\$[^$]*\$", "", plain)
    assert not re.search(r"[_^<>|]", outside_math)
    assert not re.search(r"^\s*[\[*]", code, flags=re.MULTILINE)  # \\ would take it for its argument
    assert "class 2" in code


def test_escaping_to_the_letter():
    assert escape_latex("a_b & 50 % #1") == r"a\_b \& 50 \% \#1"
    assert escape_latex("\\~^{}") == r"$\backslash$\~{}\^{}\{\}"
    assert escape_latex("[x] a---b") == "{[}x{]} a-{}-{}-b"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_in_a_plain_table(tmp_path, report):
    (tmp_path / "nasty.tex").write_text(latex_table(compare(nasty_rows(), Rules()), Rules()), encoding="utf-8")
    tables = "".join(f"\\begin{{table}}\\input{{{name}}}\\end{{table}}" for name in ("nasty", "summary"))
    document = f"\\documentclass{{article}}\\begin{{document}}{tables}\\end{{document}}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("``a''", r"\`{}\`{}a'{}'"),
        ("?`!`", r"?\`{}!\`{}"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("<<a>>", "{$<$}{$<$}a{$>$}{$>$}"),
        (",,a", ",{},a"),
        ("'\"", "'{''}"),
        ("L\u00e4sion \u00e9 \u00ed \u00f1 \u00e7 \u010d \u0151", r"L\"{a}sion \'{e} \'{\i} \~{n} \c{c} \v{c} \H{o}"),
        ("e\u0301", r"\'{e}"),
        ("\u00df\u00f8\u0141\u00e5", r"{\ss}{\o}{\L}{\aa}"),
        ("\N{GREEK SMALL LETTER ALPHA}\N{GREEK CAPITAL LETTER LAMDA} \u00b5", r"$\alpha$$\Lambda$ $\mu$"),
        ("\u4e2d", "U+4E2D"),
        ("\U0001f600", "U+1F600"),
        ("\x1b[2J", r"$\backslash$x1b{[}2J"),
        ("a\u202eb", r"a$\backslash$u202eb"),
        (" a  b ", r"\ a \ b\ "),
    ],
)
def test_what_latex_would_make_of_it(text, code):
    assert escape_latex(text) == code


def typeset(code):
    """What plain LaTeX prints of the code of a text in printable ASCII: commands, ligatures and lost spaces."""
    signs = {
        r"$\backslash$": "\\", r"\~{}": "~", r"\^{}": "^", "{$<$}": "<", "{$>$}": ">", "$|$": "|", "{''}": '"',
        "{[}": "[", "{]}": "]", "{*}": "*", r"$\mathdollar$": "$", r"\`{}": "`", "{}": "", r"\ ": " ",
        **{f"\\{c}": c for c in "&%#_{}"},
        **dict.fromkeys(("--", "''", "``", ",,", "?`", "!`", "<<", ">>"), "LIGATURE"),
    }  # fmt: skip
    pattern = "|".join(re.escape(sign) for sign in sorted(signs, key=len, reverse=True))
    lone = re.sub(r"(?<!\\)(^ | $|(?<= ) )", "LOST", code)
    rest = re.sub(pattern, "", lone)
    assert not re.search(r"[\\{}$&#^_%~<>|]", rest), rest
    return re.sub(pattern, lambda found: signs[found.group()], lone)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12))
@example("``x'' -- ---- ?` !` <<>> ,, \"'\" \\\\ {} [*")
@example("  a   b  ")
def test_latex_prints_every_ascii_text_as_it_is(text):
    assert typeset(escape_latex(text)) == text


@given(st.text(max_size=12))
def test_the_code_of_any_text_is_printable_ascii(text):
    code = escape_latex(text)
    assert code.isascii()
    assert code.isprintable()
