"""What a study is decided by, as tables: effects, equivalence, all pairs, rankings and agreement."""

from __future__ import annotations

from rwtool.evaluation.rows import Rules
from rwtool.report.text import Table, limits_text, p_text, table_title, test_lines
from rwtool.statistics.comparison import Comparison


def effect_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Effect and planning of every test of a group; None without tests."""
    lines = []
    for test, opening in test_lines(comparison, rules, group):
        effect = test.effect
        subjects = "-" if effect.subjects_for_power is None else f"{effect.subjects_for_power:,}"
        lines.append(
            (
                *opening,
                str(test.result.n),
                "-" if effect.d_z is None else f"{effect.d_z:+.2f}",
                "-" if effect.win_share is None else f"{100 * effect.win_share:.0f} %",
                subjects,
                p_text(effect.chance_not_better),
            )
        )
    if not lines:
        return None
    heads = (
        "class", "metric", "method", "n", "d_z", "subjects\nbetter", "subjects for\n80 % power",
        "chance of\nnot better",
    )  # fmt: skip
    title = table_title(comparison, group, f"effect against {comparison.baseline}, approximate")
    return Table(title, heads, lines, 3)


def equivalence_table(comparison: Comparison, rules: Rules, group: str) -> Table | None:
    """Whether the difference of each test of a group lies within the margin; None without a margin."""
    lines = []
    metric = ""
    for test, (class_cell, metric_cell, method) in test_lines(comparison, rules, group):
        metric = metric_cell or metric
        result = test.result
        if result.equivalence is not None:
            limits = limits_text(test, result.margin_low, result.margin_high)
            lines.append((class_cell, metric, method, f"{result.margin:g}", limits, result.equivalence))
    if not lines:
        return None
    level = f"{round(100 * (1 - 2 * rules.alpha), 9):g} % CI"
    heads = ("class", "metric", "method", "margin", f"mean difference\n[{level}]", "verdict")
    return Table(table_title(comparison, group, f"equivalence with {comparison.baseline}"), heads, lines, 3)
