"""A comparison as a LaTeX tabular, for a plain ``table`` without further packages."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from rwtool.console import printable
from rwtool.evaluation.rows import Label, Rules, label_order
from rwtool.report.text import Entry, ResultRow, label_title, metric_title, result_rows, statements
from rwtool.statistics.comparison import Comparison

_SPECIAL = {
    "\\": r"$\backslash$", "~": r"\~{}", "^": r"\^{}", "<": "{$<$}", ">": "{$>$}", "|": "$|$", '"': "{''}", "[": "{[}",
    "]": "{]}", "*": "{*}", "$": r"$\mathdollar$", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "°": r"$^{\circ}$", "µ": r"$\mu$", "≤": r"$\le$", "≥": r"$\ge$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{EN DASH}": "{--}", "\N{EM DASH}": "{---}",
    "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "œ": r"{\oe}", "Œ": r"{\OE}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}",
    "Ł": r"{\L}", "å": r"{\aa}", "Å": r"{\AA}", "\N{LATIN SMALL LETTER DOTLESS I}": r"{\i}", "`": r"\`{}",
    **{character: f"\\{character}" for character in "&%#_{}"},
}  # fmt: skip  # all in the fonts of TeX itself
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip  # by combining character
_LIGATURES = {("-", "-"), ("'", "'"), (",", ",")}  # those of backquotes and angles have no character left to form of
_GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
    "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
]  # fmt: skip  # those that TeX has
_MARKS = {"": "", "*": "^{*}", "*↑": r"^{*\uparrow}", "*↓": r"^{*\downarrow}"}


def escape_latex(text: str) -> str:
    r"""Write text so that LaTeX prints it as it is, also as the first cell of a row.

    Accents and Greek letters become commands. What LaTeX has no command for without further packages, such as Chinese,
    is printed as ``U+4E2D``, and what cannot be printed at all is written out. No ligature is left to form: neither of
    backquotes, nor of hyphens, commas and apostrophes.

    >>> print(escape_latex("rwl_rrw & 50 % -- ?`"))
    rwl\_rrw \& 50 \% -{}- ?\`{}
    """
    plain = unicodedata.normalize("NFC", printable(text))
    ligature = {i for i, pair in enumerate(pairwise(plain)) if pair in _LIGATURES}
    kept = {found.start() for found in re.finditer(r"^ | $|(?<= ) ", plain)}  # spaces that LaTeX would leave out
    return "".join(
        r"\ " if i in kept else _latex_character(character) + "{}" * (i in ligature)
        for i, character in enumerate(plain)
    )


def _latex_character(character: str) -> str:
    """One character in commands of plain LaTeX."""
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        letter = "\\" * (parts[0] in "ij") + parts[0]  # without their dots
        return f"\\{_ACCENTS[parts[1]]}{{{letter}}}"
    name = unicodedata.name(character, "").removeprefix("GREEK ").replace("LAMDA", "LAMBDA")
    case, _, greek = name.partition(" LETTER ")
    greek = greek.lower() if case == "SMALL" else greek.capitalize()
    return f"$\\{greek}$" if case in ("SMALL", "CAPITAL") and greek in _GREEK else f"U+{ord(character):04X}"


def latex_table(comparison: Comparison, rules: Rules) -> str:
    """Write methods as rows and classes x metrics as columns, intervals below their means, groups below one another.

    Nothing is bold: a star says which differences are more than chance, and the best mean may not be one of them.
    """
    names = {summary.label: summary.name for summary in reversed(comparison.classes)}
    labels = sorted(names, key=label_order)
    metrics = [escape_latex(metric_title(metric)) for metric in comparison.metrics]
    width = len(labels) * len(metrics)
    titles = (label_title(label) if names[label] in ("", str(label)) else names[label] for label in labels)
    lines = [
        *(f"% {printable(line)}" for line in statements(comparison, rules)),
        f"\\begin{{tabular}}{{l{'c' * width}}}",
        "\\hline",
        _line(["", *(f"\\multicolumn{{{len(metrics)}}}{{c}}{{{escape_latex(title)}}}" for title in titles)]),
        _line(["Method", *metrics * len(labels)]),
        "\\hline",
    ]
    for group in comparison.groups:
        if group:
            lines.append(_line([f"\\multicolumn{{{width + 1}}}{{l}}{{\\textit{{{escape_latex(group)}}}}}"]))
        rows = list(result_rows(comparison, rules, group))
        for method in comparison.methods:
            lines += _rows([row for row in rows if row.method == method], labels, len(metrics))
        lines.append("\\hline")
    return "\n".join([*lines, "\\end{tabular}", ""])


def _rows(rows: list[ResultRow], labels: list[Label], n_metrics: int) -> list[str]:
    """Lines of one method with their intervals: the rule in force, and where distances differ without one, again."""
    lines = []
    for exclude in (False, True):
        of_label = {row.label: row.entries for row in rows if row.exclude == exclude}
        if exclude and not of_label:
            continue
        entries = [entry for label in labels for entry in of_label.get(label, (None,) * n_metrics)]
        name = "\\quad (exclude)" if exclude else escape_latex(rows[0].method)
        lines.append(_line([name, *("" if entry is None else _cell(entry) for entry in entries)]))
        if any(entry is not None and entry.interval for entry in entries):
            lines.append(_line(["", *(f"${entry.interval}$" if entry and entry.interval else "" for entry in entries)]))
    return lines


def _cell(entry: Entry) -> str:
    if not entry.sd and not entry.mark:
        return "--" if entry.mean == "-" else f"${entry.mean}$"
    number = f"{entry.mean} \\pm {entry.sd}" if entry.sd else entry.mean
    return f"${number}{_MARKS[entry.mark]}$"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
