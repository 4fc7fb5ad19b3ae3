"""A comparison as a LaTeX tabular, for a plain ``table`` without further packages."""

from __future__ import annotations

import re

from rwtool.evaluation.rows import Rules
from rwtool.report.text import Entry, ResultRow, metric_title, result_rows, statements
from rwtool.statistics.comparison import Comparison

_SPECIAL = {
    "\\": r"$\backslash$", "~": r"\~{}", "^": r"\^{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "[": "{[}",
    "]": "{]}", "*": "{*}", "$": r"$\mathdollar$", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    **{character: f"\\{character}" for character in "&%#_{}"},
}  # fmt: skip  # all in the fonts of TeX itself
_MARKS = {"": "", "*": "^{*}", "*↑": r"^{*\uparrow}", "*↓": r"^{*\downarrow}"}


def escape_latex(text: str) -> str:
    r"""Write text so that LaTeX prints it as it is, also as the first cell of a row.

    >>> print(escape_latex("rwl_rrw & 50 %"))
    rwl\_rrw \& 50 \%
    """
    return re.sub(r"-(?=-)", "-{}", "".join(_SPECIAL.get(c, c) for c in " ".join(text.split())))


def latex_table(comparison: Comparison, rules: Rules) -> str:
    """Write methods as rows and classes x metrics as columns, groups below one another.

    Nothing is bold: a star says which differences are more than chance, and the best mean may not be one of them.
    """
    names = {summary.label: summary.name for summary in reversed(comparison.classes)}
    labels = sorted(names)
    metrics = [escape_latex(metric_title(metric)) for metric in comparison.metrics]
    width = len(labels) * len(metrics)
    titles = (f"class {label}" if names[label] in ("", str(label)) else names[label] for label in labels)
    lines = [
        *(f"% {' '.join(line.split())}" for line in statements(comparison, rules)),
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


def _rows(rows: list[ResultRow], labels: list[int], n_metrics: int) -> list[str]:
    """Lines of one method: the rule in force, and where distances differ without one, a second."""
    lines = []
    for exclude in (False, True):
        of_label = {row.label: row.entries for row in rows if row.exclude == exclude}
        if exclude and not of_label:
            continue
        entries = [entry for label in labels for entry in of_label.get(label, (None,) * n_metrics)]
        name = "\\quad (exclude)" if exclude else escape_latex(rows[0].method)
        lines.append(_line([name, *("" if entry is None else _cell(entry) for entry in entries)]))
    return lines


def _cell(entry: Entry) -> str:
    if not entry.sd and not entry.mark:
        return "--" if entry.mean == "-" else f"${entry.mean}$"
    number = f"{entry.mean} \\pm {entry.sd}" if entry.sd else entry.mean
    return f"${number}{_MARKS[entry.mark]}$"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
